//! The server's side of a federation as a state machine without I/O: `step(now, event) -> actions`.
//!
//! The simulator and the network both drive this one, so a simulated result speaks for a deployed one. It holds the
//! base, asks devices to train, averages what comes back, asks devices to be evaluated, and reports the round. Between
//! two rounds it waits for [`Event::Begin`], so that its driver can make the state durable first.

mod events;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use self::events::{Action, Event, Outcome};
pub use self::plan::Plan;
use crate::cores::Cores;
use crate::folding::Folding;
use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::params::Layout;
use crate::parts::Parts;
use crate::round::{Answer, DeviceId, Download, Together, Upload};
use crate::split::Shared;
use crate::strategy::{ServerRound, Strategy};

#[derive(Debug)]
enum Phase {
    Idle,
    Training { out: BTreeSet<DeviceId>, folding: Folding, answers: BTreeMap<DeviceId, TrainMetrics> },
    Evaluating { out: BTreeSet<DeviceId>, lost: BTreeSet<DeviceId> },
}

/// The state machine.
pub struct Coordinator {
    plan: Plan,
    strategy: Arc<dyn Strategy>,
    parts: Arc<Parts>,
    cores: Cores,
    /// What lasts on the server.
    base: Arc<Shared>,
    /// What a device is sent of it.
    down: Arc<Shared>,
    round: u32,
    phase: Phase,
    outcome: Outcome,
    deadline: Option<Duration>,
}

impl Coordinator {
    /// Ready to begin the round after `done` rounds that led to the state `base`.
    pub fn new(plan: Plan, strategy: Arc<dyn Strategy>, parts: Arc<Parts>, base: Shared, done: u32) -> Self {
        let base = Arc::new(base);
        Self {
            plan,
            strategy,
            cores: Cores::ONE,
            down: parts.downloaded(&base),
            parts,
            base,
            round: done,
            phase: Phase::Idle,
            outcome: Outcome::nothing(done),
            deadline: None,
        }
    }

    /// Averages on these cores instead of the caller's alone.
    pub fn on(self, cores: Cores) -> Self {
        Self { cores, ..self }
    }

    /// What lasts on the server: the base, and the method's other slots.
    pub fn base(&self) -> &Arc<Shared> {
        &self.base
    }

    /// The round that is running, or the last one that ended; 0 before the first.
    pub fn round(&self) -> u32 {
        self.round
    }

    /// When [`Event::Tick`] is due, on the clock of `now`.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The devices whose answers are awaited.
    pub fn awaited(&self) -> Vec<DeviceId> {
        match &self.phase {
            Phase::Idle => Vec::new(),
            Phase::Training { out, .. } | Phase::Evaluating { out, .. } => out.iter().copied().collect(),
        }
    }

    /// Whether the round that is under way has been averaged, with what `device` sent.
    pub fn has_counted(&self, device: DeviceId) -> bool {
        let asked =
            self.outcome.participants.as_ref().is_none_or(|asked| asked.binary_search(&device).is_ok());
        matches!(self.phase, Phase::Evaluating { .. })
            && asked
            && !self.outcome.failed_devices.contains(&device)
    }

