//! `fedper server`: the simulator's coordinator, asking devices on a SuperLink.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fedper_core::coordinator::{Action, Coordinator, Event, Outcome, Plan};
use fedper_core::metrics::EvalMetrics;
use fedper_core::round::{Answer, DeviceId, Download, Together, Upload};
use fedper_core::split::Split;
use fedper_core::strategy::{self, Strategy};
use fedper_flower::error::FlowerError;
use fedper_flower::identity;
use fedper_flower::records::{ArrayRecord, Content, Values};
use fedper_flower::retry::Polling;
use fedper_flower::runtime::{Run, Runtime};
use serde::{Deserialize, Serialize};

use super::Tell;
use super::answer::{self, Failure, Limits, check_evaluated, check_trained};
use super::roster::Roster;
use super::session::{Arrived, Kind, Question, Refused, Session};
use super::settings::{ALGORITHM, CONFIG, DEVICES, FEDERATION, ROUND, TEST_LOCALLY, for_devices};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::records::{DeviceRecord, RoundRecord, Summary};
use crate::rundir::{RunDir, records_of, write_atomically};
use crate::simulator::{Observer, RunOptions};

/// How a server runs.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// A round begins when so many devices are online.
    pub min_devices: u64,
    /// A round counts if so many devices answer; otherwise it is begun again.
    pub min_answers: u64,
    /// How long a round waits for answers to its training, and then to its evaluation.
    pub round_timeout: Duration,
    /// What an update must keep to.
    pub limits: Limits,
}

/// `network.json` in the run directory, until the run is finished.
#[derive(Debug, Serialize, Deserialize)]
struct Network {
    /// What devices keep belongs to this name.
    federation: String,
    /// The SuperLink's run that was driven last: number, task, token.
    run: Option<(u64, u64, String)>,
}

impl Network {
    fn path(dir: &Path) -> PathBuf {
        dir.join("network.json")
    }

    fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(network) => Ok(Some(network)),
                Err(error) => Err(Error::Foreign { path, reason: error.to_string() }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), Error> {
        write_atomically(&Self::path(dir), &serde_json::to_vec(self).expect("plain data"))
    }
}

/// Runs `experiment` to its end, or on from where `dir` left off, on the devices of a SuperLink.
///
/// # Errors
/// If the SuperLink cannot be reached for long, a file cannot be written, or `stop` is set. The run directory then holds
/// the checkpoint of the last round.
pub fn run(
    runtime: &Runtime,
    experiment: &Experiment,
    dir: &mut RunDir,
    options: &ServerOptions,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
    tell: Tell<'_>,
) -> Result<Summary, Error> {
    let mut network = match Network::read(dir.path())? {
        Some(network) => network,
        None => Network { federation: identity::random_name()?, run: None },
    };
    if let Some((id, task, token)) = network.run.take() {
        // Ends the run of a server that was killed, so that devices are not busy with it.
        let _ = runtime.finish(
            &Run { id, task, token },
            "failed",
            "its server was killed and goes on in another run",
        );
    }
    network.write(dir.path())?;
    let alive = Mutex::new(None);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| heartbeats(runtime, &alive, &ended));
        let drive = || {
            let session = Session::start(runtime, &alive)?;
            let roster = Roster::new(experiment.config.clients);
            let mut server = Server {
                experiment,
                options,
                session,
                roster,
                network,
                observer,
                tell,
                path: dir.path().to_owned(),
            };
            server.note_run()?;
            let result = server.rounds(dir, stop);
            let _ = match &result {
                Ok(_) => server.session.finish("completed", ""),
                Err(error) => server.session.finish("failed", &error.to_string()),
            };
            result
        };
        let result = drive();
        ended.store(true, Ordering::Relaxed);
        result
    })?;
    let path = Network::path(dir.path());
    std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    let options = RunOptions { workers: 1, personal_memory: 0, stop };
    let seconds = dir.seconds();
    dir.finish(experiment, &options, seconds)
}

fn heartbeats(runtime: &Runtime, alive: &Mutex<Option<Run>>, ended: &AtomicBool) {
    let mut last = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(50));
        if last.elapsed() > Duration::from_secs(5) {
            let run = alive.lock().ok().and_then(|run| run.clone());
            // What is wrong shows in the next call.
            let _ = run.map(|run| runtime.heartbeat(&run));
            last = Instant::now();
        }
    }
}

struct Server<'a> {
    experiment: &'a Experiment,
    options: &'a ServerOptions,
    session: Session<'a>,
    roster: Roster,
    network: Network,
    observer: &'a mut dyn Observer,
    tell: Tell<'a>,
    path: PathBuf,
}

