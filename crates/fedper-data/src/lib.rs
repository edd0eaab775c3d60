//! Datasets, partitioners and batches for federated learning experiments.

mod catalogue;
mod cifar;
mod dataset;
mod embedded;
mod error;
mod idx;
mod images;
mod locate;

pub use catalogue::{Archive, DatasetInfo, DatasetKind, catalogue};
pub use dataset::{Dataset, DeviceFolder, LoadOptions, load};
pub use error::DataError;
pub use images::Images;
pub use locate::cache_dir;
