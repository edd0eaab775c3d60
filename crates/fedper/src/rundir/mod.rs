//! The run directory: everything about a run under one folder (see `docs/run-directory.md` for the list of its files).
//!
//! What is committed stays: a round's lines in the `.jsonl` files and its weights become valid together, by one
//! transaction of the checkpoint that also records how long the files then are. Whatever a crash leaves behind that is
//! cut off when the run goes on.

mod checkpoint;
mod files;
mod new_clients;
mod outcome;
mod partition;
pub mod records;
mod summary;
mod weights;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fedper_core::coordinator::{Coordinator, Plan};
use fedper_core::params::Params;
use fedper_core::split::{BaseParams, Split};
use fedper_core::strategy::Strategy;
use serde::Serialize;

pub(crate) use self::checkpoint::OpenRound;
use self::checkpoint::{Checkpoint, Progress};
pub(crate) use self::files::replace;
pub use self::files::write_atomically;
pub(crate) use self::outcome::records_of;
pub use self::partition::SampleTotals;
use self::records::{DeviceRecord, NewClientRecord, RoundRecord, Summary};
pub(crate) use self::summary::peak_rss_bytes;
pub use self::weights::device_network;
use crate::config::{Config, Settings, read_settings};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::simulator::RunOptions;

const CONFIG: &str = "config.toml";
const PARTITION: &str = "partition.json";
const ROUNDS: &str = "rounds.jsonl";
const DEVICES: &str = "devices.jsonl";
const NEW_CLIENTS: &str = "new_clients.jsonl";
const SUMMARY: &str = "summary.json";

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
        let unwritten = files::temporary(&path.join(CONFIG));
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
        let path = path.join(ROUNDS);
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let read: Result<_, serde_json::Error> = text.lines().map(serde_json::from_str).collect();
        read.map_err(|error| Error::Foreign { path, reason: error.to_string() })
    }

    /// Whether the run in `path` has ended, so that there is nothing to go on with.
    pub fn is_complete(path: &Path) -> bool {
        read_summary(path).is_ok_and(|summary| summary.complete)
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

    /// Takes up the run in `path` where its checkpoint left it.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration or the data are no longer those it began with.
    pub fn resume(path: &Path, experiment: &Experiment) -> Result<Self, Error> {
        if !path.join(checkpoint::FOLDER).is_dir() {
            // Ended before its first checkpoint: nothing is lost by beginning again.
            return Self::begin(path, experiment);
        }
        let checkpoint = Checkpoint::open(path)?;
        let progress = checkpoint.progress()?;
        let changed = Config::differences(&experiment.config.to_toml(), &as_written_now(&progress.config));
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
        let rounds = open_cut(&path.join(ROUNDS), progress.rounds_len)?;
        let devices = open_cut(&path.join(DEVICES), progress.devices_len)?;
        Ok(Self { path: path.to_owned(), checkpoint: Some(checkpoint), rounds, devices, progress, samples })
    }

    fn begin(path: &Path, experiment: &Experiment) -> Result<Self, Error> {
        let samples = partition::write(&path.join(PARTITION), experiment)?;
        let rounds = open_cut(&path.join(ROUNDS), 0)?;
        let devices = open_cut(&path.join(DEVICES), 0)?;
        let progress = Progress::at_the_beginning(experiment.config.to_toml());
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
    pub(crate) fn seconds(&self) -> f64 {
        self.progress.seconds
    }

    /// The coordinator of one algorithm's rounds, as the checkpoint has it or at its beginning.
    ///
    /// # Errors
    /// If the checkpoint does not hold what the split asks for.
    pub(crate) fn coordinator(
        &self,
        experiment: &Experiment,
        strategy: &'static dyn Strategy,
        split: &Split,
        plan: Plan,
    ) -> Result<Coordinator, Error> {
        let (base, done) = match self.checkpoint().restore(strategy.name(), split)? {
            Some(state) => state,
            None => (experiment.initial_base(split), 0),
        };
        Ok(Coordinator::new(plan, strategy, base, done))
    }

    /// The mean accuracy of every evaluated round of `algorithm` that is committed, in order.
    ///
    /// # Errors
    /// If the records cannot be read back.
    pub(crate) fn accuracies(&self, algorithm: &str) -> Result<Vec<(u32, f64)>, Error> {
        let mut accuracies = Vec::new();
        files::for_each_line(&self.path.join(ROUNDS), |record: RoundRecord| {
            if let Some(accuracy) = record.accuracy.filter(|_| record.algorithm == algorithm) {
                accuracies.push((record.round, accuracy.mean));
            }
        })?;
        Ok(accuracies)
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
    pub(crate) fn commit(
        &mut self,
        open: OpenRound,
        round: &RoundRecord,
        devices: &[DeviceRecord],
        base: &BaseParams,
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

    /// Writes `weights/<algorithm>/`: the base, and the personal layers of each device that has trained, one at a time.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write_weights(
        &self,
        algorithm: &str,
        base: &BaseParams,
        split: &Split,
    ) -> Result<(), Error> {
        let folder = self.path.join("weights").join(algorithm);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        let write = |name: String, params: &Params| {
            let path = folder.join(name);
            let bytes = fedper_nn::weights::write_safetensors(params)
                .map_err(|error| Error::Foreign { path: path.clone(), reason: error.to_string() })?;
            write_atomically(&path, &bytes)
        };
        write("base.safetensors".into(), base.params())?;
        self.checkpoint().each_personal(algorithm, split, |device, personal| {
            write(format!("device-{:05}.safetensors", device.0), personal.params())
        })
    }

    /// Writes `new_clients.jsonl`, replacing what an interrupted attempt may have left.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_new_clients(&self, records: &[NewClientRecord]) -> Result<(), Error> {
        write_atomically(&self.path.join(NEW_CLIENTS), &lines(records))
    }

    /// Writes `summary.json` and removes the checkpoint: there is nothing left to resume.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn finish(
        &mut self,
        experiment: &Experiment,
        options: &RunOptions<'_>,
        seconds: f64,
    ) -> Result<Summary, Error> {
        let mut rounds: Vec<RoundRecord> = Vec::new();
        files::for_each_line(&self.path.join(ROUNDS), |round| rounds.push(round))?;
        let evaluated = rounds.iter().filter(|round| round.accuracy.is_some());
        // The last one of each algorithm stays.
        let last: BTreeMap<&str, u32> =
            evaluated.map(|round| (round.algorithm.as_str(), round.round)).collect();
        let mut accuracies: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
        files::for_each_line(&self.path.join(DEVICES), |record: DeviceRecord| {
            if last.get(record.algorithm.as_str()) == Some(&record.round) {
                accuracies.entry(record.algorithm).or_default().insert(record.device, record.accuracy);
            }
        })?;
        let mut summary = summary::summarise(experiment, options, &rounds, accuracies, seconds);
        if experiment.config.new_clients.is_some() {
            let mut records: Vec<NewClientRecord> = Vec::new();
            files::for_each_line(&self.path.join(NEW_CLIENTS), |record| records.push(record))?;
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

/// Reads `summary.json` of the run in `path`.
///
/// # Errors
/// If there is none, or it is not a summary.
pub fn read_summary(path: &Path) -> Result<Summary, Error> {
    let path = path.join(SUMMARY);
    let bytes = fs::read(&path).map_err(Error::file("read", &path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Foreign { path, reason: error.to_string() })
}

/// The text of a `config.toml` as this version writes it: an older one had fewer keys, or wrote them otherwise.
fn as_written_now(config: &str) -> String {
    let settings = toml::from_str::<Settings>(config).ok();
    let config_now = settings.and_then(|settings| Config::resolve(&settings).ok());
    config_now.map_or_else(|| config.to_owned(), |config| config.to_toml())
}

/// Opens a file to append to, cut to the length that is committed.
fn open_cut(path: &Path, len: u64) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::file("open", path))?;
    let found = file.metadata().map_err(Error::file("read", path))?.len();
    if found < len {
        return Err(Error::Foreign {
            path: path.to_owned(),
            reason: format!("{found} bytes, but the checkpoint has seen {len}: the file was cut or replaced"),
        });
    }
    file.set_len(len).map_err(Error::file("write", path))?;
    file.seek(SeekFrom::End(0)).map_err(Error::file("write", path))?;
    Ok(file)
}

/// Records as JSON lines.
fn lines<T: Serialize>(records: &[T]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record).expect("records are plain data");
        lines.push(b'\n');
    }
    lines
}

/// Appends records as JSON lines and returns the file's new length, once it is on the disk.
fn append<T: Serialize>(file: &mut File, path: &Path, records: &[T]) -> Result<u64, Error> {
    file.write_all(&lines(records))
        .and_then(|()| file.sync_data())
        .and_then(|()| file.stream_position())
        .map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests;
