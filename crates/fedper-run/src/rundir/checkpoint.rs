//! The checkpoint: one embedded transactional store (`redb`), a transaction a round.
//!
//! A transaction is there whole or not at all, whenever the process or the machine dies. It holds only what the round
//! changed: what lasts on the server, and what the devices that trained keep. These go into it as devices train, and
//! what does not fit into the store's cache goes to the file at once, so a round of any size takes little memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedper_core::params::{Layout, Params};
use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::{Kept, Shared};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Its folder in the run directory.
pub(crate) const FOLDER: &str = "checkpoint";
const FILE: &str = "state.redb";
/// Memory for the store's own pages, in bytes; half of it at most for what is not written yet.
const CACHE: usize = 16 << 20;

/// `"progress"` -> [`Progress`] as JSON.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Algorithm -> rounds done.
const ROUNDS: TableDefinition<'_, &str, u32> = TableDefinition::new("rounds");
/// Algorithm -> values of what lasts on the server, little-endian.
const BASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bases");
/// (algorithm, device) -> values of what the device keeps, little-endian.
const PERSONAL: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("personal");

/// How far a run has come, apart from weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// `config.toml` as the run began.
    pub(super) config: String,
    /// Length of `rounds.jsonl`.
    pub(super) rounds_len: u64,
    /// Length of `devices.jsonl`.
    pub(super) devices_len: u64,
    /// Wall time so far.
    pub(super) seconds: f64,
    /// The SHA-256 of the file of weights that the run began with, if there is one.
    #[serde(default)]
    pub(super) init_sha256: Option<String>,
}

impl Progress {
    pub(super) fn at_the_beginning(config: String, init_sha256: Option<String>) -> Self {
        Self { config, rounds_len: 0, devices_len: 0, seconds: 0.0, init_sha256 }
    }
}

/// An open checkpoint; no other process can open it meanwhile.
pub(super) struct Checkpoint {
    path: PathBuf,
    database: Database,
}

impl Checkpoint {
    /// Makes `<run>/checkpoint` appear at once, with `progress` in it.
    pub(super) fn create(run: &Path, progress: &Progress) -> Result<Self, Error> {
        Self::create_with(run, progress, |_| Ok(()))
    }

    /// The same with what `fill` puts into it before it appears.
    pub(super) fn create_with(
        run: &Path,
        progress: &Progress,
        fill: impl FnOnce(&Self) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let temporary = run.join("checkpoint.tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(Error::file("remove", &temporary))?;
        }
        fs::create_dir(&temporary).map_err(Error::file("create", &temporary))?;
        let made = Self::at(temporary.join(FILE))?;
        made.begin_write()?.begin(progress)?;
        fill(&made)?;
        drop(made);
        let folder = run.join(FOLDER);
        fs::rename(&temporary, &folder).map_err(Error::file("create", &folder))?;
        Self::open(run)
    }

    pub(super) fn open(run: &Path) -> Result<Self, Error> {
        Self::at(run.join(FOLDER).join(FILE))
    }

    fn at(path: PathBuf) -> Result<Self, Error> {
        // What is used often is held elsewhere: little is enough.
        match Database::builder().set_cache_size(CACHE).create(&path) {
            Ok(database) => Ok(Self { path, database }),
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => Err(Error::Foreign {
                path,
                reason: "another process is running this run; wait for it or end it".into(),
            }),
            Err(error) => Err(failed(&path, error)),
        }
    }

