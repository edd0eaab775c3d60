//! The whole local step: forward, loss, backward, SGD, on a fixed batch in memory.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fedper_core::params::{Layout, Params, Spec};
use fedper_core::seed::{Purpose, SERVER, derive, fill_normal, named};
use fedper_nn::{Architecture, Batch, InstructionSet, Network, NnError, Precision, Sgd};
use serde::Serialize;

use super::{Figures, gflops_nominal, median};

/// A measurement takes at least so many steps of each worker, however short it is meant to be.
const MIN_STEPS: usize = 3;

/// What is trained, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network.
    pub architecture: Architecture,
    /// What its convolutions compute in.
    pub precision: Precision,
    /// Samples a step.
    pub batch_size: usize,
    /// The optimizer.
    pub sgd: Sgd,
    /// Threads, each with a network of its own.
    pub workers: usize,
    /// Steps of each worker before the measurement.
    pub warmup: usize,
    /// Length of the measurement.
    pub duration: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `images_per_second` is the sum over workers of batch size / median step time, `seconds` the step time that gives
    /// this rate.
    #[serde(flatten)]
    pub figures: Figures,
    /// What convolutions computed in, `fp32` or `bf16`.
    pub precision: String,
    /// The instruction set that was used.
    pub kernels: String,
    /// Median seconds of a step, for each worker.
    pub step_seconds: Vec<f64>,
    /// Steps measured, for each worker.
    pub steps: Vec<usize>,
}

/// One worker's network and batch.
struct Trainer {
    network: Network,
    images: Vec<f32>,
    labels: Vec<u32>,
    sgd: Sgd,
}

impl Trainer {
    fn new(options: &Options, worker: u64) -> Result<Self, NnError> {
        let Options { architecture, precision, batch_size, sgd, .. } = options;
        let mut network = Network::with_precision(architecture, *batch_size, *precision)?;
        network.load(&initial(architecture))?;
        let mut images = vec![0.0; batch_size * architecture.input.numel()];
        fill_normal(&mut derive(1, Purpose::Dataset, worker, 0), 1.0, &mut images);
        let classes = architecture.classes;
        let labels = (0..*batch_size).map(|sample| (sample % classes) as u32).collect();
        Ok(Self { network, images, labels, sgd: *sgd })
    }

    /// One step; returns the loss before it.
    fn step(&mut self) -> Result<f64, NnError> {
        let batch = Batch { images: &self.images, labels: &self.labels };
        let metrics = self.network.train_step(batch, &self.sgd)?;
        Ok(metrics.loss_sum / metrics.samples as f64)
    }
}

/// Initial parameters, the same for everything that is measured.
pub(crate) fn initial(architecture: &Architecture) -> Params {
    architecture.init(|name| named(1, Purpose::Init, SERVER, 0, name))
}

/// Times training steps. Every worker is busy from before the first step that counts until after the last.
///
/// # Errors
/// If the network cannot be trained with this batch size.
///
/// # Panics
/// If there is no worker.
pub fn measure(options: &Options) -> Result<Report, NnError> {
    let mut trainers: Vec<Trainer> =
        (0..options.workers as u64).map(|worker| Trainer::new(options, worker)).collect::<Result<_, _>>()?;
    for trainer in &mut trainers {
        trainer.step()?;
    }
    let together = Together {
        start: Barrier::new(options.workers),
        duration: options.duration,
        warm: AtomicUsize::new(0),
        workers: options.workers,
    };
    let steps: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = trainers
            .iter_mut()
            .map(|trainer| scope.spawn(|| together.run(trainer, options.warmup)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a step that worked works again")).collect()
    });
    // The first worker that stops ends what counts: the others were still busy then.
    let end = steps.iter().filter_map(|steps| steps.last()).map(|step| step.1).min();
    let counted: Vec<Vec<f64>> = steps
        .iter()
        .map(|steps| {
            let inside = steps.iter().filter(|step| Some(step.1) <= end);
            inside.map(|(start, end)| (*end - *start).as_secs_f64()).collect()
        })
        .collect();
    let steps = counted.iter().map(Vec::len).collect();
    let step_seconds: Vec<f64> = counted.into_iter().map(median).collect();
    let rate: f64 = step_seconds.iter().map(|seconds| options.batch_size as f64 / seconds).sum();
    let figures = Figures {
        images_per_second: Some(rate),
        gflops_nominal: Some(gflops_nominal(&options.architecture, rate)),
        seconds: (options.batch_size * options.workers) as f64 / rate,
        workers: options.workers,
        peak_rss_bytes: crate::rundir::peak_rss_bytes(),
    };
    let kernels = InstructionSet::current().used_in(options.precision).to_string();
    Ok(Report { figures, precision: options.precision.to_string(), kernels, step_seconds, steps })
}

/// What keeps workers busy at the same time.
struct Together {
    start: Barrier,
    duration: Duration,
    /// How many workers have made [`MIN_STEPS`] steps.
    warm: AtomicUsize,
    workers: usize,
}

impl Together {
    /// Start and end of every step from when all workers were ready until the time is over and none needs more steps.
    fn run(&self, trainer: &mut Trainer, warmup: usize) -> Vec<(Instant, Instant)> {
        let mut step = || {
            let start = Instant::now();
            trainer.step().expect("a step that worked works again");
            (start, Instant::now())
        };
        for _ in 0..warmup {
            step();
        }
        self.start.wait();
        let deadline = Instant::now() + self.duration;
        let mut steps = Vec::new();
        while Instant::now() < deadline || self.warm.load(Ordering::SeqCst) < self.workers {
            steps.push(step());
            if steps.len() == MIN_STEPS {
                self.warm.fetch_add(1, Ordering::SeqCst);
            }
        }
        steps
    }
}

/// How many losses [`check`] writes.
const CHECKED_STEPS: usize = 3;

/// What another program needs to compute the same steps: the initial parameters under their published names,
/// `batch.images` `[batch, height, width, channels]`, `batch.labels` `[batch]` (whole numbers), and in `losses` the mean
/// loss of the batch before each of the first three steps.
///
/// # Errors
/// If the network cannot be trained with this batch size.
///
/// # Panics
/// If a parameter of the network has one of these names.
pub fn check(options: &Options) -> Result<Params, NnError> {
    let mut trainer = Trainer::new(options, 0)?;
    let losses: Vec<f64> = (0..CHECKED_STEPS).map(|_| trainer.step()).collect::<Result<_, _>>()?;
    let init = initial(&options.architecture);
    let input = options.architecture.input;
    let mut specs = init.layout().specs().to_vec();
    specs.push(Spec::trainable(
        "batch.images",
        [options.batch_size, input.height, input.width, input.channels],
    ));
    specs.push(Spec::trainable("batch.labels", [options.batch_size]));
    specs.push(Spec::trainable("losses", [CHECKED_STEPS]));
    let mut values = init.values().to_vec();
    values.extend(&trainer.images);
    values.extend(trainer.labels.iter().map(|&label| label as f32));
    values.extend(losses.iter().map(|&loss| loss as f32));
    let layout = Layout::new(specs).expect("no network has parameters of these names");
    Ok(Params::from_values(layout, values).expect("one value for each place"))
}
