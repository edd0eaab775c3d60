//! The rounds of a run, wherever its devices are: one loop for the simulator and the network.
//!
//! A [`Campaign`] interleaves the algorithms, begins each round, makes it durable, and ends an algorithm whose accuracy has
//! stopped rising or whose round came to nothing. How the devices of one round are reached is left to [`Hosts`].

mod federation;
mod observer;
mod personal;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use fedper_core::coordinator::{Outcome, Plan};

pub use self::federation::Federation;
pub use self::observer::Observer;
use crate::cores;
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::records::Summary;
use crate::rundir::{OpenRound, RunDir, record_of_end, records_of};

/// How to run, as opposed to what: none of this changes a result.
pub struct RunOptions<'a> {
    /// Worker threads. Where the devices are elsewhere, they average and nothing else.
    pub workers: usize,
    /// Memory for what devices keep between rounds, in bytes; beyond it they are in the run directory's checkpoint. Where the
    /// devices are elsewhere, nothing of it is here.
    pub personal_memory: u64,
    /// Set from outside to end the run at its last checkpoint.
    pub stop: &'a AtomicBool,
}

/// [`RunOptions::personal_memory`] unless said otherwise: 256 MiB.
pub const PERSONAL_MEMORY: u64 = 256 << 20;

/// Where the devices of a run are.
pub trait Hosts {
    /// Why they cannot be reached, beside what can go wrong in every run.
    type Error: From<Error>;

    /// Has the devices of a federation's next round train and be tested, until its coordinator says that the round is done.
    /// What they keep goes into `open`, where that is here.
    ///
    /// # Errors
    /// If the run cannot go on, or is to end. The federation is then in the middle of a round; the checkpoint is not.
    fn round(
        &mut self,
        federation: &mut Federation,
        open: &mut OpenRound,
        observer: &mut dyn Observer,
    ) -> Result<Round, Self::Error>;

    /// What a run says that is stopped from outside: how to go on.
    fn interrupted(&self) -> Self::Error;
}

/// What a round came to.
pub struct Round {
    /// What the coordinator says.
    pub outcome: Outcome,
    /// Why it is the algorithm's last one: it came to nothing, for a reason of the algorithm's own.
    pub ended: Option<String>,
    /// Over a network: bytes of the messages to devices that train, and of their answers.
    pub wire: Option<(u64, u64)>,
    /// Wall time.
    pub seconds: f64,
}

/// A run between its first round and its last.
pub struct Campaign<'a> {
    experiment: &'a Experiment,
    options: &'a RunOptions<'a>,
    /// One for each algorithm, in order.
    pub federations: Vec<Federation>,
    /// Seconds that the run took before it was interrupted.
    before: f64,
    start: Instant,
}

impl<'a> Campaign<'a> {
    /// As the run directory's checkpoint has it, or at its beginning.
    ///
    /// # Errors
    /// If the checkpoint or the records cannot be read.
    pub fn restore(
        experiment: &'a Experiment,
        plan: &Plan,
        dir: &RunDir,
        options: &'a RunOptions<'a>,
    ) -> Result<Self, Error> {
        let strategies = experiment.methods();
        let keeping = strategies.iter().filter(|s| !experiment.parts(&***s).kept.is_empty()).count();
        let memory = options.personal_memory / keeping.max(1) as u64;
        let cores = cores::lend(options.workers);
        let federations = strategies
            .into_iter()
            .map(|strategy| Federation::restore(experiment, strategy, plan.clone(), dir, memory, cores));
        let federations = federations.collect::<Result<_, _>>()?;
        Ok(Self { experiment, options, federations, before: dir.seconds(), start: Instant::now() })
    }

    /// Wall time of the run, over all its parts.
    fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }

    /// Runs all rounds that are left. They are interleaved: round 1 of every algorithm, then round 2, so that a comparison
    /// grows as it runs.
    ///
    /// # Errors
    /// If a round cannot be run or made durable, or the run is stopped. The run directory then holds the checkpoint of the
    /// round before.
    pub fn rounds<H: Hosts>(
        &mut self,
        hosts: &mut H,
        dir: &mut RunDir,
        observer: &mut dyn Observer,
    ) -> Result<(), H::Error> {
        let all: u64 = self.federations.iter().map(Federation::trainings).sum();
        let done: u64 = self.federations.iter().map(Federation::trainings_done).sum();
        observer.begin(all, done);
        for round in 1..=self.experiment.config.rounds {
            for at in 0..self.federations.len() {
                let federation = &self.federations[at];
                if federation.rounds_done() >= round || federation.is_over() {
                    continue;
                }
                if self.options.stop.load(Ordering::Relaxed) {
                    return Err(hosts.interrupted());
                }
                self.round(at, hosts, dir, observer)?;
            }
        }
        Ok(())
    }

    /// Runs the next round of one algorithm and makes it durable.
    fn round<H: Hosts>(
        &mut self,
        at: usize,
        hosts: &mut H,
        dir: &mut RunDir,
        observer: &mut dyn Observer,
    ) -> Result<(), H::Error> {
        let federation = &mut self.federations[at];
        let (name, base) = (federation.name(), federation.base().clone());
        let mut open = dir.begin_round(name)?;
        let Round { outcome, ended, wire, seconds } = hosts.round(federation, &mut open, observer)?;
        let (mut record, devices) = match ended {
            Some(reason) => {
                // Nothing of the round counts but that it was the last.
                drop(open);
                open = dir.begin_round(name)?;
                federation.end(outcome.round, base);
                (record_of_end(name, &outcome, seconds, reason), Vec::new())
            }
            None => records_of(name, &outcome, seconds),
        };
        (record.wire_down, record.wire_up) = wire.unzip();
        if let Some(accuracy) = record.accuracy {
            federation.observe(record.round, accuracy.mean);
        }
        let seconds = self.before + self.start.elapsed().as_secs_f64();
        dir.commit(open, &record, &devices, federation.base(), seconds)?;
        if let Some(reason) = &record.ended {
            observer.ended(name, reason, federation.trainings_spared());
            return Ok(());
        }
        if !devices.is_empty() {
            observer.evaluated(name, record.round, &devices);
        }
        observer.base(name, record.round, federation.base().params());
        observer.round(&record);
        if let Some(last) = federation.stopped().filter(|&last| last < self.experiment.config.rounds) {
            observer.plateau(name, last, federation.trainings_spared());
        }
        Ok(())
    }

    /// Writes what every algorithm has led to.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_weights(&self, dir: &RunDir) -> Result<(), Error> {
        self.federations.iter().try_for_each(|federation| {
            dir.write_weights(federation.name(), federation.base(), &federation.parts)
        })
    }

    /// Writes the summary; there is nothing to go on with after it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn finish(self, dir: &mut RunDir) -> Result<Summary, Error> {
        dir.finish(self.experiment, self.options.workers, self.seconds())
    }
}

#[cfg(test)]
mod tests;
