//! A simulated device: a worker's network, lent to one device of the partition for one round.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use fedper_core::metrics::{EvalMetrics, TrainMetrics};
use fedper_core::params::Params;
use fedper_core::round::DeviceId;
use fedper_core::seed::{self, Purpose, Random};
use fedper_core::strategy::{LearnError, Learner};
use fedper_data::{Batcher, DataError, Shard};
use fedper_nn::{Batch, Network, NnError, Sgd};

use crate::config::{Augment, Config};
use crate::experiment::Experiment;

/// Evaluation batches are at least this large, however small training batches are ...
const EVAL_BATCH: usize = 128;
/// ... but of so many values at most: 128 images of 3x64x64. A batch of photographs would take gigabytes.
const EVAL_VALUES: usize = EVAL_BATCH * 3 * 64 * 64;

/// What a worker thread keeps from device to device: one network, one batch.
pub(super) struct Bench {
    network: Network,
    batcher: Batcher,
    eval_batcher: Batcher,
    pixels: Vec<f32>,
    labels: Vec<u32>,
}

impl Bench {
    pub(super) fn new(experiment: &Experiment) -> Result<Self, NnError> {
        let config = &experiment.config;
        let sample_len = experiment.dataset.images.sample_len();
        let largest = config.batch_size.max(EVAL_BATCH.min(EVAL_VALUES / sample_len).max(1));
        Ok(Self {
            network: Network::new(&experiment.architecture, largest)?,
            batcher: Batcher::new(config.batch_size, config.drop_last),
            eval_batcher: Batcher::new(largest, false),
            pixels: vec![0.0; largest * sample_len],
            labels: vec![0; largest],
        })
    }
}

/// Device `id` in `round`, on a worker's bench.
pub(super) struct SimulatedDevice<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) bench: &'a mut Bench,
    pub(super) id: DeviceId,
    pub(super) round: u32,
    pub(super) shard: Cow<'a, Shard>,
    pub(super) stop: &'a AtomicBool,
}

/// The reason a device gives when the run was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Stopped;

/// Whether device `id` is out for `round`, drawn with the configured failure rate.
pub(super) fn drops_out(config: &Config, id: DeviceId, round: u32) -> bool {
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

impl SimulatedDevice<'_> {
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
            let batch = Batch { images, labels: &labels[..count] };
            let step = match config.clip_norm {
                Some(norm) => network.train_step_clipped(batch, &sgd, norm),
                None => network.train_step(batch, &sgd),
            };
            let step = step.map_err(failed)?;
            if !step.loss_sum.is_finite() {
                return Err(LearnError::Diverged(format!("the loss became {}", step.loss_sum)));
            }
            metrics.merge(TrainMetrics { loss_sum: step.loss_sum, samples: step.samples });
        }
        Ok(())
    }

    /// Trains a device that was not there before, from `start`, all but what `frozen` names, at the full learning rate;
    /// tests it before the first epoch and after each.
    pub(super) fn adapt(
        &mut self,
        start: &Params,
        epochs: u32,
        frozen: impl Fn(&str) -> bool,
        tests: &mut Vec<EvalMetrics>,
    ) -> Result<(), LearnError> {
        let config = &self.experiment.config;
        // Whatever it trains and starts from, it sees the same batches.
        let order = seed::named(config.seed, Purpose::FineTune, self.id.0, 0, "new device");
        let mut draws = Draws::new(config, order, self.id, 0, "new device");
        self.load(start)?;
        self.bench.network.reset_momentum();
        self.bench.network.freeze(frozen);
        tests.push(self.test()?);
        for _ in 0..epochs {
            self.epoch(config.lr, &mut draws, &mut TrainMetrics::default())?;
            tests.push(self.test()?);
        }
        Ok(())
    }
}

fn unreadable(error: DataError) -> LearnError {
    LearnError::Device(Box::new(error))
}

impl Learner for SimulatedDevice<'_> {
    fn load(&mut self, params: &Params) -> Result<(), LearnError> {
        Ok(self.bench.network.load(params)?)
    }

    fn params(&mut self) -> Result<Params, LearnError> {
        let mut params = Params::zeros(self.experiment.layout.clone());
        self.bench.network.store(&mut params)?;
        Ok(params)
    }

    fn train(&mut self, epochs: u32, purpose: Purpose) -> Result<TrainMetrics, LearnError> {
        let config = &self.experiment.config;
        let round = u64::from(self.round);
        let order = seed::derive(config.seed, purpose, self.id.0, round);
        // Fine-tuning sees other crops than the round's training.
        let crops = if purpose == Purpose::Shuffle { "train" } else { "finetune" };
        let mut draws = Draws::new(config, order, self.id, round, crops);
        let mut metrics = TrainMetrics::default();
        self.bench.network.reset_momentum();
        for _ in 0..epochs {
            self.epoch(config.schedule().rate_in(self.round), &mut draws, &mut metrics)?;
        }
        Ok(metrics)
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
            let step = network.evaluate(Batch { images, labels: &labels[..count] }).map_err(failed)?;
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
