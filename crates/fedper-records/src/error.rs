//! What can go wrong with the files of a run directory.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with a file of a run directory.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file that cannot be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// "read", "write", "create".
        verb: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl RecordError {
    /// For `map_err` on file operations.
    pub(crate) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { verb, path, source }
    }

    /// For `map_err` on parsing.
    pub(crate) fn foreign(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Foreign { path, reason: error.to_string() }
    }
}
