//! `fedper client`: devices on a SuperLink.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fedper_flower::error::{FlowerError, MayPass};
use fedper_flower::fleet::Fleet;
use fedper_flower::message::{Incoming, Outgoing};
use fedper_flower::object::{Objects, Tree};
use fedper_flower::records::Content;
use fedper_flower::retry::{Backoff, Polling};

use super::host::{Host, Reply};
use super::settings::Own;
use super::store::Store;
use super::{SetOnDrop, Tell};
use crate::error::Error;

/// How a client runs, as opposed to what it trains.
pub struct ClientOptions {
    /// What its devices decide for themselves.
    pub own: Own,
    /// Worker threads.
    pub workers: usize,
    /// Where it keeps what it keeps.
    pub state: PathBuf,
}

/// Answers what is asked until `stop` is set.
///
/// # Errors
/// If the SuperLink refuses this node, or what devices keep cannot be written.
pub fn run(
    fleet: &Fleet,
    store: &Store,
    options: &ClientOptions,
    stop: &AtomicBool,
    tell: Tell<'_>,
) -> Result<(), Error> {
    let node = AtomicU64::new(join(fleet, store, tell)?);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| heartbeats(fleet, &node, &ended));
        // However this ends: a panic would wait for the heartbeats for ever.
        let _end = SetOnDrop(&ended);
        let mut client = Client {
            fleet,
            store,
            host: Host::new(&options.own, store, options.workers, stop, tell),
            state: &options.state,
            node: &node,
            tell,
            last_push: None,
            last: None,
            unconfirmed: None,
            no_part: None,
        };
        let result = client.serve(stop);
        client.confirm();
        // Whoever leaves takes an answer along that was not collected yet.
        if client.last_push.is_none_or(|at| at.elapsed() > PATIENCE) {
            let _ = fleet.leave(node.load(Ordering::Relaxed));
        }
        result
    })
}

