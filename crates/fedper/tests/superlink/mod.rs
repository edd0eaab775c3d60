//! A SuperLink in memory, so that a server and its clients can be run and overheard inside a test.
//!
//! It keeps messages and objects until they are fetched, as Flower's does, and knows neither time nor keys: what depends on
//! those is tested on a real one (`tests/flower`).
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fedper::config::Settings;
use fedper::experiment::Experiment;
use fedper::network::Error;
use fedper::network::answer::Limits;
use fedper::network::client::{self, ClientOptions};
use fedper::network::limits::DeviceLimits;
use fedper::network::server::{self, ServerOptions};
use fedper::network::settings::Own;
use fedper::network::store::Store;
use fedper::rundir::RunDir;
use fedper::rundir::records::Summary;
use fedper_flower::error::FlowerError;
use fedper_flower::fleet::Fleet;
use fedper_flower::identity::Identity;
use fedper_flower::proto::{self, Message, ObjectTree};
use fedper_flower::retry::Link;
use fedper_flower::runtime::Runtime;
use fedper_flower::transport::{Call, Reply, Transport};
use prost::Message as _;

use crate::common::{Silent, settings};

/// Everything that is with the SuperLink.
#[derive(Default)]
struct State {
    keys: Vec<Vec<u8>>,
    online: BTreeSet<u64>,
    /// Questions by node.
    questions: BTreeMap<u64, VecDeque<(Message, ObjectTree)>>,
    /// By the question that they answer.
    answers: BTreeMap<String, (Message, ObjectTree)>,
    objects: BTreeMap<String, Vec<u8>>,
    /// Started, and not driven by anybody yet.
    waiting: bool,
    runs: u64,
    /// All bodies that came in or went out.
    traffic: Vec<Vec<u8>>,
    lost: Option<Lost>,
}

/// A message of a training that a SuperLink loses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lost {
    /// To this client in this round, so that it never hears of it.
    Question(u64, u32),
    /// From this client in this round, so that it trains, and does not count.
    Answer(u64, u32),
}

impl Lost {
    fn is(self, metadata: &proto::Metadata) -> bool {
        let (node, (client, round)) = match self {
            Self::Question(client, round) => (metadata.dst_node_id, (client, round)),
            Self::Answer(client, round) => (metadata.src_node_id, (client, round)),
        };
        let is_training = metadata.message_type.starts_with("train");
        is_training && node == FIRST_NODE + client && metadata.group_id == round.to_string()
    }
}

/// The SuperLink; clones are the same one.
#[derive(Clone, Default)]
pub struct SuperLink(Arc<Mutex<State>>);

impl SuperLink {
    fn link(&self, stop: &Arc<AtomicBool>) -> Link {
        Link::new(Box::new(self.clone()), Duration::from_secs(5), stop.clone())
    }

    /// What all calls carried in both directions.
    pub fn traffic(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().traffic.clone()
    }
}

impl Transport for SuperLink {
    fn call(&self, call: Call<'_>) -> Result<Reply, FlowerError> {
        let mut state = self.0.lock().unwrap();
        let body = state.answer(call.path, call.body);
        state.traffic.extend([call.body.to_vec(), body.clone()]);
        Ok(Reply { status: 200, body })
    }
}

fn read<T: proto::Body>(body: &[u8]) -> T {
    T::decode(body).unwrap()
}

/// The ids of a tree, the root's first.
fn ids(tree: &ObjectTree) -> Vec<String> {
    let below = tree.children.iter().flat_map(ids);
    std::iter::once(tree.object_id.clone()).chain(below).collect()
}

/// Node 1 is the SuperLink itself.
const FIRST_NODE: u64 = 2;

