//! The checkpoint: one embedded transactional store (`redb`), a transaction a round.
//!
//! A transaction is there whole or not at all, whenever the process or the machine dies. It holds only what the round
//! changed: the base, and the personal parameters of the devices that trained.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedper_core::params::{Layout, Params};
use fedper_core::round::DeviceId;
use fedper_core::split::Split;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{FederationState, Restored};
use crate::error::Error;

/// Its folder in the run directory.
pub(super) const FOLDER: &str = "checkpoint";
const FILE: &str = "state.redb";

/// `"progress"` -> [`Progress`] as JSON.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Algorithm -> rounds done.
const ROUNDS: TableDefinition<'_, &str, u32> = TableDefinition::new("rounds");
/// Algorithm -> values of the base, little-endian.
const BASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("bases");
/// (algorithm, device) -> values of its personal parameters, little-endian.
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
}

impl Progress {
    pub(super) fn at_the_beginning(config: String) -> Self {
        Self { config, rounds_len: 0, devices_len: 0, seconds: 0.0 }
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
        let temporary = run.join("checkpoint.tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(Error::file("remove", &temporary))?;
        }
        fs::create_dir(&temporary).map_err(Error::file("create", &temporary))?;
        let made = Self::at(temporary.join(FILE))?;
        made.write(progress, None)?;
        drop(made);
        let folder = run.join(FOLDER);
        fs::rename(&temporary, &folder).map_err(Error::file("create", &folder))?;
        Self::open(run)
    }

    pub(super) fn open(run: &Path) -> Result<Self, Error> {
        Self::at(run.join(FOLDER).join(FILE))
    }

    fn at(path: PathBuf) -> Result<Self, Error> {
        // The cache holds pages of a store that is read once and then only written: little is enough.
        match Database::builder().set_cache_size(16 << 20).create(&path) {
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

    pub(super) fn commit(&self, progress: &Progress, state: &FederationState<'_>) -> Result<(), Error> {
        self.write(progress, Some(state))
    }

    fn write(&self, progress: &Progress, state: Option<&FederationState<'_>>) -> Result<(), Error> {
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let json = serde_json::to_vec(progress).expect("plain data");
                transaction.open_table(META)?.insert("progress", json.as_slice())?;
                let mut rounds = transaction.open_table(ROUNDS)?;
                let mut bases = transaction.open_table(BASES)?;
                let mut personal = transaction.open_table(PERSONAL)?;
                if let Some(state) = state {
                    rounds.insert(state.algorithm, state.round)?;
                    bases.insert(state.algorithm, to_bytes(state.base.params()).as_slice())?;
                    for (device, params) in &state.changed {
                        personal.insert((state.algorithm, device.0), to_bytes(params.params()).as_slice())?;
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        };
        write().map_err(|error| failed(&self.path, error))
    }

    pub(super) fn restore(&self, algorithm: &str, split: &Split) -> Result<Option<Restored>, Error> {
        type Raw = (u32, Vec<u8>, Vec<(u64, Vec<u8>)>);
        let read = || -> Result<Option<Raw>, redb::Error> {
            let transaction = self.database.begin_read()?;
            let Some(round) = transaction.open_table(ROUNDS)?.get(algorithm)?.map(|round| round.value())
            else {
                return Ok(None);
            };
            let base = transaction.open_table(BASES)?.get(algorithm)?.map(|base| base.value().to_vec());
            let mut devices = Vec::new();
            for entry in transaction.open_table(PERSONAL)?.range((algorithm, 0)..=(algorithm, u64::MAX))? {
                let (key, value) = entry?;
                devices.push((key.value().1, value.value().to_vec()));
            }
            Ok(Some((round, base.unwrap_or_default(), devices)))
        };
        let Some((round, base, devices)) = read().map_err(|error| failed(&self.path, error))? else {
            return Ok(None);
        };
        let base =
            split.adopt_base(&self.params(split.base(), &base)?).expect("made with the base's own layout");
        let mut personal = BTreeMap::new();
        for (device, bytes) in devices {
            let params = split
                .adopt_personal(&self.params(split.personal(), &bytes)?)
                .expect("made with the personal layout");
            personal.insert(DeviceId(device), Arc::new(params));
        }
        Ok(Some((base, personal, round)))
    }

    fn params(&self, layout: &Arc<Layout>, bytes: &[u8]) -> Result<Params, Error> {
        let values =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        Params::from_values(layout.clone(), values).map_err(|error| Error::Foreign {
            path: self.path.clone(),
            reason: format!("weights of another network: {error}"),
        })
    }
}

fn to_bytes(params: &Params) -> Vec<u8> {
    params.values().iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn failed(path: &Path, error: impl Into<redb::Error>) -> Error {
    match error.into() {
        redb::Error::Io(source) => Error::File { verb: "write", path: path.to_owned(), source },
        other => Error::Foreign { path: path.to_owned(), reason: other.to_string() },
    }
}
