//! The run directory: everything about a run under one folder (see `docs/run-directory.md` for the list of its files).
//!
//! What is committed stays: a round's lines in the `.jsonl` files and its weights become valid together, by one
//! transaction of the checkpoint that also records how long the files then are. Whatever a crash leaves behind that is
//! cut off when the run goes on.

mod checkpoint;
mod extend;
mod history;
mod new_clients;
mod outcome;
mod partition;
mod state;
mod summary;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fedper_core::coordinator::{Coordinator, Plan};
use fedper_core::params::Params;
use fedper_core::parts::Parts;
use fedper_core::split::Shared;
use fedper_core::strategy::Strategy;
use fedper_records::files::{append, for_each_line, lines, open_cut, remove, temporary};
use fedper_records::names::{CONFIG, DEVICES, NEW_CLIENTS, PARTITION, ROUNDS, SUMMARY};
pub use fedper_records::{self as records, read_summary, write_atomically};
use fedper_records::{DeviceRecord, NewClientRecord, RoundRecord, Summary};

pub(crate) use self::checkpoint::FOLDER;
pub use self::checkpoint::OpenRound;
use self::checkpoint::{Checkpoint, Progress};
pub(crate) use self::history::History;
pub(crate) use self::outcome::record_of_end;
pub use self::outcome::records_of;
pub use self::partition::SampleTotals;
use self::state::device_file;
pub(crate) use self::state::{read_kept, read_state};
pub use self::summary::peak_rss_bytes;
use crate::config::{Config, Settings, read_settings};
use crate::error::Error;
use crate::experiment::Experiment;

/// In `weights/<algorithm>/`: the base under bare names, and what else lasts on the server.
pub(crate) const BASE: &str = "base.safetensors";
const SERVER: &str = "server.safetensors";

/// A run directory that is being written. One process at a time can hold it.
pub struct RunDir {
    path: PathBuf,
    checkpoint: Option<Checkpoint>,
    rounds: File,
    devices: File,
    progress: Progress,
    samples: SampleTotals,
}

