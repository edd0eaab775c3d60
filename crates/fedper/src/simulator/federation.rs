//! One algorithm's federation: its coordinator, and what its devices keep between rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fedper_core::coordinator::{Action, Coordinator, Event, Outcome, Plan};
use fedper_core::metrics::{EvalMetrics, Spread, Worst};
use fedper_core::round::{DeviceId, Download};
use fedper_core::split::{BaseParams, PersonalParams, Split};
use fedper_core::strategy::{LearnError, Strategy};

use super::Observer;
use super::pool::{Done, Job, Pool, Task};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::records::{DeviceRecord, RoundRecord};
use crate::rundir::{FederationState, RunDir};

/// A federation between two rounds.
pub(super) struct Federation {
    strategy: &'static dyn Strategy,
    split: Arc<Split>,
    plan: Plan,
    coordinator: Coordinator,
    /// What each device keeps; a device that never trained has nothing here, because it follows from the seed.
    personal: BTreeMap<DeviceId, Arc<PersonalParams>>,
    /// Devices whose personal parameters are not yet in the checkpoint.
    changed: BTreeSet<DeviceId>,
}

impl Federation {
    /// As the run directory's checkpoint has it, or at its beginning.
    pub(super) fn restore(
        experiment: &Experiment,
        strategy: &'static dyn Strategy,
        dir: &RunDir,
    ) -> Result<Self, Error> {
        let config = &experiment.config;
        let plan = Plan {
            devices: config.clients,
            rounds: config.rounds,
            participation: config.participation,
            seed: config.seed,
            eval_every: config.eval_every,
            eval_devices: config.eval_devices,
            round_timeout: None,
        };
        let split = Arc::new(experiment.split(strategy));
        let (base, personal, done) = match dir.restore(strategy.name(), &split)? {
            Some(state) => state,
            None => (experiment.initial_base(&split), BTreeMap::new(), 0),
        };
        let coordinator = Coordinator::new(plan.clone(), strategy, base, done);
        Ok(Self { strategy, split, plan, coordinator, personal, changed: BTreeSet::new() })
    }

    pub(super) fn name(&self) -> &'static str {
        self.strategy.name()
    }

    pub(super) fn base(&self) -> &BaseParams {
        self.coordinator.base()
    }

    pub(super) fn personal(&self) -> &BTreeMap<DeviceId, Arc<PersonalParams>> {
        &self.personal
    }

    pub(super) fn rounds_done(&self) -> u32 {
        self.coordinator.round()
    }

    /// How many times devices train in the whole run.
    pub(super) fn trainings(&self) -> u64 {
        u64::from(self.plan.rounds) * self.plan.participants(1).len() as u64
    }

    pub(super) fn trainings_done(&self) -> u64 {
        u64::from(self.rounds_done()) * self.plan.participants(1).len() as u64
    }

    /// What the checkpoint must take up after a round.
    pub(super) fn state(&self) -> FederationState<'_> {
        FederationState {
            algorithm: self.name(),
            round: self.coordinator.round(),
            base: self.coordinator.base(),
            changed: self.changed.iter().map(|&device| (device, &*self.personal[&device])).collect(),
        }
    }

    /// The checkpoint has taken up everything.
    pub(super) fn committed(&mut self) {
        self.changed.clear();
    }

    /// Runs the next round. On an error this federation is in the middle of a round; the checkpoint is not.
    pub(super) fn round(
        &mut self,
        pool: &Pool,
        dir: &RunDir,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<(RoundRecord, Vec<DeviceRecord>), Error> {
        let start = Instant::now();
        let mut waiting = 0usize;
        let mut diverged = None;
        // A simulated round has no deadline, so the coordinator's clock stands still.
        let mut actions = self.coordinator.step(Duration::ZERO, Event::Begin);
        loop {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::Train(device, message) => {
                        observer.message(&message);
                        pool.submit(self.job(device, message, Task::Train));
                        waiting += 1;
                    }
                    Action::Evaluate(device, message) => {
                        observer.evaluating(self.name(), message.round, device);
                        pool.submit(self.job(device, message, Task::Evaluate));
                        waiting += 1;
                    }
                    Action::RoundDone(outcome) => {
                        if outcome.answered == 0
                            && let Some(reason) = diverged
                        {
                            return Err(Error::Training(format!(
                                "no device of `{}` came through round {}: {reason}",
                                self.name(),
                                outcome.round
                            )));
                        }
                        return Ok(self.records(&outcome, start.elapsed().as_secs_f64()));
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
                        observer.message(upload);
                        observer.trained(self.name(), round, upload.train.samples);
                    }
                    if let Some(personal) = personal.filter(|p| !p.params().layout().is_empty()) {
                        self.personal.insert(device, Arc::new(personal));
                        self.changed.insert(device);
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
                        other => return Err(Error::Training(format!("device {device}: {other}"))),
                    }
                    observer.trained(self.name(), round, 0);
                    Event::Failed { device, round }
                }
            };
            actions = self.coordinator.step(Duration::ZERO, event);
        }
    }

    fn job(&self, device: DeviceId, message: Download, task: Task) -> Job {
        Job {
            strategy: self.strategy,
            split: self.split.clone(),
            device,
            message,
            personal: self.personal.get(&device).cloned(),
            task,
        }
    }

    fn records(&self, outcome: &Outcome, seconds: f64) -> (RoundRecord, Vec<DeviceRecord>) {
        let spread = |tests: &BTreeMap<DeviceId, EvalMetrics>, of: fn(&EvalMetrics) -> f64, worst| {
            let values: Vec<(f64, f64)> = tests
                .values()
                .filter(|test| test.samples > 0)
                .map(|test| (of(test), test.samples as f64))
                .collect();
            Spread::of(&values, worst)
        };
        let trained = outcome.train.samples;
        let record = RoundRecord {
            algorithm: self.name().to_owned(),
            round: outcome.round,
            accuracy: spread(&outcome.tests, EvalMetrics::accuracy, Worst::Low),
            accuracy_local: spread(&outcome.local_tests, EvalMetrics::accuracy, Worst::Low),
            loss: spread(&outcome.tests, EvalMetrics::loss, Worst::High),
            train_loss: (trained > 0).then(|| outcome.train.loss_sum / trained as f64),
            bytes_down: outcome.bytes_down,
            bytes_up: outcome.bytes_up,
            seconds,
            devices: outcome.answered,
            failed: outcome.failed,
            samples_trained: trained,
        };
        let devices = outcome
            .tests
            .iter()
            .filter(|(_, test)| test.samples > 0)
            .map(|(device, test)| DeviceRecord {
                algorithm: self.name().to_owned(),
                round: outcome.round,
                device: device.0,
                samples: test.samples,
                accuracy: test.accuracy(),
                loss: test.loss(),
            })
            .collect();
        (record, devices)
    }
}
