//! One algorithm's federation: its coordinator, and what its devices keep between rounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fedper_core::coordinator::{Action, Coordinator, Event, Outcome, Plan};
use fedper_core::cores::Cores;
use fedper_core::parts::Parts;
use fedper_core::plateau::Plateau;
use fedper_core::round::{DeviceId, Download};
use fedper_core::split::BaseParams;
use fedper_core::strategy::{LearnError, Strategy};

use super::Observer;
use super::personal::PersonalStore;
use super::pool::{Done, Pool};
use crate::device::{Job, Panicked, Task};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::records::{DeviceRecord, RoundRecord};
use crate::rundir::{History, OpenRound, RunDir, record_of_end, records_of};

/// A federation between two rounds.
pub(super) struct Federation {
    strategy: Arc<dyn Strategy>,
    parts: Arc<Parts>,
    plan: Plan,
    coordinator: Coordinator,
    /// What each device keeps; a device that never trained has nothing here, because it follows from the seed.
    personal: PersonalStore,
    /// What ends it before its last round.
    plateau: Option<Plateau>,
    /// The round that came to nothing, so that there is no further one.
    ended: Option<u32>,
    /// The base before that round.
    last_base: Option<Arc<BaseParams>>,
}

impl Federation {
    /// As the run directory's checkpoint has it, or at its beginning. Holds what devices keep in `memory` bytes, and
    /// averages on `cores`.
    pub(super) fn restore(
        experiment: &Experiment,
        strategy: Arc<dyn Strategy>,
        dir: &RunDir,
        memory: u64,
        cores: Cores,
    ) -> Result<Self, Error> {
        let plan = experiment.plan();
        let parts = Arc::new(experiment.parts(&*strategy));
        let coordinator = dir.coordinator(experiment, &strategy, &parts, plan.clone())?.on(cores);
        let personal = PersonalStore::new(parts.clone(), memory);
        let mut plateau = experiment.config.plateau();
        let history =
            if coordinator.round() > 0 { dir.history(strategy.name())? } else { History::default() };
        if let Some(plateau) = &mut plateau {
            // Where a run went on to more rounds, its last one before was evaluated out of turn.
            let in_turn = history.accuracies.iter().filter(|&&(round, _)| plan.evaluates(round));
            in_turn.for_each(|&(round, accuracy)| plateau.observe(round, accuracy));
        }
        let ended = history.ended.map(|(round, _)| round);
        Ok(Self { strategy, parts, plan, coordinator, personal, plateau, ended, last_base: None })
    }