impl RunDir {
    /// Begins a run in `path`, which must not exist or be empty. What a run leaves that was killed before its
    /// configuration was written is nothing.
    ///
    /// # Errors
    /// [`Error::Config`] if `path` holds something, [`Error::File`] if it cannot be written.
    pub fn create(path: &Path, experiment: &Experiment) -> Result<Self, Error> {
        let unwritten = temporary(&path.join(CONFIG));
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if path.join(CONFIG).exists() {
                    return Err(Error::Config(format!(
                        "there is a run in {0}: choose another --out, or go on with it: fedper run --resume {0}",
                        path.display()
                    )));
                }
                if entries.any(|entry| entry.map_or(true, |entry| Some(entry.path()) != unwritten)) {
                    return Err(Error::Config(format!(
                        "{} is not empty: choose another --out",
                        path.display()
                    )));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(Error::file("create", path))?;
            }
            Err(error) => return Err(Error::file("read", path)(error)),
        }
        write_atomically(&path.join(CONFIG), experiment.config.to_toml().as_bytes())?;
        Self::begin(path, experiment)
    }

    /// The configuration of the run in `path`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no run.
    pub fn settings(path: &Path) -> Result<Settings, Error> {
        if !path.join(CONFIG).is_file() {
            return Err(Error::Config(format!(
                "{} holds no run: there is no {CONFIG} in it",
                path.display()
            )));
        }
        read_settings(&path.join(CONFIG))
    }

    /// The rounds of the run in `path`, in the order in which they were run.
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be read, [`Error::Foreign`] if a line is no round.
    pub fn rounds(path: &Path) -> Result<Vec<RoundRecord>, Error> {
        let mut rounds = Vec::new();
        for_each_line(&path.join(ROUNDS), |round| rounds.push(round))?;
        Ok(rounds)
    }

    /// Whether the run in `path` has ended, with as many rounds as its configuration says, so that there is nothing to go on
    /// with.
    pub fn is_complete(path: &Path) -> bool {
        let Ok(summary) = read_summary(path) else { return false };
        let config = Self::settings(path).and_then(|settings| Config::resolve(&settings));
        config.map_or(summary.complete, |config| summary.is_complete(config.rounds))
    }

    /// Removes the checkpoint of a complete run: there is one if it was killed between its summary and its end.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be removed.
    pub fn remove_checkpoint(path: &Path) -> Result<(), Error> {
        let folder = path.join(checkpoint::FOLDER);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", &folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// Takes up the run in `path` where its checkpoint left it. From here on it goes on to as many rounds as `experiment`
    /// has, whatever it was begun for.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration or the data are no longer those it began with, or the number of rounds is not
    /// one to go on to.
    pub fn resume(path: &Path, experiment: &Experiment) -> Result<Self, Error> {
        if !path.join(checkpoint::FOLDER).is_dir() {
            // Ended before its first checkpoint: nothing is lost by beginning again.
            return Self::begin(path, experiment);
        }
        let checkpoint = Checkpoint::open(path)?;
        let mut progress = checkpoint.progress()?;
        let config = &experiment.config;
        // All but the number of rounds.
        let began = as_written_now(&progress.config);
        let as_long = |rounds| Config { rounds, ..config.clone() };
        let began_as = resolved(&began);
        if let Some(began) = &began_as {
            same_program(path, began, config)?;
        }
        let changed = match &began_as {
            Some(began) => Config::differences(&as_long(began.rounds).to_toml(), &began.to_toml()),
            None => Config::differences(&config.to_toml(), &began),
        };
        if !changed.is_empty() {
            return Err(Error::Config(format!(
                "{} was begun with another configuration: {}; resume it as it was, or begin another run",
                path.display(),
                changed.join(", ")
            )));
        }
        let Some(samples) = partition::verify(&path.join(PARTITION), experiment)? else {
            return Err(Error::Config(format!(
                "the dataset `{}` is no longer dealt as {} says: its files have changed since the run began",
                experiment.config.dataset,
                path.join(PARTITION).display()
            )));
        };
        if progress.init_sha256.is_some() && progress.init_sha256 != experiment.init_sha256 {
            return Err(Error::Config(format!(
                "{} was begun with other weights than {} holds now (by their SHA-256): bring that file back, or begin \
                 another run",
                path.display(),
                config.init.as_deref().unwrap_or(Path::new("--init")).display()
            )));
        }
        let rounds = open_cut(&path.join(ROUNDS), progress.rounds_len)?;
        let devices = open_cut(&path.join(DEVICES), progress.devices_len)?;
        if let Some(began) = &began_as {
            extend::check(path, began, config)?;
        }
        // Whatever of these was written when the run is killed here, it goes on.
        progress.config = config.to_toml();
        checkpoint.note(&progress)?;
        write_atomically(&path.join(CONFIG), progress.config.as_bytes())?;
        remove(&path.join(SUMMARY))?;
        Ok(Self { path: path.to_owned(), checkpoint: Some(checkpoint), rounds, devices, progress, samples })
    }

    fn begin(path: &Path, experiment: &Experiment) -> Result<Self, Error> {
        let samples = partition::write(&path.join(PARTITION), experiment)?;
        let rounds = open_cut(&path.join(ROUNDS), 0)?;
        let devices = open_cut(&path.join(DEVICES), 0)?;
        let progress =
            Progress::at_the_beginning(experiment.config.to_toml(), experiment.init_sha256.clone());
        let checkpoint = Checkpoint::create(path, &progress)?;
        Ok(Self { path: path.to_owned(), checkpoint: Some(checkpoint), rounds, devices, progress, samples })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many samples all devices hold.
    pub fn samples(&self) -> SampleTotals {
        self.samples
    }

    /// Wall time that the run has taken up to the checkpoint.
    pub fn seconds(&self) -> f64 {
        self.progress.seconds
    }

    /// The coordinator of one algorithm's rounds, as the checkpoint has it or at its beginning.
    ///
    /// # Errors
    /// If the checkpoint does not hold what the method asks for.
    pub fn coordinator(
        &self,
        experiment: &Experiment,
        strategy: &Arc<dyn Strategy>,
        parts: &Arc<Parts>,
        plan: Plan,
    ) -> Result<Coordinator, Error> {
        let (base, done) = match self.checkpoint().restore(strategy.name(), parts)? {
            Some(state) => state,
            None => (experiment.initial_state(parts), 0),
        };
        Ok(Coordinator::new(plan, strategy.clone(), parts.clone(), base, done))
    }

    /// What is committed of the rounds of `algorithm`.
    ///
    /// # Errors
    /// If the records cannot be read back.
    pub(crate) fn history(&self, algorithm: &str) -> Result<History, Error> {
        Ok(History::read(&self.path.join(ROUNDS))?.remove(algorithm).unwrap_or_default())
    }

    /// Begins a round: what devices keep goes into it as they train, and is lost unless it is committed.
    ///
    /// # Errors
    /// If the checkpoint cannot be written.
    pub(crate) fn begin_round(&self, algorithm: &'static str) -> Result<OpenRound, Error> {
        self.checkpoint().begin_round(algorithm)
    }

    /// Makes a round durable: its records, the new base and the changed personal parameters, together or not at all.
    ///
    /// # Errors
    /// If something cannot be written; the previous checkpoint stays valid.
    pub fn commit(
        &mut self,
        open: OpenRound,
        round: &RoundRecord,
        devices: &[DeviceRecord],
        base: &Shared,
        seconds: f64,
    ) -> Result<(), Error> {
        // A round's devices before the round itself: whoever reads a running run finds each round complete.
        let devices_len = append(&mut self.devices, &self.path.join(DEVICES), devices)?;
        let rounds_len = append(&mut self.rounds, &self.path.join(ROUNDS), std::slice::from_ref(round))?;
        let progress = Progress { rounds_len, devices_len, seconds, ..self.progress.clone() };
        open.commit(&progress, round.round, base)?;
        self.progress = progress;
        Ok(())
    }

    fn checkpoint(&self) -> &Checkpoint {
        self.checkpoint.as_ref().expect("the checkpoint is there until the run is finished")
    }

    /// Writes `weights/<algorithm>/`: the base, what else lasts on the server, and what each device that has trained keeps,
    /// one at a time.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_weights(&self, algorithm: &str, state: &Shared, parts: &Parts) -> Result<(), Error> {
        let folder = self.path.join("weights").join(algorithm);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let write = |path: PathBuf, params: &Params| {
            let bytes = fedper_nn::weights::write_safetensors(params)
                .map_err(|error| Error::Foreign { path: path.clone(), reason: error.to_string() })?;
            Ok(write_atomically(&path, &bytes)?)
        };
        let (base, rest) = parts.base_and_rest(state);
        write(folder.join(BASE), &base)?;
        if let Some(rest) = rest {
            write(folder.join(SERVER), &rest)?;
        }
        self.checkpoint().each_personal(algorithm, parts, |device, kept| {
            write(device_file(&folder, device), kept.params())
        })
    }

    /// Writes `new_clients.jsonl`, replacing what an interrupted attempt may have left.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_new_clients(&self, records: &[NewClientRecord]) -> Result<(), Error> {
        Ok(write_atomically(&self.path.join(NEW_CLIENTS), &lines(records))?)
    }

    /// Writes `summary.json` of a run on so many workers, and removes the checkpoint: there is nothing left to resume.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(
        &mut self,
        experiment: &Experiment,
        workers: usize,
        seconds: f64,
    ) -> Result<Summary, Error> {
        let mut rounds: Vec<RoundRecord> = Vec::new();
        for_each_line(&self.path.join(ROUNDS), |round| rounds.push(round))?;
        let evaluated = rounds.iter().filter(|round| round.accuracy.is_some());
        // The last one of each algorithm stays.
        let last: BTreeMap<&str, u32> =
            evaluated.map(|round| (round.algorithm.as_str(), round.round)).collect();
        let mut accuracies: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
        for_each_line(&self.path.join(DEVICES), |record: DeviceRecord| {
            if last.get(record.algorithm.as_str()) == Some(&record.round) {
                accuracies.entry(record.algorithm).or_default().insert(record.device, record.accuracy);
            }
        })?;
        let mut summary = summary::summarise(experiment, workers, &rounds, accuracies, seconds);
        if experiment.config.new_clients.is_some() {
            let mut records: Vec<NewClientRecord> = Vec::new();
            for_each_line(&self.path.join(NEW_CLIENTS), |record| records.push(record))?;
            summary.new_clients = Some(new_clients::summarise(&experiment.config, &records));
        }
        let mut json = serde_json::to_vec_pretty(&summary).expect("a summary is plain data");
        json.push(b'\n');
        write_atomically(&self.path.join(SUMMARY), &json)?;
        self.checkpoint = None;
        Self::remove_checkpoint(&self.path)?;
        Ok(summary)
    }
}

/// Refuses to go on with other samples, shards, methods or another network of a program's own than a run began with.
pub(crate) fn same_program(path: &Path, began: &Config, now: &Config) -> Result<(), Error> {
    let changes = began.own.changes(&now.own);
    if changes.is_empty() {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{} was begun by another program: {}; go on with the one that began it, or begin another run",
        path.display(),
        changes.join("; ")
    )))
}

/// The configuration in the text of a `config.toml`.
fn resolved(config: &str) -> Option<Config> {
    let settings = toml::from_str::<Settings>(config).ok()?;
    Config::resolve(&settings).ok()
}

/// The text of a `config.toml` as this version writes it: an older one had fewer keys, or wrote them otherwise.
fn as_written_now(config: &str) -> String {
    resolved(config).map_or_else(|| config.to_owned(), |config| config.to_toml())
}

#[cfg(test)]
mod tests;
