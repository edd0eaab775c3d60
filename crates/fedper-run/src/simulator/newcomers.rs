//! Devices that were held out of training: once it is over, what does the federation's result give them?
//!
//! Each gets every algorithm's base, fresh personal layers drawn from the seed as any device's first ones are, and some
//! epochs on its own samples at the full learning rate; beside that FedAvg's model as it is and fine-tuned, and the
//! same epochs from scratch. All see the same batches. It is tested after each epoch, and before the first.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use fedper_core::metrics::EvalMetrics;
use fedper_core::params::{Kind, Spec};
use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::{Shared, Split};
use fedper_core::strategy::{LearnError, LocalRound};

use crate::campaign::{Federation, Observer, RunOptions};
use crate::config::{BatchNorm, NewClientLayers};
use crate::device::{Bench, LocalDevice, local_round};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::records::NewClientRecord;

/// What a new device starts from, and what of it trains.
struct Way {
    name: String,
    parts: Arc<Parts>,
    base: Arc<Shared>,
    epochs: u32,
    /// Whether the base stays as it is, statistics included.
    frozen: bool,
}

/// What the federations' results lead to. FedAvg's model comes as it is and fine-tuned, whichever of the two was run:
/// both train the same model.
fn ways(experiment: &Experiment, federations: &[Federation]) -> Vec<Way> {
    let config = &experiment.config;
    let epochs = config.new_client_epochs.unwrap_or(1);
    let personal_only = config.new_client_layers != Some(NewClientLayers::All);
    let mut ways: Vec<Way> = Vec::new();
    // An algorithm that ended before its time led to nothing that a new device could get.
    for federation in federations.iter().filter(|federation| !federation.has_failed()) {
        let parts = &federation.parts;
        let base = federation.base();
        let way = |name: &str, epochs, frozen| Way {
            name: name.to_owned(),
            parts: parts.clone(),
            base: base.clone(),
            epochs,
            frozen,
        };
        let trainable = |spec: &Spec| spec.kind == Kind::Trainable;
        match federation.name() {
            "fedavg" | "fedavg-ft" if ways.iter().any(|way| way.name == "fedavg") => {}
            "fedavg" | "fedavg-ft" => {
                ways.extend([way("fedavg", 0, true), way("fedavg-ft", epochs, false)]);
            }
            // Nothing is shared that a new device could get.
            _ if parts.split.base().is_empty() => {}
            // Nothing is personal that it could train.
            name if personal_only && !parts.split.personal().specs().iter().any(trainable) => {
                ways.push(way(name, 0, true));
            }
            name => ways.push(way(name, epochs, personal_only)),
        }
    }
    let parts = Arc::new(Parts::of(Split::all_personal(&experiment.layout)));
    let nothing = Arc::new(experiment.initial_state(&parts));
    ways.push(Way { name: "local".to_owned(), parts, base: nothing, epochs, frozen: false });
    ways
}

/// Tests of a new device, before its first epoch and after each, and why there are no further ones.
type Tests = (Vec<EvalMetrics>, Option<LearnError>);

/// Trains and tests every device that was held out, in every way, on as many threads as the run has.
///
/// # Errors
/// If a device cannot train for another reason than a diverging loss, or the run is stopped.
pub(super) fn run(
    experiment: &Experiment,
    federations: &[Federation],
    options: &RunOptions<'_>,
    dir: &Path,
    observer: &mut dyn Observer,
) -> Result<Vec<NewClientRecord>, Error> {
    let RunOptions { workers, stop, .. } = *options;
    let config = &experiment.config;
    let ways = ways(experiment, federations);
    let held = config.training_clients()..config.clients;
    let devices: Vec<DeviceId> =
        held.filter(|device| !experiment.left_out.contains(device)).map(DeviceId).collect();
    let jobs: Vec<(&Way, DeviceId)> =
        ways.iter().flat_map(|way| devices.iter().map(move |&device| (way, device))).collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Tests>>> = Mutex::new(jobs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..workers.min(jobs.len()) {
            scope.spawn(|| {
                let mut bench = None;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(way, device)) = jobs.get(at) else { return };
                    let mut tests = Vec::new();
                    let failure = adapt(experiment, &mut bench, way, device, stop, &mut tests).err();
                    done.lock().expect("no worker panics with the lock")[at] = Some((tests, failure));
                }
            });
        }
    });
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Interrupted(dir.to_owned()));
    }
    let done = done.into_inner().expect("no worker panics with the lock");
    let mut records = Vec::new();
    for ((way, device), done) in jobs.iter().zip(done) {
        let (tests, failure) = done.expect("every job was done");
        match failure {
            None => {}
            Some(error @ LearnError::Diverged(_)) => {
                observer.failure(&way.name, config.rounds, *device, &format!("as a new device: {error}"));
            }
            Some(error) => return Err(Error::Training(format!("new device {device}: {error}"))),
        }
        records.extend((0..).zip(tests).filter(|(_, test)| test.samples > 0).map(|(epoch, test)| {
            NewClientRecord {
                algorithm: way.name.clone(),
                device: device.0,
                epoch,
                samples: test.samples,
                accuracy: test.accuracy(),
                loss: test.loss(),
            }
        }));
    }
    Ok(records)
}

fn adapt(
    experiment: &Experiment,
    bench: &mut Option<Bench>,
    way: &Way,
    id: DeviceId,
    stop: &AtomicBool,
    tests: &mut Vec<EvalMetrics>,
) -> Result<(), LearnError> {
    let bench = Bench::ready(bench, experiment)?;
    let round = LocalRound {
        epochs: way.epochs,
        finetune_epochs: way.epochs,
        // What does not train keeps the statistics that were averaged.
        reset_statistics: experiment.config.batch_norm == BatchNorm::Reset && !way.frozen,
        ..local_round(&experiment.config, &way.parts, 0)
    };
    let own = experiment.initial_kept(&way.parts, id, &way.base);
    let start = round.assemble(&way.base, &own);
    let mut device = LocalDevice::new(experiment, bench, id, id.0 as usize, 0, stop);
    let frozen = |name: &str| way.frozen && way.parts.split.personal().position(name).is_none();
    device.adapt(&start, round.measures(), way.epochs, frozen, tests)
}
