//! Datasets, partitioners and batches for federated learning experiments.
//!
//! [`load`] reads a dataset by name, [`partition`] deals its samples to devices, and a [`Batcher`] turns a device's
//! samples into normalised batches. Nothing here knows of networks or federations, prints, or draws a random number
//! that is not derived from a seed ([`fedper_core::seed`]). With the feature `fetch`, official files can be downloaded; without
//! it, nothing here opens a connection.
//!
//! ```
//! use fedper_data::{LoadOptions, PartitionOptions, Scheme, TestSplit, load, partition};
//!
//! let dataset = load("fashion-mnist-small", None, &LoadOptions::default())?;
//! let options = PartitionOptions {
//!     scheme: Scheme::Classes { per_device: 2 },
//!     devices: 20,
//!     samples_per_device: None,
//!     with_replacement: false,
//!     test: TestSplit::Fraction(0.25),
//!     seed: 1,
//! };
//! let parts = partition(&dataset, &options)?;
//! assert_eq!(parts.len(), 20);
//! let shard = parts.shard(0);
//! assert_eq!(shard.train.len() + shard.test.len(), 500);
//! # Ok::<(), fedper_data::DataError>(())
//! ```

mod batch;
mod catalogue;
mod cifar;
mod dataset;
mod decode;
mod embedded;
mod error;
#[cfg(feature = "fetch")]
mod fetch;
mod flickr;
mod folder;
mod idx;
mod images;
mod left_out;
mod load;
mod locate;
mod made;
mod memory;
mod normalisation;
mod options;
mod partition;
mod photos;
mod resize;

pub use batch::{Batcher, normalise};
pub use catalogue::{Archive, DatasetInfo, DatasetKind, catalogue};
pub use dataset::{Dataset, DeviceFolder};
pub use error::DataError;
#[cfg(feature = "fetch")]
pub use fetch::{FetchOptions, Progress, fetch, fetch_with};
pub use flickr::RATINGS as FLICKR_RATINGS;
pub use folder::read_image;
pub use images::Images;
pub use left_out::LeftOut;
pub use load::{load, load_watched};
pub use locate::cache_dir;
pub use made::{MakeOptions, make_flickr_aes};
pub use normalisation::Normalisation;
pub use options::{LoadOptions, RaterOptions};
pub use partition::{
    ClassTable, Partition, PartitionOptions, Scheme, Shard, TestSplit, class_counts, partition,
};

/// Bytes in hexadecimal, as checksums are written.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