    /// Advances the federation. Answers that are late, doubled or unasked for change nothing.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Begin => self.begin(now),
            Event::Trained(upload) => self.trained(now, upload),
            Event::TrainedTogether(together) => self.answered(now, together),
            Event::Evaluated { device, round, metrics } => self.evaluated(device, round, metrics),
            Event::Failed { device, round } => self.failed(now, device, round, false),
            Event::Lost { device, round } => self.failed(now, device, round, true),
            Event::Tick => self.tick(now),
        }
    }

    fn begin(&mut self, now: Duration) -> Vec<Action> {
        if let Phase::Evaluating { out, lost } = &mut self.phase
            && out.is_empty()
        {
            *out = std::mem::take(lost);
            return self.evaluate(now);
        }
        if !matches!(self.phase, Phase::Idle) {
            return Vec::new();
        }
        if self.round >= self.plan.rounds {
            return vec![Action::Finished];
        }
        self.round += 1;
        self.outcome = Outcome::nothing(self.round);
        self.deadline = self.plan.round_timeout.map(|timeout| now + timeout);
        let devices = self.plan.participants(self.round);
        self.outcome.participants = ((devices.len() as u64) < self.plan.devices).then(|| devices.clone());
        let message = self.download();
        self.outcome.bytes_down = bytes(self.parts.down.layout()) * devices.len() as u64;
        self.phase = Phase::Training {
            out: devices.iter().copied().collect(),
            folding: Folding::new(self.parts.clone(), &devices).on(self.cores),
            answers: BTreeMap::new(),
        };
        devices.into_iter().map(|device| Action::Train(device, message.clone())).collect()
    }

    fn download(&self) -> Download {
        Download { round: self.round, test_locally: self.plan.evaluates(self.round), base: self.down.clone() }
    }

    fn trained(&mut self, now: Duration, upload: Upload) -> Vec<Action> {
        let Upload { device, round, samples, train, test, base } = upload;
        let answers = vec![Answer { device, samples, train, test }];
        self.answered(now, Together { round, answers, base })
    }

    fn answered(&mut self, now: Duration, together: Together) -> Vec<Action> {
        let Phase::Training { out, folding, answers } = &mut self.phase else { return Vec::new() };
        let Together { round, answers: found, base } = together;
        // One that is not awaited spoils the mean that it is a part of.
        let distinct: BTreeSet<DeviceId> = found.iter().map(|answer| answer.device).collect();
        let awaited = distinct.len() == found.len() && distinct.is_subset(out);
        if round != self.round || found.is_empty() || !awaited {
            return Vec::new();
        }
        out.retain(|device| !distinct.contains(device));
        let weight: f64 = found.iter().map(|answer| self.strategy.weight(answer.samples)).sum();
        let mut devices = distinct.iter().copied();
        // What several sent together counts where the first of them is.
        let first = devices.next().expect("there is an answer");
        devices.for_each(|device| folding.skip(device));
        let sent = bytes(base.params().layout());
        if folding.add(first, base, weight, found.len() as u32).is_err() {
            distinct.into_iter().for_each(|device| self.outcome.fail(device));
            return self.train_phase_ends_when_all_answered(now);
        }
        self.outcome.bytes_up += sent * found.len() as u64;
        for answer in found {
            self.outcome.answered += 1;
            if let Some(test) = answer.test {
                self.outcome.local_tests.insert(answer.device, test);
            }
            answers.insert(answer.device, answer.train);
        }
        self.train_phase_ends_when_all_answered(now)
    }

    fn failed(&mut self, now: Duration, device: DeviceId, round: u32, again: bool) -> Vec<Action> {
        if round != self.round {
            return Vec::new();
        }
        match &mut self.phase {
            Phase::Training { out, folding, .. } => {
                if !out.remove(&device) {
                    return Vec::new();
                }
                folding.skip(device);
                self.outcome.fail(device);
                self.train_phase_ends_when_all_answered(now)
            }
            Phase::Evaluating { out, lost } => {
                if !out.remove(&device) {
                    return Vec::new();
                }
                if again {
                    lost.insert(device);
                }
                self.round_ends_when_all_evaluated()
            }
            Phase::Idle => Vec::new(),
        }
    }

    fn evaluated(&mut self, device: DeviceId, round: u32, metrics: EvalMetrics) -> Vec<Action> {
        let Phase::Evaluating { out, .. } = &mut self.phase else { return Vec::new() };
        if round != self.round || !out.remove(&device) {
            return Vec::new();
        }
        self.outcome.tests.insert(device, metrics);
        self.round_ends_when_all_evaluated()
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match &mut self.phase {
            Phase::Idle => Vec::new(),
            Phase::Training { out, .. } => {
                std::mem::take(out).into_iter().for_each(|device| self.outcome.fail(device));
                self.train_phase_ends_when_all_answered(now)
            }
            Phase::Evaluating { out, lost } => {
                lost.append(out);
                self.round_ends_when_all_evaluated()
            }
        }
    }

    fn train_phase_ends_when_all_answered(&mut self, now: Duration) -> Vec<Action> {
        match &self.phase {
            Phase::Training { out, .. } if out.is_empty() => {}
            _ => return Vec::new(),
        }
        let Phase::Training { folding, answers, .. } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("the phase was just looked at");
        };
        if u64::from(self.outcome.answered) < self.plan.min_answers {
            let too_few = Action::TooFew { round: self.round, answered: self.outcome.answered };
            self.round -= 1;
            self.deadline = None;
            return vec![too_few];
        }
        for metrics in answers.into_values() {
            self.outcome.train.merge(metrics);
        }
        if self.outcome.answered > 0 {
            let round = ServerRound {
                parts: &self.parts,
                round: self.round,
                devices: self.plan.devices,
                asked: u64::from(self.outcome.answered + self.outcome.failed),
                answered: self.outcome.answered.into(),
            };
            self.base = Arc::new(self.strategy.server(&self.base, folding.finish(), &round));
            self.down = self.parts.downloaded(&self.base);
        }
        let devices = if self.plan.evaluates(self.round) { self.plan.evaluated() } else { Vec::new() };
        self.phase = Phase::Evaluating { out: devices.into_iter().collect(), lost: BTreeSet::new() };
        self.evaluate(now)
    }

    fn evaluate(&mut self, now: Duration) -> Vec<Action> {
        let devices = self.awaited();
        if devices.is_empty() {
            return self.round_ends_when_all_evaluated();
        }
        self.deadline = self.plan.round_timeout.map(|timeout| now + timeout);
        let message = self.download();
        devices.into_iter().map(|device| Action::Evaluate(device, message.clone())).collect()
    }

    fn round_ends_when_all_evaluated(&mut self) -> Vec<Action> {
        let Phase::Evaluating { out, lost } = &self.phase else { return Vec::new() };
        if !out.is_empty() {
            return Vec::new();
        }
        self.deadline = None;
        let all = self.plan.evaluations();
        let (heard, needed) = (all - lost.len() as u64, self.plan.min_answers.min(all));
        if heard < needed {
            return vec![Action::TooFewTests { round: self.round, heard, needed }];
        }
        self.phase = Phase::Idle;
        let outcome = std::mem::replace(&mut self.outcome, Outcome::nothing(self.round));
        vec![Action::RoundDone(outcome)]
    }
}

/// Bytes of the values: what a method sends, however it travels.
fn bytes(layout: &Layout) -> u64 {
    4 * layout.numel() as u64
}

#[cfg(test)]
mod tests;
