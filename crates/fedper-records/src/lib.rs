//! The files of a run directory, as types: what those who write one and those who read one have in common.
//!
//! A run directory holds everything about a run. [`names`] has the names of its files, [`records`] what their lines and
//! objects hold, [`counts`] what a reader needs of a partition, and [`files`] writes a file whole or not at all. Nothing here
//! knows of networks, datasets or configurations.
//!
//! ```
//! use fedper_records::{RoundRecord, files, names};
//!
//! # fn main() -> Result<(), fedper_records::RecordError> {
//! # let run = tempfile::tempdir().unwrap();
//! # let run = run.path();
//! # std::fs::write(run.join(names::ROUNDS), "").unwrap();
//! let mut best = 0.0;
//! files::for_each_line(&run.join(names::ROUNDS), |round: RoundRecord| {
//!     best = round.accuracy.map_or(best, |accuracy| accuracy.mean.max(best));
//! })?;
//! # Ok(())
//! # }
//! ```

pub mod counts;
mod error;
pub mod files;
pub mod names;
pub mod records;

pub use counts::{ClassCounts, DeviceCounts, read_classes};
pub use error::RecordError;
pub use fedper_core::metrics::Spread;
pub use files::write_atomically;
pub use records::{
    AlgorithmSummary, DevicePartition, DeviceRecord, NewClientRecord, NewClientSummary, NewClients,
    PartitionRecord, Pixels, RoundRecord, Summary, read_summary,
};
