//! `fedper server`: the simulator's coordinator, asking devices on a SuperLink.

mod attempt;
mod resume;
mod roll;

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedper_core::coordinator::{Coordinator, Plan};
use fedper_core::parts::Parts;
use fedper_core::split::BaseParams;
use fedper_core::strategy::Strategy;
use fedper_flower::error::FlowerError;
use fedper_flower::identity;
use fedper_flower::records::ArrayRecord;
use fedper_flower::runtime::{Run, Runtime};

use self::attempt::{Attempt, Traffic};
use self::resume::Network;
use self::roll::Roll;
use super::answer::Limits;
use super::roster::Roster;
use super::session::Session;
use super::{SetOnDrop, Tell};
use crate::cores;
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::records::{DeviceRecord, RoundRecord, Summary};
use crate::rundir::{RunDir, records_of};
use crate::simulator::{Observer, RunOptions};

/// How a server runs.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// A round begins when so many devices are online; if that is not said, when all are that do not refuse.
    pub min_devices: Option<u64>,
    /// Whether the experiment's dataset was named, as opposed to being the default.
    pub names_dataset: bool,
    /// A round counts if so many devices answer; otherwise it is begun again, or its evaluation goes on with the others.
    pub min_answers: u64,
    /// How long a round waits for answers to its training, and then to its evaluation.
    pub round_timeout: Duration,
    /// What an update must keep to.
    pub limits: Limits,
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
        None => Network { federation: identity::random_name()?, run: None, classes: None },
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
        // However this ends: a panic would wait for the heartbeats for ever.
        let _end = SetOnDrop(&ended);
        let session = Session::start(runtime, &alive)?;
        let roster = Roster::new(experiment.config.clients);
        let mut server = Server {
            experiment,
            options,
            session,
            roster,
            roll: Roll::new(experiment, options.names_dataset, network.classes.clone()),
            looked: None,
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
    })?;
    Network::remove(dir.path())?;
    let options = RunOptions { workers: 1, personal_memory: 0, stop };
    let seconds = dir.seconds();
    dir.finish(experiment, options.workers, seconds)
}

/// How often the server asks who is online while it waits for answers.
const LOOK: Duration = Duration::from_secs(1);

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
    roll: Roll,
    /// When the SuperLink last said which nodes are online.
    looked: Option<Instant>,
    network: Network,
    observer: &'a mut dyn Observer,
    tell: Tell<'a>,
    path: PathBuf,
}

/// One algorithm's federation.
struct Federation {
    strategy: Arc<dyn Strategy>,
    parts: Arc<Parts>,
    plan: Plan,
    coordinator: Coordinator,
    sent: Option<Sent>,
}

/// A base as it was last sent. What a round ends with the next begins with, and it is made into objects once.
struct Sent {
    base: Arc<BaseParams>,
    /// For nodes that read it in one array.
    flat: OnceCell<ArrayRecord>,
    /// For nodes of other programs.
    named: OnceCell<ArrayRecord>,
}

impl Sent {
    fn arrays(&self, flat: bool) -> ArrayRecord {
        match flat {
            true => self.flat.get_or_init(|| ArrayRecord::flat(&self.base)).clone(),
            false => self.named.get_or_init(|| ArrayRecord::of(&self.base)).clone(),
        }
    }
}

impl Federation {
    fn sent(&mut self, base: &Arc<BaseParams>) -> &Sent {
        let same = self.sent.take().filter(|sent| Arc::ptr_eq(&sent.base, base));
        let new = || Sent { base: base.clone(), flat: OnceCell::new(), named: OnceCell::new() };
        self.sent.insert(same.unwrap_or_else(new))
    }
}

impl Server<'_> {
    fn note_run(&mut self) -> Result<(), Error> {
        let run = self.session.run();
        self.network.run = Some((run.id, run.task, run.token.clone()));
        self.network.write(&self.path)
    }

    fn federation(&self, name: &str, dir: &RunDir) -> Result<Federation, Error> {
        let strategy =
            self.experiment.config.method(name).expect("a configuration names algorithms that exist");
        let parts = Arc::new(self.experiment.parts(&*strategy));
        let plan = Plan {
            round_timeout: Some(self.options.round_timeout),
            min_answers: self.options.min_answers,
            ..self.experiment.plan()
        };
        let coordinator = dir.coordinator(self.experiment, &strategy, &parts, plan.clone())?;
        let coordinator = coordinator.on(cores::lend(cores::available()));
        Ok(Federation { strategy, parts, plan, coordinator, sent: None })
    }

    fn rounds(&mut self, dir: &mut RunDir, stop: &AtomicBool) -> Result<(), Error> {
        let names = self.experiment.config.algorithm.iter();
        let mut federations: Vec<Federation> =
            names.map(|name| self.federation(name, dir)).collect::<Result<_, _>>()?;
        // One that a simulation has ended stays ended.
        let over = |f: &Federation| dir.history(f.strategy.name()).map(|history| history.ended.is_some());
        let over: Vec<bool> = federations.iter().map(over).collect::<Result<_, _>>()?;
        let per_round = |f: &Federation| f.plan.participants_per_round();
        let all = federations.iter().map(|f| u64::from(f.plan.rounds) * per_round(f)).sum();
        let done = federations.iter().map(|f| u64::from(f.coordinator.round()) * per_round(f)).sum();
        self.observer.begin(all, done);
        let before = dir.seconds();
        let start = Instant::now();
        for round in 1..=self.experiment.config.rounds {
            for (federation, over) in federations.iter_mut().zip(&over) {
                if federation.coordinator.round() >= round || *over {
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
            dir.write_weights(federation.strategy.name(), federation.coordinator.base(), &federation.parts)?;
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
        let (mut start, mut traffic) = (Instant::now(), Traffic::default());
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped(format!(
                    "interrupted after a checkpoint; the same command goes on with {}",
                    self.path.display()
                )));
            }
            let result =
                self.wait_for_devices(stop).and_then(|()| self.attempt(federation, &mut traffic, stop));
            match result {
                Ok(Attempt::Done(outcome)) => {
                    let (mut record, devices) = records_of(name, &outcome, start.elapsed().as_secs_f64());
                    (record.wire_down, record.wire_up) = (Some(traffic.down), Some(traffic.up));
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
                    (start, traffic) = (Instant::now(), Traffic::default());
                }
                Ok(Attempt::TooFewTests(heard, needed)) => {
                    (self.tell)(&format!(
                        "{name} round {}: {heard} devices were tested, {needed} are needed; the others are asked again",
                        done + 1
                    ));
                    self.session.forget_round();
                    std::thread::sleep(Duration::from_secs(1));
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
                    self.looked = None;
                    federation.coordinator = Coordinator::new(
                        federation.plan.clone(),
                        federation.strategy.clone(),
                        federation.parts.clone(),
                        (*base).clone(),
                        done,
                    )
                    .on(cores::lend(cores::available()));
                    (start, traffic) = (Instant::now(), Traffic::default());
                }
                Err(error) => return Err(error),
            }
        }
    }
}
