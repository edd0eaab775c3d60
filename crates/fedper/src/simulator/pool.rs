//! Worker threads: each trains or evaluates one device at a time, on a network of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use fedper_core::coordinator::Event;
use fedper_core::metrics::EvalMetrics;
use fedper_core::round::{DeviceId, Download, Upload};
use fedper_core::split::{PersonalParams, Split};
use fedper_core::strategy::{LearnError, Learner, LocalRound, Strategy};

use super::device::{Bench, SimulatedDevice, drops_out};
use crate::config::BatchNorm;
use crate::experiment::Experiment;

/// Work for one device.
pub(super) struct Job {
    pub(super) strategy: &'static dyn Strategy,
    pub(super) split: Arc<Split>,
    pub(super) device: DeviceId,
    pub(super) message: Download,
    /// The device's own parameters; drawn from the seed if it has none yet.
    pub(super) personal: Option<Arc<PersonalParams>>,
    pub(super) task: Task,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Train,
    Evaluate,
}

/// What came of a job.
pub(super) struct Done {
    pub(super) device: DeviceId,
    pub(super) round: u32,
    pub(super) result: Result<Work, LearnError>,
}

pub(super) enum Work {
    /// What the device sends, and what it keeps.
    Trained(Upload, PersonalParams),
    Evaluated(EvalMetrics),
}

impl Work {
    /// What the coordinator is told, and what stays on the device.
    pub(super) fn into_event(self, device: DeviceId, round: u32) -> (Event, Option<PersonalParams>) {
        match self {
            Self::Trained(upload, personal) => (Event::Trained(upload), Some(personal)),
            Self::Evaluated(metrics) => (Event::Evaluated { device, round, metrics }, None),
        }
    }
}

/// The two ends of the workers' queue. Dropping it ends the workers.
pub(super) struct Pool {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    workers: usize,
}

impl Pool {
    /// Starts `workers` threads in `scope`.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        experiment: &'scope Experiment,
        workers: usize,
        stop: &'scope AtomicBool,
    ) -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (results, done) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..workers {
            let (queue, results) = (queue.clone(), results.clone());
            scope.spawn(move || {
                let mut bench = None;
                loop {
                    // The guard is dropped before the work begins.
                    let next = queue.lock().map(|queue| queue.recv());
                    let Ok(Ok(job)) = next else { return };
                    let (device, round) = (job.device, job.message.round);
                    // A panic is a bug; it ends the run with its message instead of leaving the others waiting.
                    let result = catch_unwind(AssertUnwindSafe(|| work(experiment, &mut bench, job, stop)))
                        .unwrap_or_else(|panic| {
                            bench = None;
                            Err(LearnError::Device(panic_message(&*panic).into()))
                        });
                    if results.send(Done { device, round, result }).is_err() {
                        return;
                    }
                }
            });
        }
        Self { jobs, done, workers }
    }

    /// How many jobs keep every worker busy: one that it works on, and one that waits for it.
    pub(super) fn room(&self) -> usize {
        2 * self.workers
    }

    pub(super) fn submit(&self, job: Job) {
        self.jobs.send(job).expect("workers live as long as the pool");
    }

    pub(super) fn next(&self) -> Done {
        self.done.recv().expect("workers live as long as the pool")
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("a worker panicked: {}", text.unwrap_or("no message"))
}

fn work(
    experiment: &Experiment,
    bench: &mut Option<Bench>,
    job: Job,
    stop: &AtomicBool,
) -> Result<Work, LearnError> {
    let Job { strategy, split, device: id, message, personal, task } = job;
    let bench = match bench {
        Some(bench) => bench,
        None => bench.insert(Bench::new(experiment).map_err(|error| LearnError::Device(Box::new(error)))?),
    };
    let config = &experiment.config;
    let round = LocalRound {
        split: &split,
        epochs: config.local_epochs,
        finetune_epochs: config.finetune_epochs,
        reset_statistics: config.batch_norm == BatchNorm::Reset,
    };
    if task == Task::Train && drops_out(config, id, message.round) {
        return Err(LearnError::Dropped);
    }
    let shard = experiment.partition.shard(id.0 as usize);
    let samples = shard.train.len() as u64;
    let mut device = SimulatedDevice { experiment, bench, id, round: message.round, shard, stop };
    let own = personal.unwrap_or_else(|| Arc::new(experiment.initial_personal(&split, id)));
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
                base: trained.base,
            };
            Ok(Work::Trained(upload, trained.personal))
        }
        Task::Evaluate => Ok(Work::Evaluated(strategy.evaluate(&mut device, &round, &message.base, &own)?)),
    }
}
