//! Federation over a network, on an unmodified Flower SuperLink.
//!
//! Everything large travels as content-addressed [`object`]s; [`records`] make a message's content of them: arrays as
//! `.npy`, metrics, configuration. [`fleet`] is a node, which is asked and answers; [`runtime`] is the app that drives the
//! rounds. Both speak protobuf over HTTP behind the [`transport::Transport`] seam.
//!
//! What this crate sends are base parameters: an [`records::ArrayRecord`] is made of [`fedper_core::split::Shared`] and
//! of nothing else. It knows neither networks nor datasets. What a device keeps cannot be sent; this does not compile:
//!
//! ```compile_fail,E0308
//! use fedper_core::split::Kept;
//! fn leak(personal: &Kept) -> fedper_flower::records::ArrayRecord {
//!     fedper_flower::records::ArrayRecord::of(personal)
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use fedper_core::split::Kept;
//! fn leak(personal: &Kept) -> fedper_flower::records::ArrayRecord {
//!     fedper_flower::records::ArrayRecord::flat(personal)
//! }
//! ```
//!
//! while the same with a base does:
//!
//! ```
//! use fedper_core::split::Shared;
//! use fedper_flower::records::ArrayRecord;
//! fn send(base: &Shared) -> [ArrayRecord; 2] {
//!     [ArrayRecord::of(base), ArrayRecord::flat(base)]
//! }
//! ```

pub mod error;
pub mod fleet;
pub mod identity;
pub mod message;
pub mod npy;
pub mod object;
pub mod proto;
pub mod records;
pub mod retry;
pub mod runtime;
pub mod transport;