/// Becomes a node of the SuperLink.
fn join(fleet: &Fleet, store: &Store, tell: Tell<'_>) -> Result<u64, Error> {
    let (start, mut said) = (Instant::now(), String::new());
    for pause in Backoff::new(Duration::from_millis(500), Duration::from_secs(5)) {
        let known = store.node()?;
        match fleet.join(known) {
            Ok(node) => {
                if known != Some(node) {
                    store.set_node(node)?;
                }
                tell(&format!("node {node} is online"));
                return Ok(node);
            }
            // It is there, and stumbles: a device waits for its SuperLink.
            Err(error) if error.may_pass() != MayPass::Never => {
                let line = format!("{error}; trying again");
                if line != said {
                    tell(&line);
                    said = line;
                }
                wait(fleet, pause)?;
            }
            // Killed before it could note its number: its former self has to go offline first.
            Err(error @ FlowerError::Status { .. }) if start.elapsed() < 3 * fleet.interval() => {
                tell(&format!("{error}; trying again"));
                wait(fleet, pause)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    unreachable!("pauses do not end")
}

fn wait(fleet: &Fleet, pause: Duration) -> Result<(), Error> {
    fleet.link().sleep(pause);
    if fleet.link().is_stopped() { Err(FlowerError::Interrupted.into()) } else { Ok(()) }
}

fn heartbeats(fleet: &Fleet, node: &AtomicU64, ended: &AtomicBool) {
    let mut last = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        if last.elapsed() > fleet.interval() / 2 {
            // What is wrong shows in the next pull.
            let _ = fleet.heartbeat(node.load(Ordering::Relaxed));
            last = Instant::now();
        }
    }
}

struct Client<'a> {
    fleet: &'a Fleet,
    store: &'a Store,
    host: Host<'a>,
    state: &'a Path,
    node: &'a AtomicU64,
    tell: Tell<'a>,
    last_push: Option<Instant>,
    /// The objects of the last message: the base that is evaluated in a round is the one that the next begins with.
    last: Option<(Tree, Objects)>,
    /// The last message. Until it is confirmed the SuperLink keeps its objects too, and the next question need not bring
    /// them again.
    unconfirmed: Option<Incoming>,
    /// Why this node takes no part, as it was told last.
    no_part: Option<String>,
}

/// How long a question is waited for before the SuperLink may forget the objects of the last one.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client<'_> {
    fn serve(&mut self, stop: &AtomicBool) -> Result<(), Error> {
        // What was being answered when the process ended: its objects are still there, because it was not confirmed.
        if let Some(message) = self.store.pending()?.and_then(|bytes| Incoming::from_bytes(&bytes).ok()) {
            if message.has_expired() {
                self.store.set_pending(None)?;
            } else {
                (self.tell)("taking up what was interrupted");
                self.deal_with(message)?;
            }
        }
        let mut polling = Polling::new(Duration::from_secs(3));
        let mut stumbles = false;
        while !stop.load(Ordering::Relaxed) {
            let pulled = polling.ask(|| self.fleet.pull(self.node()));
            stumbles &= pulled.is_err();
            match pulled {
                Ok(Some(message)) => {
                    self.store.set_pending(Some(&message.to_bytes()))?;
                    self.deal_with(message)?;
                    polling.restart();
                }
                Ok(None) => {
                    if self.last_push.is_some_and(|at| at.elapsed() > PATIENCE) {
                        self.confirm();
                    }
                    self.fleet.link().sleep(polling.pause());
                }
                Err(FlowerError::Malformed(error)) => (self.tell)(&format!("a message was refused: {error}")),
                Err(error @ FlowerError::Status { .. }) if error.may_pass() != MayPass::Never => {
                    if !std::mem::replace(&mut stumbles, true) {
                        (self.tell)(&format!("{error}; trying again"));
                    }
                    self.fleet.link().sleep(Duration::from_secs(3));
                }
                Err(error @ FlowerError::Status { .. }) => {
                    (self.tell)(&format!("{error}; joining again"));
                    // Of a message to this node as it was known there is nothing left to confirm.
                    self.unconfirmed = None;
                    self.node.store(join(self.fleet, self.store, self.tell)?, Ordering::Relaxed);
                }
                Err(FlowerError::Interrupted) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn node(&self) -> u64 {
        self.node.load(Ordering::Relaxed)
    }

    /// The last message is dealt with.
    fn confirm(&mut self) {
        if let Some(message) = self.unconfirmed.take() {
            // If that fails, its objects are kept for nothing until its run ends.
            let _ = self.fleet.confirm(self.node(), &message);
        }
    }

    /// Does what is asked; meanwhile the message before it is confirmed.
    fn answer(&mut self, message: &Incoming, content: &Content) -> Result<Reply, Error> {
        let (fleet, node, last) = (self.fleet, self.node(), self.unconfirmed.take());
        std::thread::scope(|scope| {
            // If that fails, its objects are kept for nothing until its run ends.
            scope.spawn(move || last.map(|last| fleet.confirm(node, &last)));
            Ok(self.host.answer(message, content)?)
        })
    }

    /// Answers a message. Only what cannot be kept, and the wish to end, is an error here.
    fn deal_with(&mut self, message: Incoming) -> Result<(), Error> {
        let start = Instant::now();
        let last = self.last.as_ref().map(|(tree, objects)| (tree, objects));
        let reply = match self.fleet.fetch(self.node(), &message, last, self.host.most_bytes()) {
            Ok(objects) => {
                self.last = Some((message.tree.clone(), objects.clone()));
                match message.content(objects) {
                    Ok(content) => self.answer(&message, &content)?,
                    Err(error) => Reply::Refusal(error.to_string()),
                }
            }
            Err(FlowerError::Malformed(error)) => Reply::Refusal(error.to_string()),
            Err(FlowerError::Interrupted) => return Err(FlowerError::Interrupted.into()),
            Err(error) => {
                // The run is over, or the message has expired: nobody waits for an answer.
                (self.tell)(&format!("{} dropped: {error}", message.metadata.message_type));
                self.confirm();
                return Ok(self.store.set_pending(None)?);
            }
        };
        let metadata = message.answer(self.node());
        let answer = match &reply {
            Reply::Content(content) => Outgoing::new(metadata, &content.pack()),
            Reply::NoPart(content, reason) => {
                if self.no_part.as_ref() != Some(reason) {
                    (self.tell)(&format!("this node takes no part: {reason}"));
                    self.no_part = Some(reason.clone());
                }
                Outgoing::new(metadata, &content.pack())
            }
            Reply::Refusal(reason) => {
                (self.tell)(&format!("{} refused: {reason}", message.metadata.message_type));
                Outgoing::error(metadata, reason)
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        match self.fleet.push(self.node(), &answer, seconds) {
            Ok(true) => {
                if matches!(reply, Reply::Content(_)) {
                    self.no_part = None;
                    let kind = &message.metadata.message_type;
                    (self.tell)(&format!(
                        "{kind} answered after {seconds:.2} s, {} bytes",
                        answer.total_bytes()
                    ));
                }
            }
            Ok(false) => (self.tell)("the answer came too late"),
            Err(FlowerError::Interrupted) => return Err(FlowerError::Interrupted.into()),
            Err(error) => (self.tell)(&format!("the answer could not be sent: {error}")),
        }
        self.confirm();
        self.last_push = Some(Instant::now());
        // From here on there is nothing to take up.
        self.store.set_pending(None)?;
        self.unconfirmed = Some(message);
        // Nobody waits for this device now.
        self.host.keep_network(self.state)?;
        Ok(())
    }
}