impl State {
    fn node_of(&mut self, key: Vec<u8>) -> proto::NodeId {
        let known = self.keys.iter().position(|other| *other == key);
        let place = known.unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        });
        proto::NodeId { node_id: FIRST_NODE + place as u64 }
    }

    fn missing(&self, trees: &[ObjectTree]) -> Vec<String> {
        trees.iter().flat_map(ids).filter(|id| !self.objects.contains_key(id)).collect()
    }

    fn answer(&mut self, path: &str, body: &[u8]) -> Vec<u8> {
        let task = || Some(proto::Task { task_id: 1, run_id: 1, fab_hash: None });
        match path {
            "fleet/register-node" => {
                self.node_of(read::<proto::RegisterNodeRequest>(body).public_key).encode_to_vec()
            }
            "fleet/activate-node" => {
                let node = self.node_of(read::<proto::ActivateNodeRequest>(body).public_key);
                self.online.insert(node.node_id);
                node.encode_to_vec()
            }
            "fleet/deactivate-node" => {
                self.online.remove(&read::<proto::NodeId>(body).node_id);
                Vec::new()
            }
            "fleet/pull-messages" => {
                let node = read::<proto::PullMessagesRequest>(body).node.unwrap().node_id;
                let next = self.questions.get_mut(&node).and_then(VecDeque::pop_front);
                let (messages_list, message_object_trees) = next.into_iter().unzip();
                proto::PullMessagesResponse { messages_list, message_object_trees }.encode_to_vec()
            }
            "fleet/push-messages" => {
                let pushed: proto::PushMessagesRequest = read(body);
                let objects_to_push = self.missing(&pushed.message_object_trees);
                for (message, tree) in pushed.messages_list.into_iter().zip(pushed.message_object_trees) {
                    let metadata = message.metadata.as_ref().unwrap();
                    if self.lost.is_none_or(|lost| !lost.is(metadata)) {
                        self.answers.insert(metadata.reply_to_message_id.clone(), (message, tree));
                    }
                }
                proto::PushMessagesResponse { objects_to_push, ..Default::default() }.encode_to_vec()
            }
            "runtime/push-messages" => {
                let pushed: proto::PushAppMessagesRequest = read(body);
                let objects_to_push = self.missing(&pushed.message_object_trees);
                let mut message_ids = Vec::new();
                for (message, tree) in pushed.messages_list.into_iter().zip(pushed.message_object_trees) {
                    let metadata = message.metadata.as_ref().unwrap();
                    message_ids.push(metadata.message_id.clone());
                    if self.lost.is_none_or(|lost| !lost.is(metadata)) {
                        self.questions.entry(metadata.dst_node_id).or_default().push_back((message, tree));
                    }
                }
                let answer =
                    proto::PushAppMessagesResponse { message_ids, objects_to_push, ..Default::default() };
                answer.encode_to_vec()
            }
            "runtime/pull-messages" => {
                let asked: proto::PullAppMessagesRequest = read(body);
                let answers = asked.message_ids.iter().filter_map(|id| self.answers.remove(id));
                let (messages_list, message_object_trees) = answers.unzip();
                proto::PullAppMessagesResponse { messages_list, message_object_trees }.encode_to_vec()
            }
            "fleet/push-object" | "runtime/push-object" => {
                let object: proto::PushObjectRequest = read(body);
                self.objects.insert(object.object_id, object.object_content);
                proto::PushObjectResponse { stored: true }.encode_to_vec()
            }
            "fleet/pull-object" | "runtime/pull-object" => {
                let content = self.objects.get(&read::<proto::PullObjectRequest>(body).object_id).cloned();
                let (object_available, object_content) = (content.is_some(), content.unwrap_or_default());
                let answer =
                    proto::PullObjectResponse { object_found: true, object_available, object_content };
                answer.encode_to_vec()
            }
            "control/start-run" => {
                self.runs += 1;
                self.waiting = true;
                proto::StartRunResponse { run_id: Some(self.runs), note: None }.encode_to_vec()
            }
            "runtime/acquire-task" => {
                let task = std::mem::take(&mut self.waiting).then(task).flatten();
                proto::AcquireTaskResponse { token: "token".into(), task }.encode_to_vec()
            }
            "runtime/get-nodes" => {
                let nodes = self.online.iter().map(|&node_id| proto::NodeInfo { node_id }).collect();
                proto::GetNodesResponse { nodes }.encode_to_vec()
            }
            "fleet/send-node-heartbeat" | "runtime/send-task-heartbeat" => {
                proto::Success { success: true }.encode_to_vec()
            }
            "fleet/confirm-message-received"
            | "runtime/confirm-message-received"
            | "runtime/pull-task-input"
            | "runtime/push-task-output" => Vec::new(),
            other => panic!("the SuperLink in memory does not know {other}"),
        }
    }
}

