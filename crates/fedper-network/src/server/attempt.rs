//! An attempt at a round: what the coordinator wants is asked, what comes back is judged.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use fedper_core::coordinator::{Action, Event, Outcome};
use fedper_core::metrics::EvalMetrics;
use fedper_core::round::{Answer, DeviceId, Download, Together, Upload};
use fedper_flower::error::FlowerError;
use fedper_flower::records::{Content, Values};

use super::{LOOK, Server};
use crate::answer::{Failure, check_evaluated, check_trained};
use crate::error::Error;
use crate::one_line;
use crate::session::{Arrived, Kind, Question, Refused};
use crate::settings::{ALGORITHM, CONFIG, COUNTED, DEVICES, FEDERATION, ROUND, TEST_LOCALLY, for_devices};
use fedper_run::campaign::{Federation, Observer};
use fedper_run::device::drops_out;

/// What became of an attempt at a round.
pub(super) enum Attempt {
    Done(Box<Outcome>),
    /// So many devices trained, and it comes to nothing.
    TooFew(u32),
    /// So many of those needed were heard in the evaluation. Another attempt asks the others.
    TooFewTests(u64, u64),
}

/// What is known of a round's training beside its outcome.
#[derive(Default)]
pub(super) struct Tried {
    /// Bytes of the messages to nodes.
    pub(super) down: u64,
    /// Bytes of their answers.
    pub(super) up: u64,
    /// How many devices did not answer and did not say why: they were lost, or late.
    pub(super) silent: u64,
    /// Why another one failed, in its own words.
    pub(super) reason: Option<String>,
}

