//! A server's conversation with its nodes: questions that are out, answers that are arriving.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fedper_core::round::DeviceId;
use fedper_flower::error::FlowerError;
use fedper_flower::message::{Incoming, Outgoing};
use fedper_flower::object::{ObjectId, Objects, Tree};
use fedper_flower::records::{Content, Packed};
use fedper_flower::retry::Polling;
use fedper_flower::runtime::{Run, Runtime};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Query,
    Train,
    Evaluate,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
        }
    }
}

/// A question that is out.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) node: u64,
    pub(super) kind: Kind,
    /// The node's devices that are asked; none for a query.
    pub(super) devices: Vec<DeviceId>,
}

/// What came back.
pub(super) struct Arrived {
    pub(super) question: Question,
    pub(super) result: Result<Content, Refused>,
    /// Bytes of all its objects.
    pub(super) bytes: u64,
}

/// Why there is no content.
pub(super) enum Refused {
    /// The node says so.
    Error(String),
    /// It did not arrive, or not whole: the node is gone, or was killed meanwhile, or took too long.
    Lost(String),
    /// It is not what an answer must be.
    Malformed(String),
}

struct Arriving {
    question: Question,
    until: Instant,
    message: Incoming,
    objects: Objects,
    missing: Vec<ObjectId>,
}

/// Within this time after a question nodes fetch it, and it is left to them.
const FETCHING: Duration = Duration::from_millis(200);

/// So many answers may wait for their confirmation; the SuperLink keeps their objects meanwhile.
const MOST_UNCONFIRMED: usize = 50;

/// A run, and what is under way in it.
pub(super) struct Session<'a> {
    runtime: &'a Runtime,
    run: Run,
    /// The same for the thread that keeps it alive.
    alive: &'a Mutex<Option<Run>>,
    /// By their messages' ids, and until when they are valid.
    questions: BTreeMap<String, (Question, Instant)>,
    arriving: Vec<Arriving>,
    /// The last answer of each kind, from whatever node: what the next has in common with it need not be fetched.
    last: BTreeMap<Kind, (Tree, Objects)>,
    /// Answers that are dealt with, which the SuperLink is told when there is nothing better to do.
    done: Vec<Incoming>,
    polling: Polling,
}

impl<'a> Session<'a> {
    /// Starts a run. It is kept alive as long as it is in `alive`.
    pub(super) fn start(runtime: &'a Runtime, alive: &'a Mutex<Option<Run>>) -> Result<Self, FlowerError> {
        let run = runtime.start()?;
        *alive.lock().expect("no panic while it is held") = Some(run.clone());
        Ok(Self {
            runtime,
            run,
            alive,
            questions: BTreeMap::new(),
            arriving: Vec::new(),
            last: BTreeMap::new(),
            done: Vec::new(),
            polling: Polling::new(Duration::from_secs(1)),
        })
    }

    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// Another run instead of one that the SuperLink has given up. What was under way is lost.
    pub(super) fn restart(&mut self) -> Result<(), FlowerError> {
        *self = Self::start(self.runtime, self.alive)?;
        Ok(())
    }

    pub(super) fn finish(&mut self, status: &str, details: &str) -> Result<(), FlowerError> {
        *self.alive.lock().expect("no panic while it is held") = None;
        self.runtime.finish(&self.run, status, details)
    }

    /// The nodes that are online.
    pub(super) fn nodes(&self) -> Result<BTreeSet<u64>, FlowerError> {
        self.runtime.nodes(&self.run)
    }

    /// Sends a question that is valid for `ttl`; returns the bytes of its objects, or `None` if the node is gone.
    pub(super) fn ask(
        &mut self,
        question: Question,
        round: u32,
        content: &Packed,
        ttl: Duration,
    ) -> Result<Option<u64>, FlowerError> {
        let (kind, group) = (question.kind.name(), round.to_string());
        let metadata = self.runtime.question(&self.run, question.node, kind, &group, ttl.as_secs_f64());
        let message = Outgoing::new(metadata, content);
        if !self.runtime.push(&self.run, &message)? {
            return Ok(None);
        }
        self.questions.insert(message.id().to_owned(), (question, Instant::now() + ttl));
        self.polling.restart();
        Ok(Some(message.total_bytes()))
    }

