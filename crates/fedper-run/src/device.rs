//! What a device does when it is asked: a worker's network, lent to one device of the partition for one round.
//!
//! The same for a simulated device and for one on a network.

mod job;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fedper_core::metrics::{EvalMetrics, TrainMetrics};
use fedper_core::params::Params;
use fedper_core::parts::Parts;
use fedper_core::round::{DeviceId, Upload};
use fedper_core::seed::{self, Purpose, Random};
use fedper_core::strategy::{LearnError, Learner, LocalRound, Pass};
use fedper_data::{Batcher, DataError, Shard};
use fedper_nn::{Batch, Network, NnError, Sgd};

pub use self::job::{Job, Task, Work};
use crate::config::{Augment, BatchNorm, Config};
use crate::cost::MEASURED;
use crate::experiment::Experiment;

/// Evaluation batches are at least this large, however small training batches are ...
const EVAL_BATCH: usize = 128;
/// ... but of so many values at most: 128 images of 3x64x64. A batch of photographs would take gigabytes.
const EVAL_VALUES: usize = EVAL_BATCH * 3 * 64 * 64;

/// What a worker thread keeps from device to device: one network, one batch.
pub struct Bench {
    network: Network,
    batcher: Batcher,
    eval_batcher: Batcher,
    measure_batcher: Batcher,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Bench {
    fn new(experiment: &Experiment) -> Result<Self, NnError> {
        let config = &experiment.config;
        let sample_len = experiment.dataset.images.sample_len();
        let fewest = experiment.architecture.min_train_batch();
        let batcher = Batcher::new(config.batch_size, config.drop_last).joining(fewest);
        let eval_batch = config.batch_size.max(EVAL_BATCH.min(EVAL_VALUES / sample_len).max(1));
        let eval_batcher = Batcher::new(eval_batch, false);
        let measure_batcher = eval_batcher.clone().joining(fewest);
        let largest = batcher.largest().max(measure_batcher.largest());
        Ok(Self {
            network: Network::with_precision(&experiment.architecture, largest, config.precision)?,
            batcher,
            eval_batcher,
            measure_batcher,
            pixels: vec![0.0; largest * sample_len],
            labels: vec![0; largest],
        })
    }

    /// The worker's bench, made the first time.
    pub fn ready<'a>(
        place: &'a mut Option<Self>,
        experiment: &Experiment,
    ) -> Result<&'a mut Self, LearnError> {
        match place {
            Some(bench) => Ok(bench),
            None => Ok(place.insert(Self::new(experiment).map_err(failed)?)),
        }
    }
}

/// Device `id` in `round`, on a worker's bench.
pub(crate) struct LocalDevice<'a> {
    experiment: &'a Experiment,
    bench: &'a mut Bench,
    id: DeviceId,
    round: u32,
    shard: Cow<'a, Shard>,
    /// Its own number for each of the dataset's classes, if it has such.
    order: Option<Vec<u32>>,
    stop: &'a AtomicBool,
}

/// The reason a device gives when the run was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

/// The reason a device gives when its training panicked, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Panicked(pub String);

/// Whether device `id` is out for `round`, drawn with the configured failure rate.
pub fn drops_out(config: &Config, id: DeviceId, round: u32) -> bool {
    let mut rng = seed::derive(config.seed, Purpose::Failure, id.0, round.into());
    config.failure_rate > 0.0 && seed::uniform(&mut rng) < config.failure_rate
}

fn failed(error: NnError) -> LearnError {
    LearnError::Device(Box::new(error))
}

/// What a device's training draws at random, as far as it is to draw it.
struct Draws {
    order: Option<Random>,
    augment: Option<Random>,
}

impl Draws {
    fn new(config: &Config, order: Random, id: DeviceId, round: u64, crops: &str) -> Self {
        let augment = || seed::named(config.seed, Purpose::Augment, id.0, round, crops);
        Self {
            order: config.shuffle.then_some(order),
            augment: (config.augment == Augment::CropFlip).then(augment),
        }
    }
}

impl<'a> LocalDevice<'a> {
    /// Device `id`, whose samples are the share of the partition at `place`.
    pub(crate) fn new(
        experiment: &'a Experiment,
        bench: &'a mut Bench,
        id: DeviceId,
        place: usize,
        round: u32,
        stop: &'a AtomicBool,
    ) -> Self {
        let shard = experiment.partition.shard(place);
        let order = experiment.own_order(id);
        Self { experiment, bench, id, round, shard, order, stop }
    }

