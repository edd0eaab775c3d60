//! What can go wrong in a run, and what a process says of it.

use std::path::{Path, PathBuf};

use fedper_data::DataError;
use fedper_nn::NnError;
use fedper_records::RecordError;
use thiserror::Error;

/// What can go wrong in a run.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line or the configuration is wrong. Nothing was written.
    #[error("{0}")]
    Config(String),
    /// A dataset cannot be read, or not be dealt as asked.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network cannot be built.
    #[error(transparent)]
    Network(#[from] NnError),
    /// A file that cannot be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// "read", "write", "create".
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Stopped from outside, with how to go on.
    #[error("{0}")]
    Stopped(String),
    /// Training came to nothing.
    #[error("{0}")]
    Training(String),
    /// Stopped from outside; the checkpoint of the last round is written.
    #[error("interrupted after a checkpoint; go on with: fedper run --resume {}", .0.display())]
    Interrupted(PathBuf),
}

impl Error {
    /// 2 if the command line or the configuration is wrong, 130 if interrupted, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Data(error) if is_configuration(error) => 2,
            Self::Network(_) => 2,
            Self::Interrupted(_) | Self::Stopped(_) => 130,
            _ => 1,
        }
    }

    /// For `map_err` on file operations.
    pub fn file(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::File { verb, path, source } => Self::File { verb, path, source },
            RecordError::Foreign { path, reason } => Self::Foreign { path, reason },
        }
    }
}

/// Whether the user asked for something that does not exist, or has images that cannot be used as they are, as opposed to
/// published files that are broken.
fn is_configuration(error: &DataError) -> bool {
    matches!(
        error,
        DataError::UnknownDataset { .. }
            | DataError::Partition { .. }
            | DataError::Make { .. }
            | DataError::Samples { .. }
            | DataError::Shape { .. }
            | DataError::Shards { .. }
            | DataError::Folder { .. }
            | DataError::Broken { .. }
            | DataError::ImageSize { .. }
            | DataError::ImageSizes { .. }
    )
}