/// A federation whose server and clients are threads of this process.
pub struct Deployed {
    /// What came of it.
    pub summary: Result<Summary, Error>,
    /// What all calls carried.
    pub traffic: Vec<Vec<u8>>,
    /// What the server said, line by line.
    pub said: Vec<String>,
}

/// How a server drives it unless a test says otherwise.
pub fn options() -> ServerOptions {
    ServerOptions {
        min_devices: None,
        names_dataset: true,
        min_answers: 1,
        round_timeout: Duration::from_secs(60),
        limits: Limits::default(),
        workers: 2,
    }
}

/// Runs a configuration (TOML) into `dir`, a client each for `hosted` devices; what they keep is in `states`.
pub fn deployed(text: &str, dir: &Path, states: &Path, hosted: &[RangeInclusive<u64>]) -> Deployed {
    deployed_with(text, dir, states, hosted, &options())
}

/// The same with another server.
pub fn deployed_with(
    text: &str,
    dir: &Path,
    states: &Path,
    hosted: &[RangeInclusive<u64>],
    options: &ServerOptions,
) -> Deployed {
    deployed_losing(text, dir, states, hosted, options, None)
}

/// The same where the SuperLink loses a message.
pub fn deployed_losing(
    text: &str,
    dir: &Path,
    states: &Path,
    hosted: &[RangeInclusive<u64>],
    options: &ServerOptions,
    lost: Option<Lost>,
) -> Deployed {
    let superlink = SuperLink(Arc::new(Mutex::new(State { lost, ..State::default() })));
    let (ended, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let said = Mutex::new(Vec::new());
    let experiment = Experiment::prepare(&settings(text)).unwrap();
    let summary = std::thread::scope(|scope| {
        for (number, devices) in hosted.iter().enumerate() {
            let (link, ended) = (superlink.clone(), ended.clone());
            let own = Own {
                devices: Some(devices.clone()),
                of: None,
                dataset: None,
                data_dir: None,
                own_data: false,
                skip_broken: false,
                init: None,
                fallback: Settings::default(),
                limits: DeviceLimits::default(),
            };
            let state = states.join(format!("client-{number}"));
            scope.spawn(move || {
                let store = Store::open(&state).unwrap();
                let identity = Identity::generate().unwrap();
                let fleet = Fleet::new(link.link(&ended), identity, Duration::from_secs(30));
                let options = ClientOptions { own, workers: 1, state };
                client::run(&fleet, &store, &options, &ended, &|_: &str| {})
            });
            // Nodes are numbered as they come.
            while superlink.0.lock().unwrap().online.len() <= number {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let runtime = Runtime::new(superlink.link(&stop), None);
        let tell = |line: &str| said.lock().unwrap().push(line.to_owned());
        // However this ends, the clients do.
        let _end = End(&ended);
        let mut run_dir = match dir.join("config.toml").is_file() {
            true => RunDir::resume(dir, &experiment).unwrap(),
            false => RunDir::create(dir, &experiment).unwrap(),
        };
        server::run(&runtime, &experiment, &mut run_dir, options, &mut Silent, &stop, &tell)
    });
    Deployed { summary, traffic: superlink.traffic(), said: said.into_inner().unwrap() }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