    /// One epoch of SGD at the learning rate `rate`, velocities going on from where they are.
    fn epoch(&mut self, rate: f64, draws: &mut Draws, metrics: &mut TrainMetrics) -> Result<(), LearnError> {
        let Experiment { config, dataset, .. } = self.experiment;
        let sgd = Sgd {
            lr: rate as f32,
            momentum: config.momentum as f32,
            weight_decay: config.weight_decay as f32,
        };
        let Bench { network, batcher, pixels, labels, .. } = &mut *self.bench;
        batcher.start(&self.shard.train, draws.order.as_mut());
        while let Some(count) =
            batcher.fill(&dataset.images, draws.augment.as_mut(), pixels, labels).map_err(unreadable)?
        {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LearnError::Device(Box::new(Stopped)));
            }
            let images = &pixels[..count * dataset.images.sample_len()];
            let batch = Batch { images, labels: reordered(&mut labels[..count], self.order.as_deref()) };
            let step = match config.clip_norm {
                Some(norm) => network.train_step_clipped(batch, &sgd, norm),
                None => network.train_step(batch, &sgd),
            };
            let step = step.map_err(failed)?;
            if !step.loss_sum.is_finite() {
                return Err(LearnError::Diverged(format!("the loss became {}", step.loss_sum)));
            }
            metrics.merge(TrainMetrics { loss_sum: step.loss_sum, samples: step.samples, steps: 1 });
        }
        Ok(())
    }

    /// Trains a device that was not there before, from `start`, all but what `frozen` names, at the full learning rate;
    /// tests it before the first epoch and after each. With `measure`, it measures its batch-norm statistics first.
    pub(crate) fn adapt(
        &mut self,
        start: &Params,
        measure: bool,
        epochs: u32,
        frozen: impl Fn(&str) -> bool,
        tests: &mut Vec<EvalMetrics>,
    ) -> Result<(), LearnError> {
        let config = &self.experiment.config;
        // Whatever it trains and starts from, it sees the same batches.
        let order = seed::named(config.seed, Purpose::FineTune, self.id.0, 0, "new device");
        let mut draws = Draws::new(config, order, self.id, 0, "new device");
        self.load(start)?;
        if measure {
            self.bench.network.freeze(|_| false);
            self.measure_statistics()?;
        }
        self.bench.network.reset_momentum();
        self.bench.network.untilt();
        self.bench.network.freeze(frozen);
        tests.push(self.test()?);
        for _ in 0..epochs {
            self.epoch(config.lr, &mut draws, &mut TrainMetrics::default())?;
            tests.push(self.test()?);
        }
        Ok(())
    }
}

/// The labels as a device names them; `order` is its number for each class.
fn reordered<'a>(labels: &'a mut [u32], order: Option<&[u32]>) -> &'a [u32] {
    if let Some(order) = order {
        labels.iter_mut().for_each(|label| *label = order[*label as usize]);
    }
    labels
}

fn unreadable(error: DataError) -> LearnError {
    LearnError::Device(Box::new(error))
}

