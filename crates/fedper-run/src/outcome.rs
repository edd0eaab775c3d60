//! What a run has led to, for the program that ran it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fedper_core::params::Params;
use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::{Kept, Shared};
use fedper_core::strategy::Strategy;
use fedper_records::files::for_each_line;
use fedper_records::names::DEVICES;
use fedper_records::{DeviceRecord, RoundRecord, Summary, read_summary};
use tempfile::TempDir;

use crate::config::Config;
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::{RunDir, read_kept, read_state, same_program};
use crate::settled::Given;
use crate::simulator::{self, Observer, RunOptions};

/// A run that has ended. What devices keep is read from its directory when it is asked for, so a run of many devices takes
/// little memory.
pub struct Run {
    experiment: Experiment,
    summary: Summary,
    rounds: Vec<RoundRecord>,
    /// By method and device: the last test.
    tests: BTreeMap<String, BTreeMap<u64, DeviceRecord>>,
    methods: Vec<Led>,
    directory: PathBuf,
    /// If the directory is a temporary one: it goes with this.
    folder: Option<TempDir>,
}

/// What one method's rounds have led to.
struct Led {
    strategy: Arc<dyn Strategy>,
    parts: Parts,
    state: Arc<Shared>,
    base: Params,
    rest: Option<Params>,
    /// The last round in which devices were tested.
    round: u32,
}

/// One device's results: see [`Run::device`].
#[derive(Clone, Copy)]
pub struct Device<'a> {
    run: &'a Run,
    number: u64,
}

impl Device<'_> {
    /// The fraction of its test samples that it classified right when it was last tested, by the run's first method; `None` if
    /// it was not tested, or has nothing to be tested on.
    pub fn accuracy(&self) -> Option<f64> {
        Some(self.by(self.run.methods.first()?.strategy.name())?.accuracy)
    }

    /// Its last test by `method`.
    pub fn by(&self, method: &str) -> Option<&DeviceRecord> {
        self.run.tests.get(method)?.get(&self.number)
    }
}

impl Run {
    /// Runs `experiment` in `path`: begins it, goes on with it, or finds it done.
    pub(crate) fn to_the_end(
        experiment: Experiment,
        path: &Path,
        options: &RunOptions<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        if let Some(mut dir) = open(&experiment, path)? {
            simulator::run(&experiment, &mut dir, options, observer)?;
        }
        let run = Self::read(experiment, path)?;
        match run.summary.failure() {
            Some(reasons) => Err(Error::Training(format!("no method came through: {reasons}"))),
            None => Ok(run),
        }
    }

    fn read(experiment: Experiment, path: &Path) -> Result<Self, Error> {
        let rounds = RunDir::rounds(path)?;
        let mut methods = Vec::new();
        for strategy in experiment.methods() {
            let name = strategy.name();
            let parts = experiment.parts(&*strategy);
            let state = Arc::new(read_state(&path.join("weights").join(name), &parts)?);
            let (base, rest) = parts.base_and_rest(&state);
            let tested = rounds.iter().filter(|round| round.algorithm == name && round.accuracy.is_some());
            let round = tested.map(|round| round.round).max().unwrap_or(0);
            methods.push(Led { strategy, parts, state, base, rest, round });
        }
        let mut tests: BTreeMap<String, BTreeMap<u64, DeviceRecord>> = BTreeMap::new();
        for_each_line(&path.join(DEVICES), |record: DeviceRecord| {
            let last = methods.iter().find(|led| led.strategy.name() == record.algorithm);
            if last.is_some_and(|led| led.round == record.round) {
                tests.entry(record.algorithm.clone()).or_default().insert(record.device, record);
            }
        })?;
        let (summary, directory) = (read_summary(path)?, path.to_owned());
        Ok(Self { experiment, summary, rounds, tests, methods, directory, folder: None })
    }

    /// The same, which keeps its temporary folder until it is gone itself.
    pub(crate) fn with(self, folder: TempDir) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// The experiment that was run.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The run directory; `None` if it is a temporary one.
    pub fn directory(&self) -> Option<&Path> {
        self.folder.is_none().then_some(&self.directory)
    }

    /// Where every method ended.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Every round of every method, in the order in which they were run.
    pub fn rounds(&self) -> &[RoundRecord] {
        &self.rounds
    }

    /// The rounds of one method.
    pub fn rounds_of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a RoundRecord> {
        self.rounds.iter().filter(move |round| round.algorithm == method)
    }