/// One algorithm's federation.
struct Federation {
    strategy: &'static dyn Strategy,
    split: Split,
    plan: Plan,
    coordinator: Coordinator,
}

/// What became of an attempt at a round.
enum Attempt {
    Done(Box<Outcome>),
    TooFew(u32),
}

/// Bytes of a round's training, as they travel.
#[derive(Default)]
struct Traffic {
    down: u64,
    up: u64,
}

impl Server<'_> {
    fn note_run(&mut self) -> Result<(), Error> {
        let run = self.session.run();
        self.network.run = Some((run.id, run.task, run.token.clone()));
        self.network.write(&self.path)
    }

    fn federation(&self, name: &str, dir: &RunDir) -> Result<Federation, Error> {
        let config = &self.experiment.config;
        let strategy = strategy::by_name(name).expect("a configuration names algorithms that exist");
        let split = self.experiment.split(strategy);
        let plan = Plan {
            devices: config.clients,
            rounds: config.rounds,
            participation: config.participation,
            seed: config.seed,
            eval_every: config.eval_every,
            eval_devices: config.eval_devices,
            round_timeout: Some(self.options.round_timeout),
            min_answers: self.options.min_answers,
        };
        let (base, done) = match dir.restore(name, &split)? {
            Some(state) => state,
            None => (self.experiment.initial_base(&split), 0),
        };
        let coordinator = Coordinator::new(plan.clone(), strategy, base, done);
        Ok(Federation { strategy, split, plan, coordinator })
    }

    fn rounds(&mut self, dir: &mut RunDir, stop: &AtomicBool) -> Result<(), Error> {
        let names = self.experiment.config.algorithm.iter();
        let mut federations: Vec<Federation> =
            names.map(|name| self.federation(name, dir)).collect::<Result<_, _>>()?;
        let per_round = |f: &Federation| f.plan.participants_per_round();
        let all = federations.iter().map(|f| u64::from(f.plan.rounds) * per_round(f)).sum();
        let done = federations.iter().map(|f| u64::from(f.coordinator.round()) * per_round(f)).sum();
        self.observer.begin(all, done);
        let before = dir.seconds();
        let start = Instant::now();
        for round in 1..=self.experiment.config.rounds {
            for federation in &mut federations {
                if federation.coordinator.round() >= round {
                    continue;
                }
                let open = dir.begin_round(federation.strategy.name())?;
                let (record, devices) = self.round(federation, stop)?;
                let seconds = before + start.elapsed().as_secs_f64();
                dir.commit(open, &record, &devices, federation.coordinator.base(), seconds)?;
                self.observer.round(&record);
            }
        }
        for federation in &federations {
            dir.write_weights(federation.strategy.name(), federation.coordinator.base(), &federation.split)?;
        }
        Ok(())
    }

    /// A round, begun again until enough devices answer.
    fn round(
        &mut self,
        federation: &mut Federation,
        stop: &AtomicBool,
    ) -> Result<(RoundRecord, Vec<DeviceRecord>), Error> {
        const LOST_RUNS: u32 = 20;
        let (base, done) = (federation.coordinator.base().clone(), federation.coordinator.round());
        let name = federation.strategy.name();
        let mut lost = 0;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped(format!(
                    "interrupted after a checkpoint; the same command goes on with {}",
                    self.path.display()
                )));
            }
            let start = Instant::now();
            let mut traffic = Traffic::default();
            let result =
                self.wait_for_devices(stop).and_then(|()| self.attempt(federation, &mut traffic, stop));
            match result {
                Ok(Attempt::Done(outcome)) => {
                    let (mut record, devices) = records_of(name, &outcome, start.elapsed().as_secs_f64());
                    (record.bytes_down, record.bytes_up) = (traffic.down, traffic.up);
                    return Ok((record, devices));
                }
                Ok(Attempt::TooFew(answered)) => {
                    let needed = self.options.min_answers;
                    (self.tell)(&format!(
                        "{name} round {}: {answered} devices answered, {needed} are needed; it is begun again",
                        done + 1
                    ));
                    self.session.forget_round();
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
                Err(Error::Flower(FlowerError::Interrupted)) => {}
                // The SuperLink has given the run up, or was started anew and does not know it: the round begins again in
                // another run, with the same base.
                Err(Error::Flower(error @ FlowerError::Status { .. })) if lost < LOST_RUNS => {
                    lost += 1;
                    (self.tell)(&format!("the run is lost ({error}); going on in another"));
                    std::thread::sleep(Duration::from_millis(500));
                    match self.session.restart() {
                        Ok(()) => self.note_run()?,
                        Err(FlowerError::Status { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                    self.roster = Roster::new(self.experiment.config.clients);
                    federation.coordinator =
                        Coordinator::new(federation.plan.clone(), federation.strategy, (*base).clone(), done);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until enough devices are online, and all nodes have said what they host.
    fn wait_for_devices(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        let start = Instant::now();
        let mut polling = Polling::new(Duration::from_millis(20), Duration::from_secs(1));
        let mut said = None;
        let mut next_look = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            if start.elapsed() >= next_look {
                self.look_for_nodes()?;
                next_look = start.elapsed() + Duration::from_millis(500);
            }
            for arrived in self.session.collect(1 << 20)? {
                self.roster_answer(arrived);
                polling.restart();
            }
            let (count, needed) = (self.roster.count(), self.options.min_devices);
            let patience = Duration::from_secs(10);
            if count >= needed && (!self.session.is_asking() || start.elapsed() > patience) {
                return Ok(());
            }
            if count < needed && said != Some(count) && start.elapsed() > Duration::from_secs(2) {
                (self.tell)(&format!("{count} devices are online; waiting for {needed}"));
                said = Some(count);
            }
            std::thread::sleep(polling.pause());
        }
        Err(FlowerError::Interrupted.into())
    }

    fn look_for_nodes(&mut self) -> Result<(), Error> {
        let online = self.session.nodes()?;
        for node in self.roster.update(&online) {
            let mut config = Values::default();
            config.set_text(CONFIG, for_devices(&self.experiment.config));
            config.set_text(FEDERATION, self.network.federation.clone());
            let content = Content { config: Some(config), ..Content::default() }.pack();
            let question = Question { node, kind: Kind::Query, devices: Vec::new() };
            if self.session.ask(question, 0, &content, self.options.round_timeout)?.is_none() {
                self.roster.forget(node);
            }
        }
        Ok(())
    }

    fn roster_answer(&mut self, arrived: Arrived) {
        let node = arrived.question.node;
        let claim = match arrived.result {
            Ok(content) => {
                if let Some(reason) = content.config.as_ref().and_then(|config| config.text(answer::REFUSAL))
                {
                    (self.tell)(&format!("node {node} takes no part: {reason}"));
                }
                content.metrics.as_ref().and_then(answer::hosted)
            }
            // A node that does not know the question hosts one device.
            Err(Refused::Error(_)) => None,
            Err(Refused::Malformed(reason)) => {
                (self.tell)(&format!("node {node} refused: {reason}"));
                Some(Vec::new())
            }
        };
        if let Err(reason) = self.roster.hosts(node, claim) {
            (self.tell)(&format!("node {node} {reason}"));
        }
    }

    fn attempt(
        &mut self,
        federation: &mut Federation,
        traffic: &mut Traffic,
        stop: &AtomicBool,
    ) -> Result<Attempt, Error> {
        let start = Instant::now();
        let most = 8 * federation.split.base().numel() as u64 + (64 << 20);
        let mut polling = Polling::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut actions = VecDeque::from(federation.coordinator.step(Duration::ZERO, Event::Begin));
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
                    Action::Finished => unreachable!("a round is begun only if there is one"),
                }
            }
            for (kind, (devices, message)) in [(Kind::Train, train), (Kind::Evaluate, evaluate)] {
                if let Some(message) = message {
                    // Whoever has not answered the question before has been given up.
                    self.session.forget_round();
                    polling.restart();
                    let sent = self.ask(federation.strategy, kind, devices, &message, &mut events)?;
                    traffic.down += if kind == Kind::Train { sent } else { 0 };
                }
            }
            for arrived in self.session.collect(most)? {
                polling.restart();
                if arrived.question.kind == Kind::Query {
                    self.roster_answer(arrived);
                } else {
                    traffic.up += if arrived.question.kind == Kind::Train { arrived.bytes } else { 0 };
                    self.judge(federation, arrived, &mut events);
                }
            }
            let idle = events.is_empty();
            for event in events {
                actions.extend(federation.coordinator.step(start.elapsed(), event));
            }
            if federation.coordinator.deadline().is_some_and(|deadline| start.elapsed() >= deadline) {
                let late = federation.coordinator.awaited();
                let seconds = self.options.round_timeout.as_secs_f64();
                self.fail(federation, &late, &format!("no answer in {seconds} s"));
                actions.extend(federation.coordinator.step(start.elapsed(), Event::Tick));
            }
            if stop.load(Ordering::Relaxed) {
                return Err(FlowerError::Interrupted.into());
            }
            if idle && actions.is_empty() {
                std::thread::sleep(polling.pause());
            }
        }
    }

    /// Asks each node for its devices; returns the bytes that go out.
    fn ask(
        &mut self,
        strategy: &dyn Strategy,
        kind: Kind,
        devices: Vec<DeviceId>,
        message: &Download,
        events: &mut Vec<Event>,
    ) -> Result<u64, Error> {
        let places = self.roster.places();
        let mut by_node: BTreeMap<u64, Vec<DeviceId>> = BTreeMap::new();
        let mut nowhere = Vec::new();
        for device in devices {
            if kind == Kind::Evaluate {
                self.observer.evaluating(strategy.name(), message.round, device);
            }
            match places.get(&device) {
                Some(&node) => by_node.entry(node).or_default().push(device),
                None => nowhere.push(device),
            }
        }
        let arrays = ArrayRecord::of(&message.base);
        let mut bytes = 0;
        for (node, devices) in by_node {
            let mut config = Values::default();
            config.set_int(ROUND, message.round.into());
            config.set_text(FEDERATION, self.network.federation.clone());
            config.set_text(ALGORITHM, strategy.name());
            config.set_text(CONFIG, for_devices(&self.experiment.config));
            config.set_ints(DEVICES, devices.iter().map(|device| device.0 as i64).collect());
            config.set_bool(TEST_LOCALLY, message.test_locally);
            let content =
                Content { arrays: Some(arrays.clone()), config: Some(config), ..Content::default() }.pack();
            let question = Question { node, kind, devices: devices.clone() };
            match self.session.ask(question, message.round, &content, self.options.round_timeout)? {
                Some(sent) => bytes += sent,
                None => nowhere.extend(devices),
            }
        }
        if !nowhere.is_empty() {
            self.say(strategy, message.round, &nowhere, "on no node that is online");
            events.extend(nowhere.iter().map(|&device| Event::Failed { device, round: message.round }));
        }
        Ok(bytes)
    }

    /// Makes events of an answer. What it is refused for is said, and its devices count as failed.
    fn judge(&mut self, federation: &Federation, arrived: Arrived, events: &mut Vec<Event>) {
        let round = federation.coordinator.round();
        let Question { node, kind, devices } = arrived.question;
        let checked: Result<(Vec<Event>, Vec<Failure>), String> = match (arrived.result, kind) {
            (Err(Refused::Error(reason)), _) => {
                if reason.contains("not hosted here") {
                    self.roster.forget(node);
                }
                Err(reason)
            }
            (Err(Refused::Malformed(reason)), _) => Err(format!("refused: {reason}")),
            (Ok(content), Kind::Train) => {
                check_trained(&content, &devices, federation.coordinator.base(), &self.options.limits)
                    .map_err(|reason| format!("refused: {reason}"))
                    .map(|(params, answers, failed)| {
                        let base =
                            federation.split.adopt_base(&params).expect("read with the base's own layout");
                        for answer in &answers {
                            self.observer.trained(federation.strategy.name(), round, answer.train.samples);
                        }
                        let event = match answers[..] {
                            [Answer { device, samples, train, test }] => {
                                Event::Trained(Upload { device, round, samples, train, test, base })
                            }
                            _ => Event::TrainedTogether(Together { round, answers, base }),
                        };
                        (vec![event], failed)
                    })
            }
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
        match checked {
            Ok((answers, failed)) => {
                events.extend(answers);
                for (device, reason) in failed {
                    self.fail(federation, &[device], &reason);
                    events.push(Event::Failed { device, round });
                }
            }
            Err(reason) => {
                self.fail(federation, &devices, &reason);
                events.extend(devices.into_iter().map(|device| Event::Failed { device, round }));
            }
        }
    }

    fn fail(&mut self, federation: &Federation, devices: &[DeviceId], reason: &str) {
        let round = federation.coordinator.round();
        self.say(federation.strategy, round, devices, reason);
        for _ in devices {
            self.observer.trained(federation.strategy.name(), round, 0);
        }
    }

    fn say(&self, strategy: &dyn Strategy, round: u32, devices: &[DeviceId], reason: &str) {
        let list: Vec<String> = devices.iter().take(20).map(ToString::to_string).collect();
        let more = if devices.len() > 20 { ", …" } else { "" };
        let plural = if devices.len() == 1 { "" } else { "s" };
        let name = strategy.name();
        (self.tell)(&format!("{name} round {round}: device{plural} {}{more}: {reason}", list.join(", ")));
    }
}