impl Server<'_> {
    pub(super) fn attempt(
        &mut self,
        federation: &mut Federation,
        tried: &mut Tried,
        observer: &mut dyn Observer,
    ) -> Result<Attempt, Error> {
        let start = Instant::now();
        let most = 8 * federation.parts.up.layout().numel() as u64 + (64 << 20);
        let mut actions = VecDeque::from(federation.coordinator.step(Duration::ZERO, Event::Begin));
        let mut asked = Kind::Train;
        loop {
            let mut events = Vec::new();
            let mut train: (Vec<DeviceId>, Option<Download>) = (Vec::new(), None);
            let mut evaluate: (Vec<DeviceId>, Option<Download>) = (Vec::new(), None);
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Train(device, message) => {
                        train.0.push(device);
                        train.1 = Some(message);
                    }
                    Action::Evaluate(device, message) => {
                        evaluate.0.push(device);
                        evaluate.1 = Some(message);
                    }
                    Action::RoundDone(outcome) => {
                        self.session.forget_round();
                        return Ok(Attempt::Done(Box::new(outcome)));
                    }
                    Action::TooFew { answered, .. } => return Ok(Attempt::TooFew(answered)),
                    Action::TooFewTests { heard, needed, .. } => {
                        return Ok(Attempt::TooFewTests(heard, needed));
                    }
                    Action::Finished => unreachable!("a round is begun only if there is one"),
                }
            }
            let mut sent_out = false;
            for (kind, (devices, message)) in [(Kind::Train, train), (Kind::Evaluate, evaluate)] {
                if let Some(message) = message {
                    // Whoever has not answered the question before has been given up.
                    self.session.forget_round();
                    let round = message.round;
                    if kind == Kind::Evaluate {
                        devices
                            .iter()
                            .for_each(|&device| observer.evaluating(federation.name(), round, device));
                    }
                    let (sent, nowhere) = self.ask(federation, kind, devices, &message)?;
                    if !nowhere.is_empty() {
                        self.say(federation, &nowhere, "on no node that is online");
                        events.extend(nowhere.iter().map(|&device| Event::Lost { device, round }));
                    }
                    (asked, sent_out) = (kind, true);
                    if kind == Kind::Train {
                        tried.down += sent;
                        tried.silent += nowhere.len() as u64;
                    }
                }
            }
            // Nobody has answered what was asked just now.
            let collected = if sent_out { Vec::new() } else { self.session.collect(most)? };
            for arrived in collected {
                if arrived.question.kind == Kind::Query {
                    self.roster_answer(arrived);
                } else {
                    tried.up += if arrived.question.kind == Kind::Train { arrived.bytes } else { 0 };
                    self.judge(federation, arrived, &mut events, tried, observer);
                }
            }
            let idle = events.is_empty();
            for event in events {
                actions.extend(federation.coordinator.step(start.elapsed(), event));
            }
            if federation.coordinator.deadline().is_some_and(|deadline| start.elapsed() >= deadline) {
                let late = federation.coordinator.awaited();
                let seconds = self.options.round_timeout.as_secs_f64();
                self.say(federation, &late, &format!("no answer in {seconds} s"));
                if asked == Kind::Train {
                    tried.silent += late.len() as u64;
                    late.iter()
                        .for_each(|_| observer.trained(federation.name(), federation.coordinator.round(), 0));
                }
                actions.extend(federation.coordinator.step(start.elapsed(), Event::Tick));
            }
            if self.is_stopped() {
                return Err(FlowerError::Interrupted.into());
            }
            if idle && actions.is_empty() {
                if self.session.is_calm() {
                    // Whoever has just come is ready for the next round.
                    self.look_for_nodes(LOOK)?;
                }
                std::thread::sleep(self.session.pause());
            }
        }
    }

    /// Asks each node for its devices; returns the bytes that go out, and the devices that are nowhere.
    fn ask(
        &mut self,
        federation: &Federation,
        kind: Kind,
        devices: Vec<DeviceId>,
        message: &Download,
    ) -> Result<(u64, Vec<DeviceId>), Error> {
        let places = self.roster.places();
        let mut by_node: BTreeMap<u64, Vec<DeviceId>> = BTreeMap::new();
        let mut nowhere = Vec::new();
        for device in devices {
            match places.get(&device) {
                Some(&node) => by_node.entry(node).or_default().push(device),
                None => nowhere.push(device),
            }
        }
        let mut bytes = 0;
        for (node, devices) in by_node {
            let compact = self.roster.is_compact(node);
            let mut config = Values::default();
            if !compact {
                config.set_int(ROUND, message.round.into());
            }
            config.set_text(FEDERATION, self.network.federation.clone());
            config.set_text(ALGORITHM, federation.name());
            config.set_text(CONFIG, for_devices(&self.experiment.config));
            config.set_ints(DEVICES, devices.iter().map(|device| device.0 as i64).collect());
            let counted =
                |&device: &DeviceId| self.counted.last(federation.name(), device, &federation.coordinator);
            config.set_ints(COUNTED, devices.iter().map(|device| counted(device).into()).collect());
            config.set_bool(TEST_LOCALLY, message.test_locally);
            let arrays = Some(self.sent(federation.name(), &message.base).arrays(compact));
            let content = Content { arrays, config: Some(config), ..Content::default() }.pack();
            let question = Question { node, kind, devices: devices.clone() };
            match self.session.ask(question, message.round, &content, self.options.round_timeout)? {
                Some(sent) => bytes += sent,
                None => nowhere.extend(devices),
            }
        }
        Ok((bytes, nowhere))
    }

    /// Makes events of an answer. What it is refused for is said, and its devices count as failed.
    fn judge(
        &mut self,
        federation: &Federation,
        arrived: Arrived,
        events: &mut Vec<Event>,
        tried: &mut Tried,
        observer: &mut dyn Observer,
    ) {
        let round = federation.coordinator.round();
        let Question { node, kind, devices } = arrived.question;
        let mut is_lost = matches!(arrived.result, Err(Refused::Lost(_)));
        let checked: Result<(Vec<Event>, Vec<Failure>), String> = match (arrived.result, kind) {
            (Err(Refused::Error(reason)), _) => {
                if reason.contains("not hosted here") {
                    // Another may host it by now.
                    is_lost = true;
                    self.roster.forget(node);
                }
                Err(reason)
            }
            (Err(Refused::Lost(reason)), _) => Err(reason),
            (Err(Refused::Malformed(reason)), _) => Err(format!("refused: {reason}")),
            (Ok(content), Kind::Train) => check_trained(
                &content,
                &devices,
                &federation.parts,
                federation.coordinator.base(),
                &self.options.limits,
            )
            .map_err(|reason| format!("refused: {reason}"))
            .map(|(base, answers, failed)| {
                for answer in &answers {
                    observer.trained(federation.name(), round, answer.train.samples);
                }
                let event = match answers[..] {
                    [Answer { device, samples, train, test }] => {
                        Event::Trained(Upload { device, round, samples, train, test, base })
                    }
                    _ => Event::TrainedTogether(Together { round, answers, base }),
                };
                (vec![event], failed)
            }),
            (Ok(content), _) => check_evaluated(&content, &devices)
                .map_err(|reason| format!("refused: {reason}"))
                .map(|(tests, failed)| {
                    let event = |(device, metrics): (DeviceId, EvalMetrics)| Event::Evaluated {
                        device,
                        round,
                        metrics,
                    };
                    (tests.into_iter().map(event).collect(), failed)
                }),
        };
        let failed: Vec<Failure> = match checked {
            Ok((answers, failed)) => {
                events.extend(answers);
                for (device, reason) in &failed {
                    self.say(federation, &[*device], reason);
                }
                failed
            }
            Err(reason) => {
                self.say(federation, &devices, &reason);
                devices.into_iter().map(|device| (device, reason.clone())).collect()
            }
        };
        for (device, reason) in failed {
            if kind == Kind::Train {
                observer.trained(federation.name(), round, 0);
                if is_lost {
                    tried.silent += 1;
                } else if !drops_out(&self.experiment.config, device, round) {
                    tried.reason = Some(reason_of(device, &reason));
                }
            }
            events.push(match is_lost {
                true => Event::Lost { device, round },
                false => Event::Failed { device, round },
            });
        }
    }

    /// Tells what became of devices in the round that is under way.
    fn say(&self, federation: &Federation, devices: &[DeviceId], reason: &str) {
        let list: Vec<String> = devices.iter().take(20).map(ToString::to_string).collect();
        let more = if devices.len() > 20 { ", …" } else { "" };
        let plural = if devices.len() == 1 { "" } else { "s" };
        let (name, round) = (federation.name(), federation.coordinator.round());
        let (list, reason) = (list.join(", "), one_line(reason));
        (self.tell)(&format!("{name} round {round}: device{plural} {list}{more}: {reason}"));
    }
}

/// What `device` says of its failure. A node that names its devices itself needs no further name.
fn reason_of(device: DeviceId, reason: &str) -> String {
    let reason = one_line(reason);
    if reason.starts_with("device ") { reason } else { format!("device {device}: {reason}") }
}
