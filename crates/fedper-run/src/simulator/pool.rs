//! Worker threads: each trains or evaluates one device at a time, on a network of its own.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::Scope;

use fedper_core::round::DeviceId;
use fedper_core::strategy::LearnError;

use crate::device::{Job, Work, attempt};
use crate::experiment::Experiment;

/// What came of a job.
pub(super) struct Done {
    pub(super) device: DeviceId,
    pub(super) round: u32,
    pub(super) result: Result<Work, LearnError>,
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
                    let result = attempt(experiment, &mut bench, job, stop);
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
