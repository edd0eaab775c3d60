//! One algorithm's federation: its coordinator, what ends it, and what its devices keep between rounds.

use std::sync::Arc;

use fedper_core::coordinator::{Coordinator, Outcome, Plan};
use fedper_core::cores::Cores;
use fedper_core::parts::Parts;
use fedper_core::plateau::Plateau;
use fedper_core::split::Shared;
use fedper_core::strategy::Strategy;

use super::personal::PersonalStore;
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::{History, RunDir};

/// A federation between two rounds.
pub struct Federation {
    /// Its method.
    pub strategy: Arc<dyn Strategy>,
    /// What that sends and keeps.
    pub parts: Arc<Parts>,
    /// Its rounds.
    pub plan: Plan,
    /// Its server.
    pub coordinator: Coordinator,
    cores: Cores,
    /// What each device keeps, if that is here; a device that never trained has nothing, because it follows from the seed.
    pub(crate) personal: PersonalStore,
    /// What ends it before its last round.
    plateau: Option<Plateau>,
    /// The round that came to nothing, so that there is no further one.
    ended: Option<u32>,
    /// The base before that round.
    last_base: Option<Arc<Shared>>,
}

impl Federation {
    /// As the run directory's checkpoint has it, or at its beginning. Holds what devices keep in `memory` bytes, and
    /// averages on `cores`.
    pub(super) fn restore(
        experiment: &Experiment,
        strategy: Arc<dyn Strategy>,
        plan: Plan,
        dir: &RunDir,
        memory: u64,
        cores: Cores,
    ) -> Result<Self, Error> {
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
        Ok(Self { strategy, parts, plan, coordinator, cores, personal, plateau, ended, last_base: None })
    }

    /// The name of its method.
    pub fn name(&self) -> &'static str {
        self.strategy.name()
    }

    /// What its rounds have led to.
    pub fn base(&self) -> &Arc<Shared> {
        self.last_base.as_ref().unwrap_or_else(|| self.coordinator.base())
    }

    /// How many rounds are done.
    pub fn rounds_done(&self) -> u32 {
        self.coordinator.round()
    }

    /// The round after which its accuracy counted as flat: there is no further one.
    pub(super) fn stopped(&self) -> Option<u32> {
        self.plateau.as_ref().and_then(Plateau::stopped)
    }

    /// Whether it ended because a round came to nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether there is no further round, however many were asked for.
    pub(super) fn is_over(&self) -> bool {
        self.stopped().is_some() || self.has_failed()
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

    /// A round was evaluated.
    pub(super) fn observe(&mut self, round: u32, accuracy: f64) {
        if let Some(plateau) = &mut self.plateau {
            plateau.observe(round, accuracy);
        }
    }

    /// `round`, which began with `base`, came to nothing and is the last.
    pub(super) fn end(&mut self, round: u32, base: Arc<Shared>) {
        (self.ended, self.last_base) = (Some(round), Some(base));
    }

    /// Forgets the round that is under way: the next is that after `done`, from `base`, and `min_answers` are needed for it.
    pub fn go_back(&mut self, base: &Shared, done: u32, min_answers: u64) {
        let plan = Plan { min_answers, ..self.plan.clone() };
        let (strategy, parts) = (self.strategy.clone(), self.parts.clone());
        self.coordinator = Coordinator::new(plan, strategy, parts, base.clone(), done).on(self.cores);
    }

    /// The outcome of a round in which every device that was asked to train failed.
    pub fn nobody(&self, round: u32) -> Outcome {
        let devices = self.plan.participants(round);
        let values = self.parts.down.layout().numel() as u64;
        Outcome {
            failed: devices.len() as u32,
            failed_devices: devices.iter().copied().collect(),
            bytes_down: 4 * values * devices.len() as u64,
            participants: ((devices.len() as u64) < self.plan.devices).then_some(devices),
            ..Outcome::nothing(round)
        }
    }
}
