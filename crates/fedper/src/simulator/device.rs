//! A simulated device: a worker's network, lent to one device of the partition for one round.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use fedper_core::metrics::{EvalMetrics, TrainMetrics};
use fedper_core::params::Params;
use fedper_core::round::DeviceId;
use fedper_core::seed::{self, Purpose};
use fedper_core::strategy::{LearnError, Learner};
use fedper_data::{Batcher, DataError, Shard};
use fedper_nn::{Batch, Network, NnError, Sgd};

use crate::config::Config;
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
        let Experiment { config, dataset, .. } = self.experiment;
        let round = u64::from(self.round);
        let mut order = config.shuffle.then(|| seed::derive(config.seed, purpose, self.id.0, round));
        // Fine-tuning sees other crops than the round's training.
        let crops = if purpose == Purpose::Shuffle { "train" } else { "finetune" };
        let mut augment =
            config.augment.then(|| seed::named(config.seed, Purpose::Augment, self.id.0, round, crops));
        let sgd = Sgd {
            lr: config.lr as f32,
            momentum: config.momentum as f32,
            weight_decay: config.weight_decay as f32,
        };
        let Bench { network, batcher, pixels, labels, .. } = &mut *self.bench;
        let mut metrics = TrainMetrics::default();
        network.reset_momentum();
        for _ in 0..epochs {
            batcher.start(&self.shard.train, order.as_mut());
            while let Some(count) =
                batcher.fill(&dataset.images, augment.as_mut(), pixels, labels).map_err(unreadable)?
            {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(LearnError::Device(Box::new(Stopped)));
                }
                let images = &pixels[..count * dataset.images.sample_len()];
                let step =
                    network.train_step(Batch { images, labels: &labels[..count] }, &sgd).map_err(failed)?;
                if !step.loss_sum.is_finite() {
                    return Err(LearnError::Diverged(format!("the loss became {}", step.loss_sum)));
                }
                metrics.merge(TrainMetrics { loss_sum: step.loss_sum, samples: step.samples });
            }
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