    pub(super) fn progress(&self) -> Result<Progress, Error> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(META)?;
            Ok(table.get("progress")?.map(|value| value.value().to_vec()))
        };
        let bytes = read().map_err(|error| failed(&self.path, error))?;
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| Error::Foreign {
            path: self.path.clone(),
            reason: "not a checkpoint of this program; begin another run".into(),
        })
    }

    /// Replaces what is noted of the run's progress.
    pub(super) fn note(&self, progress: &Progress) -> Result<(), Error> {
        self.begin_write()?.commit(progress)
    }

    fn begin_write(&self) -> Result<Writing, Error> {
        match self.database.begin_write() {
            Ok(transaction) => Ok(Writing { path: self.path.clone(), transaction }),
            Err(error) => Err(failed(&self.path, error)),
        }
    }

    pub(super) fn begin_round(&self, algorithm: &'static str) -> Result<OpenRound, Error> {
        Ok(OpenRound { algorithm, writing: self.begin_write()? })
    }

    pub(super) fn restore(&self, algorithm: &str, parts: &Parts) -> Result<Option<(Shared, u32)>, Error> {
        let read = || -> Result<Option<(Vec<u8>, u32)>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let Some(round) = transaction.open_table(ROUNDS)?.get(algorithm)?.map(|round| round.value())
            else {
                return Ok(None);
            };
            let base = transaction.open_table(BASES)?.get(algorithm)?.map(|base| base.value().to_vec());
            Ok(Some((base.unwrap_or_default(), round)))
        };
        let Some((base, round)) = read().map_err(|error| failed(&self.path, error))? else {
            return Ok(None);
        };
        let base = params(&self.path, parts.server.layout(), &base)?;
        Ok(Some((parts.adopt_state(base).expect("made with the state's own layout"), round)))
    }

    /// Hands the personal parameters of every device that has trained to `each`, in the order of the devices.
    pub(super) fn each_personal(
        &self,
        algorithm: &str,
        parts: &Parts,
        mut each: impl FnMut(DeviceId, &Kept) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |error: redb::Error| failed(&self.path, error);
        let transaction = self.database.begin_read().map_err(|error| failed(error.into()))?;
        let table = transaction.open_table(PERSONAL).map_err(|error| failed(error.into()))?;
        let devices = table.range((algorithm, 0)..=(algorithm, u64::MAX));
        for entry in devices.map_err(|error| failed(error.into()))? {
            let (key, value) = entry.map_err(|error| failed(error.into()))?;
            each(DeviceId(key.value().1), &personal(&self.path, parts, value.value())?)?;
        }
        Ok(())
    }
}

/// A transaction that is being written; dropping it undoes it.
struct Writing {
    path: PathBuf,
    transaction: WriteTransaction,
}

impl Writing {
    fn begin(self, progress: &Progress) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            // Whoever reads finds every table.
            self.transaction.open_table(ROUNDS)?;
            self.transaction.open_table(BASES)?;
            self.transaction.open_table(PERSONAL)?;
            Ok(())
        };
        write().map_err(|error| failed(&self.path, error))?;
        self.commit(progress)
    }

    fn commit(self, progress: &Progress) -> Result<(), Error> {
        let write = |transaction: WriteTransaction| -> Result<(), redb::Error> {
            let json = serde_json::to_vec(progress).expect("plain data");
            transaction.open_table(META)?.insert("progress", json.as_slice())?;
            transaction.commit()?;
            Ok(())
        };
        write(self.transaction).map_err(|error| failed(&self.path, error))
    }
}

/// A round that is not durable yet.
pub struct OpenRound {
    algorithm: &'static str,
    writing: Writing,
}

impl OpenRound {
    /// Takes up what `device` keeps.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, device: DeviceId, params: &Kept) -> Result<(), Error> {
        let bytes = params.params().to_le_bytes();
        let write = || -> Result<(), redb::Error> {
            let mut table = self.writing.transaction.open_table(PERSONAL)?;
            table.insert((self.algorithm, device.0), bytes.as_slice())?;
            Ok(())
        };
        write().map_err(|error| failed(&self.writing.path, error))
    }

    /// What `device` keeps, from this round or an earlier one; `None` if it has never trained.
    ///
    /// # Errors
    /// If it cannot be read, or is not what `parts` asks for.
    pub fn kept(&self, device: DeviceId, parts: &Parts) -> Result<Option<Kept>, Error> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.writing.transaction.open_table(PERSONAL)?;
            Ok(table.get((self.algorithm, device.0))?.map(|value| value.value().to_vec()))
        };
        let path = &self.writing.path;
        let bytes = read().map_err(|error| failed(path, error))?;
        bytes.map(|bytes| personal(path, parts, &bytes)).transpose()
    }

    pub(super) fn commit(self, progress: &Progress, round: u32, base: &Shared) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let transaction = &self.writing.transaction;
            transaction.open_table(ROUNDS)?.insert(self.algorithm, round)?;
            let bytes = base.params().to_le_bytes();
            transaction.open_table(BASES)?.insert(self.algorithm, bytes.as_slice())?;
            Ok(())
        };
        write().map_err(|error| failed(&self.writing.path, error))?;
        self.writing.commit(progress)
    }
}

fn personal(path: &Path, parts: &Parts, bytes: &[u8]) -> Result<Kept, Error> {
    let params = params(path, parts.kept.layout(), bytes)?;
    Ok(parts.adopt_kept(params).expect("made with the kept layout"))
}

fn params(path: &Path, layout: &Arc<Layout>, bytes: &[u8]) -> Result<Params, Error> {
    Params::from_le_bytes(layout.clone(), bytes).map_err(|error| Error::Foreign {
        path: path.to_owned(),
        reason: format!("weights of another network: {error}"),
    })
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(source) => Error::File { verb: "write", path: path.to_owned(), source },
        other => Error::Foreign { path: path.to_owned(), reason: other.to_string() },
    }
}
