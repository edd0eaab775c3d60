//! `fedper server`: the rounds of a run whose devices are on a SuperLink.

mod attempt;
mod counted;
mod resume;
mod roll;
mod round;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedper_core::coordinator::Plan;
use fedper_core::split::Shared;
use fedper_flower::identity;
use fedper_flower::records::ArrayRecord;
use fedper_flower::runtime::{Run, Runtime};

use self::counted::Counted;
use self::resume::Network;
use self::roll::Roll;
use super::answer::Limits;
use super::roster::Roster;
use super::session::Session;
use super::{SetOnDrop, Tell};
use crate::error::Error;
use fedper_run::campaign::{Campaign, Observer, RunOptions};
use fedper_run::experiment::Experiment;
use fedper_run::rundir::RunDir;
use fedper_run::rundir::records::Summary;

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
    /// How many threads average.
    pub workers: usize,
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
    let plan = Plan {
        round_timeout: Some(options.round_timeout),
        min_answers: options.min_answers,
        ..experiment.plan()
    };
    let run_options = RunOptions { workers: options.workers, personal_memory: 0, stop };
    let counted = Counted::read(dir, plan.devices)?;
    let mut campaign = Campaign::restore(experiment, &plan, dir, &run_options)?;
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
            sent: BTreeMap::new(),
            counted,
            stop,
            tell,
            path: dir.path().to_owned(),
        };
        server.note_run()?;
        let result =
            campaign.rounds(&mut server, dir, observer).and_then(|()| Ok(campaign.write_weights(dir)?));
        let _ = match &result {
            Ok(_) => server.session.finish("completed", ""),
            Err(error) => server.session.finish("failed", &error.to_string()),
        };
        result
    })?;
    Network::remove(dir.path())?;
    Ok(campaign.finish(dir)?)
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
    /// What each algorithm's devices were sent last.
    sent: BTreeMap<&'static str, Sent>,
    counted: Counted,
    stop: &'a AtomicBool,
    tell: Tell<'a>,
    path: PathBuf,
}

/// A base as it was last sent. What a round ends with the next begins with, and it is made into objects once.
struct Sent {
    base: Arc<Shared>,
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

impl Server<'_> {
    fn note_run(&mut self) -> Result<(), Error> {
        let run = self.session.run();
        self.network.run = Some((run.id, run.task, run.token.clone()));
        Ok(self.network.write(&self.path)?)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// `base` as `algorithm` sends it.
    fn sent(&mut self, algorithm: &'static str, base: &Arc<Shared>) -> &Sent {
        let same = self.sent.remove(algorithm).filter(|sent| Arc::ptr_eq(&sent.base, base));
        let new = || Sent { base: base.clone(), flat: OnceCell::new(), named: OnceCell::new() };
        self.sent.entry(algorithm).or_insert(same.unwrap_or_else(new))
    }
}