impl Learner for LocalDevice<'_> {
    fn load(&mut self, params: &Params) -> Result<(), LearnError> {
        Ok(self.bench.network.load(params)?)
    }

    fn params(&mut self) -> Result<Params, LearnError> {
        let mut params = Params::zeros(self.experiment.layout.clone());
        self.bench.network.store(&mut params)?;
        Ok(params)
    }

    fn train(&mut self, pass: &Pass<'_>) -> Result<TrainMetrics, LearnError> {
        let config = &self.experiment.config;
        let round = u64::from(self.round);
        let order = match pass.stream {
            "" => seed::derive(config.seed, pass.purpose, self.id.0, round),
            name => seed::named(config.seed, pass.purpose, self.id.0, round, name),
        };
        // Other passes than the round's own see other crops.
        let crops = match (pass.purpose, pass.stream) {
            (Purpose::Shuffle, "") => "train",
            (Purpose::FineTune, "") => "finetune",
            (_, name) => name,
        };
        let mut draws = Draws::new(config, order, self.id, round, crops);
        let mut metrics = TrainMetrics::default();
        let network = &mut self.bench.network;
        network.reset_momentum();
        match pass.tilt {
            Some(tilt) => network.tilt(tilt.pull as f32, tilt.toward, tilt.add).map_err(failed)?,
            None => network.untilt(),
        }
        network.freeze(|name| pass.only.is_some_and(|only| only.position(name).is_none()));
        for _ in 0..pass.epochs {
            self.epoch(config.schedule().rate_in(self.round), &mut draws, &mut metrics)?;
        }
        let network = &mut self.bench.network;
        network.freeze(|_| false);
        network.untilt();
        Ok(metrics)
    }

    /// On up to `MEASURED` of its training samples, the same in each round, without crops and flips.
    fn measure_statistics(&mut self) -> Result<(), LearnError> {
        let images = &self.experiment.dataset.images;
        let Bench { network, measure_batcher, pixels, labels, .. } = &mut *self.bench;
        let all = &self.shard.train;
        let mut rng = seed::derive(self.experiment.config.seed, Purpose::Statistics, self.id.0, 0);
        let count = all.len().min(MEASURED);
        let places = seed::sample(&mut rng, all.len() as u64, count as u64);
        let samples: Vec<u32> = places.into_iter().map(|place| all[place as usize]).collect();
        measure_batcher.start(&samples, None);
        let mut seen = 0;
        while let Some(count) = measure_batcher.fill(images, None, pixels, labels).map_err(unreadable)? {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LearnError::Device(Box::new(Stopped)));
            }
            let batch = &pixels[..count * images.sample_len()];
            network.measure_statistics(batch, count, seen).map_err(failed)?;
            seen += count;
        }
        Ok(())
    }

    fn test(&mut self) -> Result<EvalMetrics, LearnError> {
        let dataset = &self.experiment.dataset;
        let Bench { network, eval_batcher, pixels, labels, .. } = &mut *self.bench;
        let mut metrics = EvalMetrics::default();
        eval_batcher.start(&self.shard.test, None);
        while let Some(count) =
            eval_batcher.fill(&dataset.images, None, pixels, labels).map_err(unreadable)?
        {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LearnError::Device(Box::new(Stopped)));
            }
            let images = &pixels[..count * dataset.images.sample_len()];
            let batch = Batch { images, labels: reordered(&mut labels[..count], self.order.as_deref()) };
            let step = network.evaluate(batch).map_err(failed)?;
            metrics.merge(EvalMetrics {
                correct: step.correct,
                loss_sum: step.loss_sum,
                samples: step.samples,
            });
        }
        if !metrics.loss_sum.is_finite() {
            return Err(LearnError::Diverged(format!("the test loss is {}", metrics.loss_sum)));
        }
        Ok(metrics)
    }
}

/// Has a device train or be tested, on a worker's `bench`, which is made if there is none yet.
///
/// A panic is a bug; it becomes an error with its message instead of leaving others waiting.
pub fn attempt(
    experiment: &Experiment,
    bench: &mut Option<Bench>,
    job: Job,
    stop: &AtomicBool,
) -> Result<Work, LearnError> {
    catch_unwind(AssertUnwindSafe(|| work(experiment, bench, job, stop))).unwrap_or_else(|panic| {
        *bench = None;
        Err(LearnError::Device(Box::new(Panicked(panic_message(&*panic)))))
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("a worker panicked: {}", text.unwrap_or("no message"))
}

/// What `round` asks of a device.
pub(crate) fn local_round<'a>(config: &Config, parts: &'a Parts, round: u32) -> LocalRound<'a> {
    LocalRound {
        parts,
        round,
        rate: config.schedule().rate_in(round),
        epochs: config.local_epochs,
        finetune_epochs: config.finetune_epochs,
        reset_statistics: config.batch_norm == BatchNorm::Reset,
        measure_statistics: config.batch_norm == BatchNorm::Recalibrate,
    }
}

fn work(
    experiment: &Experiment,
    bench: &mut Option<Bench>,
    job: Job,
    stop: &AtomicBool,
) -> Result<Work, LearnError> {
    let Job { strategy, parts, device: id, place, message, personal, task } = job;
    let bench = Bench::ready(bench, experiment)?;
    let config = &experiment.config;
    let round = local_round(config, &parts, message.round);
    if task == Task::Train && drops_out(config, id, message.round) {
        return Err(LearnError::Dropped);
    }
    let mut device = LocalDevice::new(experiment, bench, id, place, message.round, stop);
    let samples = device.shard.train.len() as u64;
    let own = personal.unwrap_or_else(|| Arc::new(experiment.initial_kept(&parts, id, &message.base)));
    match task {
        Task::Train => {
            let trained = strategy.train(&mut device, &round, &message.base, &own)?;
            let test = if message.test_locally { Some(device.test()?) } else { None };
            let upload = Upload {
                device: id,
                round: message.round,
                samples,
                train: trained.metrics,
                test,
                base: trained.sent,
            };
            Ok(Work::Trained(upload, trained.kept))
        }
        Task::Evaluate => {
            strategy.network(&mut device, &round, &message.base, &own)?;
            Ok(Work::Evaluated(device.test()?))
        }
    }
}
