//! A device's network as it is used: under the statistics that it was tested with.
//!
//! With `batch_norm = "recalibrate"` the statistics in a run's weights are the average's. A device's own are measured on its
//! training samples, under the final base, as they were before its last test; so they are made here from the data that
//! `config.toml` names.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use fedper_core::params::{Kind, Params};
use fedper_core::round::DeviceId;
use fedper_core::split::{BaseParams, PersonalParams, Split};
use fedper_core::strategy::{self, LearnError, Learner};

use crate::config::{BatchNorm, Config};
use crate::device::{Bench, LocalDevice, local_round};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::RunDir;

/// `params`, the network that `algorithm` has given `device` by the end of the run in `run`, with the statistics that the
/// device was tested with.
///
/// # Errors
/// [`Error::Config`] if the data that they are measured on cannot be read.
pub(crate) fn settled(run: &Path, algorithm: &str, device: u64, params: Params) -> Result<Params, Error> {
    let settings = RunDir::settings(run)?;
    let config = Config::resolve(&settings)?;
    let statistics = params.layout().specs().iter().any(|spec| spec.kind == Kind::Buffer);
    let Some(strategy) = strategy::by_name(algorithm) else { return Ok(params) };
    if config.batch_norm != BatchNorm::Recalibrate || !statistics {
        return Ok(params);
    }
    let needs = |error: &dyn std::fmt::Display| {
        Error::Config(format!(
            "device {device}'s batch-norm statistics are measured on its own training images, and these cannot be had: {error}"
        ))
    };
    let experiment = Experiment::prepare(&settings).map_err(|error| needs(&error))?;
    let split = experiment.split(strategy);
    let mut whole = Params::zeros(experiment.layout.clone());
    for (spec, values) in params.iter() {
        whole.set(&spec.name, &spec.shape, values).map_err(|error| needs(&error))?;
    }
    let (base, personal) = split.cut(&whole);
    let (id, place) = (DeviceId(device), device as usize);
    let never = AtomicBool::new(false);
    network_of(&experiment, &mut None, &split, (&base, &personal), (id, place), &never)
        .map_err(|error| needs(&error))
}

/// The network of `id`, whose share of the partition is at `place`, for its own use: `base` under its personal layers, and
/// statistics measured afresh where the configuration wants that. What fine-tuning would add is not in it.
pub(crate) fn network_of(
    experiment: &Experiment,
    bench: &mut Option<Bench>,
    split: &Split,
    (base, personal): (&BaseParams, &PersonalParams),
    (id, place): (DeviceId, usize),
    stop: &AtomicBool,
) -> Result<Params, LearnError> {
    let round = local_round(&experiment.config, split);
    let joined = split.join(base, personal);
    if !round.measures() || experiment.left_out.contains(&(place as u64)) {
        return Ok(joined);
    }
    let bench = Bench::ready(bench, experiment)?;
    let mut device = LocalDevice::new(experiment, bench, id, place, 0, stop);
    device.load(&joined)?;
    round.settle(&mut device)?;
    device.params()
}