    /// Whether a node has not said yet what it hosts.
    pub(super) fn is_asking(&self) -> bool {
        let query = |question: &Question| question.kind == Kind::Query;
        self.questions.values().any(|(question, _)| query(question))
            || self.arriving.iter().any(|arriving| query(&arriving.question))
    }

    /// Waits no longer for answers but for those to queries.
    pub(super) fn forget_round(&mut self) {
        self.questions.retain(|_, (question, _)| question.kind == Kind::Query);
        self.arriving.retain(|arriving| arriving.question.kind == Kind::Query);
    }

    /// What has arrived since, of at most `most` bytes each.
    pub(super) fn collect(&mut self, most: u64) -> Result<Vec<Arrived>, FlowerError> {
        let mut arrived = Vec::new();
        if !self.questions.is_empty() {
            let ids = self.questions.keys().cloned().collect();
            let (runtime, run) = (self.runtime, &self.run);
            for (id, message) in self.polling.ask(|| runtime.pull(run, ids))? {
                let Some((question, until)) = self.questions.remove(&id) else { continue };
                self.polling.restart();
                let refused = match message {
                    Ok(message @ Incoming { error: Some(_), .. }) => {
                        let refused = if message.is_lost() { Refused::Lost } else { Refused::Error };
                        refused(message.error.map(|error| error.reason).unwrap_or_default())
                    }
                    Ok(message) => {
                        let mut objects = Objects::default();
                        if let Some((tree, known)) = self.last.get(&question.kind) {
                            objects.derive(&message.tree, tree, known);
                        }
                        let mut missing = message.tree.deepest_first();
                        missing.retain(|&id| objects.bytes(id).is_none());
                        self.arriving.push(Arriving { question, until, message, objects, missing });
                        continue;
                    }
                    Err(error) => Refused::Malformed(error.to_string()),
                };
                arrived.push(Arrived { question, result: Err(refused), bytes: 0 });
            }
        }
        let mut still = Vec::new();
        for mut arriving in std::mem::take(&mut self.arriving) {
            let Arriving { question, until, message, objects, missing } = &mut arriving;
            // Again at once while more of it comes.
            let fetched = loop {
                match self.runtime.fetch(&self.run, missing, objects, most) {
                    Ok(rest) if !rest.is_empty() && rest.len() < missing.len() => *missing = rest,
                    fetched => break fetched,
                }
            };
            let result = match fetched {
                Ok(rest) if rest.is_empty() => {
                    message.content(objects.clone()).map_err(|error| Refused::Malformed(error.to_string()))
                }
                // Its node was killed over it: the SuperLink would wait for the rest a while longer.
                Ok(_) if Instant::now() > *until => Err(Refused::Lost("it did not come whole".into())),
                Ok(_) => {
                    still.push(arriving);
                    continue;
                }
                Err(error @ FlowerError::Malformed(_)) => Err(Refused::Malformed(error.to_string())),
                Err(error @ FlowerError::Gone(_)) => Err(Refused::Lost(error.to_string())),
                Err(error) => return Err(error),
            };
            self.polling.restart();
            let bytes = objects.total_bytes();
            if result.is_ok() {
                let parents = objects.parents(&message.tree);
                self.last.insert(question.kind, (message.tree.clone(), parents));
            }
            arrived.push(Arrived { question: arriving.question, result, bytes });
            self.done.push(arriving.message);
        }
        self.arriving = still;
        if arrived.is_empty() && (self.is_calm() || self.done.len() > MOST_UNCONFIRMED) {
            for message in std::mem::take(&mut self.done) {
                // If that fails, its objects are kept for nothing until the run ends; if the run is lost, the next call says so.
                if self.runtime.confirm(&self.run, &message).is_err() {
                    break;
                }
            }
        }
        Ok(arrived)
    }

    /// Whether answers are waited for, and none is on its way: the time for what is not urgent. Not between rounds, when the
    /// next question comes first, and not while nodes fetch what they were just asked.
    pub(super) fn is_calm(&self) -> bool {
        !self.questions.is_empty() && self.arriving.is_empty() && self.polling.waited() > FETCHING
    }

    /// How long to wait before it is worth while to collect again.
    pub(super) fn pause(&self) -> Duration {
        self.polling.pause()
    }
}
