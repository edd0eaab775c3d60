//! What a server notes, so that another one can go on after it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use fedper_run::error::Error;
use fedper_run::rundir::write_atomically;

/// `network.json` in the run directory, until the run is finished.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Network {
    /// What devices keep belongs to this name.
    pub(super) federation: String,
    /// The SuperLink's run that was driven last: number, task, token.
    pub(super) run: Option<(u64, u64, String)>,
    /// The classes of the first device, where all must have the same and the server does not name them.
    #[serde(default)]
    pub(super) classes: Option<Vec<String>>,
}

impl Network {
    fn path(dir: &Path) -> PathBuf {
        dir.join("network.json")
    }

    pub(super) fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(network) => Ok(Some(network)),
                Err(error) => Err(Error::Foreign { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), Error> {
        Ok(write_atomically(&Self::path(dir), &serde_json::to_vec(self).expect("plain data"))?)
    }
    pub(super) fn remove(dir: &Path) -> Result<(), Error> {
        let path = Self::path(dir);
        std::fs::remove_file(&path).map_err(Error::file("remove", &path))
    }
}
