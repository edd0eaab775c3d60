//! A device's network as it is used: the one that its method gives it, as it was last tested.
//!
//! Where the method only puts together what it has, that needs no data. Where it measures batch-norm statistics or trains
//! (fine-tuning), it is done again, on the same samples in the same order, so it leads to the same network.

mod finished;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use fedper_core::metrics::{EvalMetrics, TrainMetrics};
use fedper_core::params::Params;
use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::{Kept, Shared};
use fedper_core::strategy::{LearnError, Learner, Pass, Strategy};

pub use self::finished::{DeviceNetwork, device_network, image_shape};
use crate::config::Config;
use crate::device::{Bench, LocalDevice, local_round};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::RunDir;

/// What a device has been given, and what it keeps.
pub struct Given<'a> {
    /// The method.
    pub strategy: &'a dyn Strategy,
    /// What it sends and keeps.
    pub parts: &'a Parts,
    /// What the device has received.
    pub received: &'a Shared,
    /// What it keeps.
    pub kept: &'a Kept,
    /// The round that ended with it.
    pub round: u32,
}

impl Given<'_> {
    /// The network of `device` at the end of the run in `run`.
    ///
    /// # Errors
    /// [`Error::Config`] if it takes the device's samples, and they cannot be read.
    pub(crate) fn in_run(&self, run: &Path, device: u64) -> Result<Params, Error> {
        let settings = RunDir::settings(run)?;
        let config = Config::resolve(&settings)?;
        let needs = |error: &dyn std::fmt::Display| {
            let trains = self.strategy.network_trains();
            let what = if trains { "network is trained" } else { "batch-norm statistics are measured" };
            Error::Config(format!(
                "device {device}'s {what} on its own training images, and these cannot be had: {error}"
            ))
        };
        match self.put_together(&config) {
            Err(LearnError::Device(error)) if error.is::<NoSamples>() => {}
            put_together => return put_together.map_err(|error| needs(&error)),
        }
        let experiment = Experiment::prepare(&settings).map_err(|error| needs(&error))?;
        let never = AtomicBool::new(false);
        let place = (DeviceId(device), device as usize);
        self.network(&experiment, &mut None, place, &never).map_err(|error| needs(&error))
    }

    /// The network of `id`, whose share of the partition is at `place`.
    pub fn network(
        &self,
        experiment: &Experiment,
        bench: &mut Option<Bench>,
        (id, place): (DeviceId, usize),
        stop: &AtomicBool,
    ) -> Result<Params, LearnError> {
        let config = &experiment.config;
        match self.put_together(config) {
            Err(LearnError::Device(error)) if error.is::<NoSamples>() => {}
            put_together => return put_together,
        }
        // Whoever has too few samples to train takes no part, and has what can be had without.
        if experiment.left_out.contains(&(place as u64)) {
            return Ok(self.parts.join(self.received, self.kept));
        }
        let bench = Bench::ready(bench, experiment)?;
        let mut device = LocalDevice::new(experiment, bench, id, place, self.round, stop);
        self.make(config, &mut device)?;
        device.params()
    }

    /// What can be had without samples.
    fn put_together(&self, config: &Config) -> Result<Params, LearnError> {
        let mut shelf = Shelf(Params::zeros(self.parts.split.whole().clone()));
        self.make(config, &mut shelf)?;
        Ok(shelf.0)
    }

    fn make(&self, config: &Config, device: &mut dyn Learner) -> Result<(), LearnError> {
        self.strategy.network(device, &local_round(config, self.parts, self.round), self.received, self.kept)
    }
}

/// A device without samples and without an engine: its network is a set of parameters.
struct Shelf(Params);

/// The reason that such a device gives.
#[derive(Debug, thiserror::Error)]
#[error("they are needed for it")]
struct NoSamples;

impl Learner for Shelf {
    fn load(&mut self, params: &Params) -> Result<(), LearnError> {
        self.0 = params.clone();
        Ok(())
    }

    fn params(&mut self) -> Result<Params, LearnError> {
        Ok(self.0.clone())
    }

    fn train(&mut self, _pass: &Pass<'_>) -> Result<TrainMetrics, LearnError> {
        Err(LearnError::Device(Box::new(NoSamples)))
    }

    fn measure_statistics(&mut self) -> Result<(), LearnError> {
        Err(LearnError::Device(Box::new(NoSamples)))
    }

    fn test(&mut self) -> Result<EvalMetrics, LearnError> {
        Err(LearnError::Device(Box::new(NoSamples)))
    }
}