    /// The mean over devices of their last accuracy by `method`.
    pub fn accuracy(&self, method: &str) -> Option<f64> {
        self.summary.algorithms.get(method)?.last
    }

    /// What is known of a device.
    pub fn device(&self, device: u64) -> Device<'_> {
        Device { run: self, number: device }
    }

    /// The base that the rounds of `method` have led to.
    ///
    /// # Errors
    /// [`Error::Config`] if the run has no such method.
    pub fn base(&self, method: &str) -> Result<&Params, Error> {
        Ok(&self.led(method)?.base)
    }

    /// What else `method` remembers on the server, if it does: parameters under their slots' prefixes.
    ///
    /// # Errors
    /// [`Error::Config`] if the run has no such method.
    pub fn server(&self, method: &str) -> Result<Option<&Params>, Error> {
        Ok(self.led(method)?.rest.as_ref())
    }

    /// What `device` keeps by `method`: its personal layers under bare names, other slots under their prefixes. Of a device that
    /// has never trained it is what it would begin with.
    ///
    /// # Errors
    /// [`Error::Config`] if the run has no such method or device; if its file cannot be read.
    pub fn personal(&self, method: &str, device: u64) -> Result<Params, Error> {
        Ok(self.kept(self.led(method)?, device)?.params().clone())
    }

    /// The network that `method` gives `device`, as it was last tested: what is the device's own, with what it has received.
    ///
    /// # Errors
    /// As [`Run::personal`]; if making it takes training, and that fails.
    pub fn network(&self, method: &str, device: u64) -> Result<Params, Error> {
        let led = self.led(method)?;
        let (kept, received) = (self.kept(led, device)?, led.parts.downloaded(&led.state));
        let given = Given {
            strategy: &*led.strategy,
            parts: &led.parts,
            received: &received,
            kept: &kept,
            round: led.round,
        };
        let place = (DeviceId(device), device as usize);
        given
            .network(&self.experiment, &mut None, place, &AtomicBool::new(false))
            .map_err(|error| Error::Training(format!("device {device}: {error}")))
    }

    fn led(&self, method: &str) -> Result<&Led, Error> {
        self.methods.iter().find(|led| led.strategy.name() == method).ok_or_else(|| {
            let names: Vec<&str> = self.methods.iter().map(|led| led.strategy.name()).collect();
            Error::Config(format!("there is no method `{method}` in the run: it has {}", names.join(", ")))
        })
    }

    fn kept(&self, led: &Led, device: u64) -> Result<Kept, Error> {
        let clients = self.experiment.config.clients;
        if device >= clients {
            return Err(Error::Config(format!(
                "there is no device {device}: the run has {clients}, from 0 to {}",
                clients - 1
            )));
        }
        let folder = self.directory.join("weights").join(led.strategy.name());
        match read_kept(&folder, &led.parts, DeviceId(device))? {
            Some(kept) => Ok(kept),
            None => {
                let received = led.parts.downloaded(&led.state);
                Ok(self.experiment.initial_kept(&led.parts, DeviceId(device), &received))
            }
        }
    }
}

/// The run directory to go on in; `None` if the same experiment has come to its end there.
fn open(experiment: &Experiment, path: &Path) -> Result<Option<RunDir>, Error> {
    if !path.join(fedper_records::names::CONFIG).is_file() {
        return Ok(Some(RunDir::create(path, experiment)?));
    }
    if !RunDir::is_complete(path) {
        return Ok(Some(RunDir::resume(path, experiment)?));
    }
    let stored = Config::resolve(&RunDir::settings(path)?)?;
    same_program(path, &stored, &experiment.config)?;
    let longer = stored.rounds != experiment.config.rounds;
    let as_long = Config { rounds: stored.rounds, ..experiment.config.clone() };
    let changed = Config::differences(&as_long.to_toml(), &stored.to_toml());
    if !changed.is_empty() {
        return Err(Error::Config(format!(
            "{} holds another run: {}; choose another directory",
            path.display(),
            changed.join(", ")
        )));
    }
    if !longer {
        RunDir::remove_checkpoint(path)?;
        return Ok(None);
    }
    RunDir::reopen(path, experiment)?;
    match RunDir::resume(path, experiment) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) => {
            // It stays as it was: complete.
            if RunDir::is_complete(path) {
                RunDir::remove_checkpoint(path)?;
            }
            Err(error)
        }
    }
}
