//! Whole rounds through the simulator: training, average, evaluation, checkpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fedper_core::round::DeviceId;
use fedper_data::DataError;
use serde::Serialize;

use super::{Figures, gflops_nominal, median};
use crate::config::{Samples, Settings};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::RunDir;
use crate::rundir::records::RoundRecord;
use crate::simulator::{self, Observer, RunOptions};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `seconds` is a whole round, from the first download to the checkpoint; the images are those trained on.
    #[serde(flatten)]
    pub figures: Figures,
    /// Where they go: the medians of the parts.
    pub parts: Parts,
    /// Every round that was measured.
    pub rounds: Vec<Parts>,
    /// Training images of a round (samples x local epochs).
    pub images: u64,
    /// Devices of the federation.
    pub devices: u64,
    /// Name of the dataset.
    pub dataset: String,
}

/// The parts of a round, in seconds of wall time. Bases are added up while devices train.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Parts {
    /// Until the last device has trained; in a round with evaluation, each device's test after it included.
    pub train: f64,
    /// Until the new base is there.
    pub average: f64,
    /// Until every device is tested with it.
    pub evaluate: f64,
    /// Until the round is durable.
    pub checkpoint: f64,
}

impl Parts {
    fn seconds(&self) -> f64 {
        self.train + self.average + self.evaluate + self.checkpoint
    }
}

/// The round that is measured unless something else is asked for: PFLlib's setting, on the whole of Fashion-MNIST where
/// its files are, else on the part that is in the program.
///
/// # Errors
/// If the configuration contradicts itself or the data, or a file cannot be read.
pub fn prepare(settings: Settings, rounds: u32) -> Result<Experiment, Error> {
    let defaults = Settings {
        algorithm: Some(vec!["fedper".to_owned()]),
        clients: Some(20),
        classes_per_client: Some(2),
        test_fraction: Some(0.25),
        samples_per_client: Some(Samples::All),
        local_epochs: Some(1),
        model: Some("cnn".to_owned()),
        personal_layers: Some(1),
        batch_size: Some(10),
        drop_last: Some(true),
        lr: Some(0.005),
        momentum: Some(0.0),
        ..Settings::default()
    };
    let mut settings = settings.over(defaults);
    // One more, to warm up.
    settings.rounds = Some(rounds.saturating_add(1));
    if let Some([_, _, ..]) = settings.algorithm.as_deref() {
        return Err(Error::Config("several algorithms: a round of one is measured".into()));
    }
    if settings.dataset.is_some() {
        return Experiment::prepare(&settings);
    }
    let whole = Settings { dataset: Some("fashion-mnist".to_owned()), ..settings.clone() };
    match Experiment::prepare(&whole) {
        Err(Error::Data(DataError::NotFound { .. })) => Experiment::prepare(&settings),
        result => result,
    }
}

/// Runs the experiment in a temporary folder; its first round does not count.
///
/// # Errors
/// As [`simulator::run`].
pub fn measure(experiment: &Experiment, workers: usize) -> Result<Report, Error> {
    let folder = TemporaryFolder::new()?;
    let mut dir = RunDir::create(&folder.0.join("run"), experiment)?;
    let mut clock = Clock::new();
    let stop = AtomicBool::new(false);
    let personal_memory = simulator::PERSONAL_MEMORY;
    let options = RunOptions { workers, personal_memory, stop: &stop };
    let summary = simulator::run(experiment, &mut dir, &options, &mut clock)?;
    if let Some(reason) = summary.failure() {
        return Err(Error::Training(reason));
    }
    let rounds = clock.rounds.split_off(1);
    let part = |of: fn(&Parts) -> f64| median(rounds.iter().map(of).collect());
    let seconds = part(Parts::seconds);
    let rate = clock.images as f64 / seconds;
    Ok(Report {
        figures: Figures {
            images_per_second: Some(rate),
            gflops_nominal: Some(gflops_nominal(&experiment.architecture, rate)),
            seconds,
            workers,
            peak_rss_bytes: crate::rundir::peak_rss_bytes(),
        },
        parts: Parts {
            train: part(|parts| parts.train),
            average: part(|parts| parts.average),
            evaluate: part(|parts| parts.evaluate),
            checkpoint: part(|parts| parts.checkpoint),
        },
        rounds,
        images: clock.images,
        devices: experiment.config.clients,
        dataset: experiment.config.dataset.clone(),
    })
}

/// Takes the time of what the simulator tells.
struct Clock {
    begun: Instant,
    trained: Instant,
    /// When the first device was about to be evaluated.
    averaged: Option<Instant>,
    rounds: Vec<Parts>,
    /// Of the last round.
    images: u64,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self { begun: now, trained: now, averaged: None, rounds: Vec::new(), images: 0 }
    }
}

impl Observer for Clock {
    fn begin(&mut self, _: u64, _: u64) {
        self.begun = Instant::now();
    }

    fn trained(&mut self, _: &str, _: u32, _: u64) {
        self.trained = Instant::now();
    }

    fn evaluating(&mut self, _: &str, _: u32, _: DeviceId) {
        self.averaged.get_or_insert_with(Instant::now);
    }

    fn round(&mut self, record: &RoundRecord) {
        let durable = Instant::now();
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        let train = seconds(self.begun, self.trained);
        // A round without evaluation ends with the average.
        let average = self.averaged.map_or(record.seconds - train, |at| seconds(self.trained, at)).max(0.0);
        let evaluate = (record.seconds - train - average).max(0.0);
        let checkpoint = seconds(self.begun, durable) - train - average - evaluate;
        self.rounds.push(Parts { train, average, evaluate, checkpoint });
        self.images = record.samples_trained;
        (self.begun, self.averaged) = (Instant::now(), None);
    }
}

/// A folder that is removed in the end.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn new() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("fedper-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(Error::file("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // It lies among the system's temporary files.
        let _ = fs::remove_dir_all(Path::new(&self.0));
    }
}