    pub(super) fn name(&self) -> &'static str {
        self.strategy.name()
    }

    pub(super) fn base(&self) -> &Arc<BaseParams> {
        self.last_base.as_ref().unwrap_or_else(|| self.coordinator.base())
    }

    pub(super) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    pub(super) fn rounds_done(&self) -> u32 {
        self.coordinator.round()
    }

    /// The round after which its accuracy counted as flat: there is no further one.
    pub(super) fn stopped(&self) -> Option<u32> {
        self.plateau.as_ref().and_then(Plateau::stopped)
    }

    /// Whether it ended because a round came to nothing.
    pub(super) fn has_failed(&self) -> bool {
        self.ended.is_some()
    }

    /// How many times devices train in the whole run, as far as is known.
    pub(super) fn trainings(&self) -> u64 {
        let rounds = self.stopped().or(self.ended).unwrap_or(self.plan.rounds);
        u64::from(rounds) * self.plan.participants_per_round()
    }

    /// How many trainings an early end has spared.
    pub(super) fn trainings_spared(&self) -> u64 {
        u64::from(self.plan.rounds) * self.plan.participants_per_round() - self.trainings()
    }

    pub(super) fn trainings_done(&self) -> u64 {
        u64::from(self.rounds_done()) * self.plan.participants_per_round()
    }

    /// Runs the next round, and puts what devices keep into `open`. On an error this federation is in the middle of a
    /// round; the checkpoint is not.
    ///
    /// A round that comes to nothing, for a reason of this algorithm's own, is its last one, and its record says so. What is
    /// in `open` is then void.
    pub(super) fn round(
        &mut self,
        pool: &Pool,
        dir: &RunDir,
        open: &mut OpenRound,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<(RoundRecord, Vec<DeviceRecord>), Error> {
        let start = Instant::now();
        let mut waiting = 0usize;
        let mut diverged = None;
        let before = self.coordinator.base().clone();
        // A simulated round has no deadline, so the coordinator's clock stands still.
        let mut actions = VecDeque::from(self.coordinator.step(Duration::ZERO, Event::Begin));
        loop {
            // Not all at once: what a device keeps is in memory from here until it has answered.
            while waiting < pool.room()
                && let Some(action) = actions.pop_front()
            {
                match action {
                    Action::Train(device, message) => {
                        pool.submit(self.job(device, message, Task::Train, open)?);
                        waiting += 1;
                    }
                    Action::Evaluate(device, message) => {
                        observer.evaluating(self.name(), message.round, device);
                        pool.submit(self.job(device, message, Task::Evaluate, open)?);
                        waiting += 1;
                    }
                    Action::RoundDone(outcome) => {
                        if outcome.answered == 0
                            && let Some(reason) = diverged
                        {
                            let reason = format!("no device came through round {}: {reason}", outcome.round);
                            let seconds = start.elapsed().as_secs_f64();
                            (self.ended, self.last_base) = (Some(outcome.round), Some(before));
                            return Ok((record_of_end(self.name(), &outcome, seconds, reason), Vec::new()));
                        }
                        let records = records_of(self.name(), &outcome, start.elapsed().as_secs_f64());
                        if let (Some(plateau), Some(accuracy)) = (&mut self.plateau, records.0.accuracy) {
                            plateau.observe(outcome.round, accuracy.mean);
                        }
                        return Ok(records);
                    }
                    Action::TooFew { .. } | Action::TooFewTests { .. } => {
                        unreachable!("a simulated round may be answered by nobody")
                    }
                    Action::Finished => unreachable!("a round is begun only if there is one"),
                }
            }
            assert!(waiting > 0, "the coordinator waits for devices that nobody asked");
            let Done { device, round, result } = pool.next();
            waiting -= 1;
            let event = match result {
                Ok(work) => {
                    let (event, personal) = work.into_event(device, round);
                    if let Event::Trained(upload) = &event {
                        observer.trained(self.name(), round, upload.train.samples);
                    }
                    if let Some(personal) = personal {
                        self.personal.put(device, personal, open)?;
                    }
                    event
                }
                Err(error) => {
                    if stop.load(Ordering::Relaxed) {
                        while waiting > 0 {
                            pool.next();
                            waiting -= 1;
                        }
                        return Err(Error::Interrupted(dir.path().to_owned()));
                    }
                    match error {
                        LearnError::Dropped => {}
                        LearnError::Diverged(_) => {
                            observer.failure(self.name(), round, device, &error.to_string());
                            diverged = Some(error.to_string());
                        }
                        other => {
                            (0..waiting).for_each(|_| drop(pool.next()));
                            let reason = format!("device {device}: {other}");
                            if !is_own(&other) {
                                return Err(Error::Training(reason));
                            }
                            let reason = format!("round {round} failed: {reason}");
                            let seconds = start.elapsed().as_secs_f64();
                            (self.ended, self.last_base) = (Some(round), Some(before));
                            let outcome = Outcome::nothing(round);
                            return Ok((record_of_end(self.name(), &outcome, seconds, reason), Vec::new()));
                        }
                    }
                    observer.trained(self.name(), round, 0);
                    Event::Failed { device, round }
                }
            };
            actions.extend(self.coordinator.step(Duration::ZERO, event));
        }
    }

    fn job(
        &mut self,
        device: DeviceId,
        message: Download,
        task: Task,
        open: &OpenRound,
    ) -> Result<Job, Error> {
        let personal = self.personal.get(device, open)?;
        let place = device.0 as usize;
        let (strategy, parts) = (self.strategy.clone(), self.parts.clone());
        Ok(Job { strategy, parts, device, place, message, personal, task })
    }
}

/// Whether an error of a device's is a matter of its algorithm alone, and would be the same at another attempt. Others, such
/// as images that cannot be read or memory that is not there, are every algorithm's, and may be gone when the run goes on.
fn is_own(error: &LearnError) -> bool {
    match error {
        LearnError::Diverged(_) | LearnError::Params(_) => true,
        LearnError::Dropped => false,
        LearnError::Device(error) => error.is::<Panicked>(),
    }
}

#[cfg(test)]
mod tests {
    use fedper_core::params::ParamsError;

    use super::*;

    #[test]
    fn what_ends_one_algorithm_and_what_ends_the_run() {
        let device = |error: Box<dyn std::error::Error + Send + Sync>| LearnError::Device(error);
        assert!(is_own(&LearnError::Diverged("the loss became NaN".into())));
        assert!(is_own(&LearnError::Params(ParamsError::Missing("fc.bias".into()))));
        assert!(is_own(&device(Box::new(Panicked("index out of bounds".into())))));
        assert!(!is_own(&device("no memory".into())));
        assert!(!is_own(&device(Box::new(std::io::Error::other("a disk that is gone")))));
    }
}
