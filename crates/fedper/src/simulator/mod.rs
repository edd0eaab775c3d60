//! A federation on one machine: the coordinator of `fedper-core`, driven by worker threads.

mod federation;
mod newcomers;
mod personal;
mod pool;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fedper_core::round::DeviceId;

use self::federation::Federation;
use self::pool::Pool;
use crate::cores;
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::RunDir;
use crate::rundir::records::{RoundRecord, Summary};

/// What a run tells as it goes on. All methods do nothing unless overridden.
pub trait Observer {
    /// The run begins: in all it will train a device `trainings` times, of which `done` times before it was interrupted.
    fn begin(&mut self, trainings: u64, done: u64) {
        let _ = (trainings, done);
    }

    /// A device of `algorithm` has trained on `samples` samples, or failed (0 samples).
    fn trained(&mut self, algorithm: &str, round: u32, samples: u64) {
        let _ = (algorithm, round, samples);
    }

    /// The round's average is there, and a device is about to be tested with it.
    fn evaluating(&mut self, algorithm: &str, round: u32, device: DeviceId) {
        let _ = (algorithm, round, device);
    }

    /// A device's training came to nothing.
    fn failure(&mut self, algorithm: &str, round: u32, device: DeviceId, reason: &str) {
        let _ = (algorithm, round, device, reason);
    }

    /// The accuracy of `algorithm` has stopped rising, so `round` was its last; the run trains a device `fewer` times less.
    fn plateau(&mut self, algorithm: &str, round: u32, fewer: u64) {
        let _ = (algorithm, round, fewer);
    }

    /// A round of `algorithm` came to nothing, so it was its last; the run trains a device `fewer` times less.
    fn ended(&mut self, algorithm: &str, reason: &str, fewer: u64) {
        let _ = (algorithm, reason, fewer);
    }

    /// All rounds are over, and `count` devices that were held out of them are about to train.
    fn new_devices(&mut self, count: u64) {
        let _ = count;
    }

    /// A round is over and durable.
    fn round(&mut self, record: &RoundRecord) {
        let _ = record;
    }
}

/// How to run, as opposed to what: none of this changes a result.
pub struct RunOptions<'a> {
    /// Worker threads.
    pub workers: usize,
    /// Memory for what devices keep between rounds, in bytes; beyond it they are in the run directory's checkpoint.
    pub personal_memory: u64,
    /// Set from outside to end the run at its last checkpoint.
    pub stop: &'a AtomicBool,
}

/// [`RunOptions::personal_memory`] unless said otherwise: 256 MiB.
pub const PERSONAL_MEMORY: u64 = 256 << 20;

/// Runs `experiment` to its end, or on from where `dir` left off, and writes the run directory.
///
/// Rounds are interleaved: round 1 of every algorithm, then round 2, so that a comparison grows as it runs.
///
/// An algorithm whose devices all diverge ends there, with the reason in its records and the summary; the others go on.
///
/// # Errors
/// If a file cannot be read or written, or [`RunOptions::stop`] is set. The run directory then holds the checkpoint of the
/// last round.
pub fn run(
    experiment: &Experiment,
    dir: &mut RunDir,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let strategies = experiment.config.methods();
    let keeping = strategies.iter().filter(|s| !experiment.parts(&***s).kept.is_empty()).count();
    let memory = options.personal_memory / keeping.max(1) as u64;
    let cores = cores::lend(options.workers);
    let federations = strategies.into_iter().map(|s| Federation::restore(experiment, s, dir, memory, cores));
    let mut federations: Vec<Federation> = federations.collect::<Result<_, _>>()?;
    let all: u64 = federations.iter().map(Federation::trainings).sum();
    let done: u64 = federations.iter().map(Federation::trainings_done).sum();
    observer.begin(all, done);
    let before = dir.seconds();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, experiment, options.workers, options.stop);
        for round in 1..=experiment.config.rounds {
            for federation in &mut federations {
                let over = federation.stopped().is_some() || federation.has_failed();
                if federation.rounds_done() >= round || over {
                    continue;
                }
                if options.stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted(dir.path().to_owned()));
                }
                let mut open = dir.begin_round(federation.name())?;
                let (record, devices) = federation.round(&pool, dir, &mut open, observer, options.stop)?;
                if federation.has_failed() {
                    // Nothing of the round counts but that it was the last.
                    drop(open);
                    open = dir.begin_round(federation.name())?;
                }
                let seconds = before + start.elapsed().as_secs_f64();
                dir.commit(open, &record, &devices, federation.base(), seconds)?;
                if let Some(reason) = &record.ended {
                    observer.ended(federation.name(), reason, federation.trainings_spared());
                    continue;
                }
                observer.round(&record);
                if let Some(last) = federation.stopped().filter(|&last| last < experiment.config.rounds) {
                    observer.plateau(federation.name(), last, federation.trainings_spared());
                }
            }
        }
        Ok(())
    })?;
    for federation in &federations {
        dir.write_weights(federation.name(), federation.base(), federation.parts())?;
    }
    if let Some(held) = experiment.config.new_clients {
        observer.new_devices(held);
        // An algorithm that ended before its time led to nothing that a new device could get.
        federations.retain(|federation| !federation.has_failed());
        let records = newcomers::run(experiment, &federations, options, dir.path(), observer)?;
        dir.write_new_clients(&records)?;
    }
    dir.finish(experiment, options.workers, before + start.elapsed().as_secs_f64())
}
