//! What can go wrong with data, in words that say what to do about it.

use std::io;
use std::path::PathBuf;

/// Everything that can go wrong with data from outside and with what is asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No dataset has this name.
    #[error("there is no dataset '{name}': choose one of {known}")]
    UnknownDataset {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A dataset's files are nowhere.
    #[error("dataset '{dataset}' is not on this machine: {missing} was looked for in {looked}; {advice}")]
    NotFound {
        /// The dataset.
        dataset: &'static str,
        /// The file that was looked for.
        missing: String,
        /// The folders it was looked for in.
        looked: String,
        /// How to get it.
        advice: String,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}; check that the path exists and that you may use it", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error(
        "cannot read {file} as {format}: expected {expected}, found {found}; the file is damaged or another one, get it again"
    )]
    Format {
        /// The file.
        file: String,
        /// What it was read as.
        format: &'static str,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Pixels and labels do not make images.
    #[error("cannot make images of shape {shape:?} (count, height, width, channels): expected {} bytes, found {found}; \
             every side must be at least 1 and the count at most 4294967295",
             expected.map_or("too many".into(), |n| n.to_string()))]
    Shape {
        /// Count, height, width, channels.
        shape: [usize; 4],
        /// How many bytes that is, unless it does not fit the machine.
        expected: Option<usize>,
        /// How many bytes there were.
        found: usize,
    },
    /// Samples in memory do not make a dataset.
    #[error("cannot make a dataset of these samples: {problem}")]
    Samples {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Somebody said who holds what, and it cannot be so.
    #[error("cannot use these shards: {problem}")]
    Shards {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A folder of images has another structure than expected.
    #[error("cannot use {} as a dataset: {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A file is not an image.
    #[error("cannot decode the image {}: {problem}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Some files of a folder are not images.
    #[error("cannot decode {count} of the {all} images in {}: {list}{advice}", path.display())]
    Broken {
        /// The folder.
        path: PathBuf,
        /// How many are broken.
        count: usize,
        /// Of how many.
        all: usize,
        /// The first of them, each with what is wrong and what to do.
        list: String,
        /// What else to do.
        advice: &'static str,
    },
    /// The images of a folder differ in size.
    #[error("the images differ in size: {} is {}x{}, {} is {}x{} (height x width); give one size for all with --image-size",
            first.display(), first_size.0, first_size.1, other.display(), other_size.0, other_size.1)]
    ImageSizes {
        /// The first image.
        first: PathBuf,
        /// Its height and width.
        first_size: (usize, usize),
        /// The first one that differs.
        other: PathBuf,
        /// Its height and width.
        other_size: (usize, usize),
    },
    /// Images cannot have this size.
    #[error(
        "cannot resize images to {height}x{width} (height x width): give --image-size with sides from 1 to {longest}"
    )]
    ImageSize {
        /// The height asked for.
        height: usize,
        /// The width asked for.
        width: usize,
        /// The longest side.
        longest: usize,
    },
    /// A dataset has no files on the network.
    #[cfg(feature = "fetch")]
    #[error("there is nothing to download for dataset '{dataset}': it is looked for in {looked_for}")]
    NothingToFetch {
        /// The dataset.
        dataset: &'static str,
        /// Where it is looked for.
        looked_for: &'static str,
    },
    /// There is no place for downloads and resized photos.
    #[error("there is no cache directory: set XDG_CACHE_HOME or HOME to an absolute path")]
    NoCache,
    /// Resized photos cannot be kept.
    #[error(
        "cannot keep resized photos in {}: {source}; make room there, or name another folder for the cache with \
             XDG_CACHE_HOME", folder.display()
    )]
    PhotoCache {
        /// The folder of the cache.
        folder: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A set cannot be made as asked.
    #[error("cannot make a set: {problem}")]
    Make {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file of ratings is not what it should be.
    #[error("cannot use the ratings in {}: {problem}", path.display())]
    Ratings {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// Another process holds the lock.
    #[cfg(feature = "fetch")]
    #[error("another process is downloading dataset '{dataset}': wait for it to end, then try again")]
    FetchBusy {
        /// The dataset.
        dataset: String,
    },
    /// A download failed.
    #[cfg(feature = "fetch")]
    #[error("cannot download {url}: {problem}; {advice}")]
    Fetch {
        /// The address.
        url: String,
        /// What went wrong.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// What was downloaded is not the official file.
    #[cfg(feature = "fetch")]
    #[error(
        "{url} is not the file it should be: expected SHA-256 {expected}, found {found}; it was thrown away, try again \
             or from another network"
    )]
    Checksum {
        /// The address.
        url: String,
        /// The official checksum.
        expected: String,
        /// The checksum of what came.
        found: String,
    },
    /// A partition was asked for that cannot be.
    #[error("cannot partition dataset '{dataset}': {problem}; {advice}")]
    Partition {
        /// The dataset.
        dataset: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },
}

/// Turns an I/O error into [`DataError::Io`]; for `map_err`.
pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> DataError {
    let path = path.into();
    move |source| DataError::Io { operation, path, source }
}
