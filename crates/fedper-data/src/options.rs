//! What one may ask for when a dataset is read.

use std::path::PathBuf;

/// How to read a dataset.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Resize every image to this height and width. `None` keeps the size, which must then be the same for all.
    pub image_size: Option<(usize, usize)>,
    /// Which users are drawn, where a dataset has users.
    pub raters: RaterOptions,
    /// Where resized photos are kept instead of in [`cache_dir`](crate::cache_dir).
    pub cache: Option<PathBuf>,
    /// Leave out images of a folder that cannot be decoded, instead of refusing the folder.
    pub skip_broken: bool,
    /// The most bytes of pixels that a folder's images take in memory; more than that are kept in a file of the cache.
    /// `None` for 64 MiB.
    pub memory: Option<u64>,
}

/// Which users of a dataset of ratings become devices. The defaults are the FedPer paper's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaterOptions {
    /// How many users are drawn.
    pub users: usize,
    /// The fewest photos that a user has rated.
    pub min_photos: usize,
    /// The most photos that a user has rated.
    pub max_photos: usize,
    /// The fewest photos that a user has given each score.
    pub min_per_score: usize,
    /// The run's seed.
    pub seed: u64,
}

impl Default for RaterOptions {
    fn default() -> Self {
        Self { users: 30, min_photos: 60, max_photos: 290, min_per_score: 4, seed: 1 }
    }
}
