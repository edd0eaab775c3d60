//! Nodes that do what they should not: each is refused, by name and reason, and the result is as if it had not answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, SystemTime};

use fedper_core::params::{Layout, Params, Spec};
use fedper_core::parts::Parts;
use fedper_core::split::Split;
use fedper_flower::error::FlowerError;
use fedper_flower::fleet::Fleet;
use fedper_flower::identity::Identity;
use fedper_flower::message::{Incoming, Outgoing};
use fedper_flower::object::{Kind, ObjectId, Objects, Tree};
use fedper_flower::proto;
use fedper_flower::records::{ArrayRecord, Content, Packed, Values};
use fedper_flower::retry::Link;
use fedper_flower::runtime::Runtime;
use fedper_flower::transport::Http;

use crate::common::assert_same;
use crate::support::{Place, distance, free_port, lines, shared_results, simulated, url, venv, weights};

const CONFIG: &str = "model = 'mlp'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 20\nbatch_size = 10\n\
                      personal_layers = 1\nlr = 0.01\nalgorithm = ['fedper']\neval_every = 100\n";

/// What the third node does in a round, and what the server says of it; nothing where its first answer counts.
const FAULTS: [(&str, &str); 14] = [
    ("error", "device 2: I will not"),
    ("silent", "device 2: no answer in 10 s"),
    ("late", "device 2: no answer in 10 s"),
    ("nan", "holds a value that is not finite"),
    ("shapes", "has shape"),
    ("missing", "is missing"),
    ("unknown", "is not a part of the base"),
    ("truncated", "bytes of values, expected"),
    ("hash", "device 2: "),
    ("twice", ""),
    ("zero", "0 samples, where 1 to"),
    ("plenty", "1000000000000 samples, where 1 to"),
    ("norm", "more than 1000 (--max-update-norm)"),
    ("strangers", "names other devices than were asked"),
];

/// The base's parameters in the experiment of [`CONFIG`].
fn base_specs() -> Vec<Spec> {
    let settings = crate::common::settings(CONFIG);
    let experiment = fedper::experiment::Experiment::prepare(&settings).unwrap();
    let parts = experiment.parts(&fedper_core::strategy::FedPer);
    parts.down.layout().specs().to_vec()
}

fn base(specs: Vec<Spec>, value: f32) -> ArrayRecord {
    let layout = Layout::new(specs).unwrap();
    let mut params = Params::zeros(layout.clone());
    params.values_mut().fill(value);
    ArrayRecord::of(&Parts::of(Split::all_base(&layout)).adopt_state(params).unwrap())
}

/// A base of one parameter whose bytes are `npy`.
fn raw(specs: &[Spec], npy: &dyn Fn(&Spec) -> Vec<u8>) -> Packed {
    let mut objects = Objects::default();
    let (mut names, mut trees) = (BTreeMap::new(), Vec::new());
    for spec in specs {
        let chunk = objects.make(Kind::ArrayChunk, &[], &npy(spec));
        let about = serde_json::json!({
            "dtype": "float32", "shape": spec.shape, "stype": "numpy.ndarray", "arraychunk_ids": [0],
        });
        let array = objects.make(Kind::Array, &[chunk], about.to_string().as_bytes());
        names.insert(spec.name.clone(), array.to_string());
        trees.push(Tree { id: array, children: vec![Tree::leaf(chunk)] });
    }
    let mut metrics = Values::default();
    metrics.set_int("num-examples", 20);
    let small = Content { metrics: Some(metrics), ..Content::default() }.pack();
    let metrics = small.tree.children[0].clone();
    let ids: Vec<ObjectId> = trees.iter().map(|tree| tree.id).collect();
    let record = objects.make(Kind::ArrayRecord, &ids, serde_json::to_string(&names).unwrap().as_bytes());
    objects.extend(small.objects);
    let dict = serde_json::json!({ "arrays": record.to_string(), "metrics": metrics.id.to_string() });
    let dict = objects.make(Kind::RecordDict, &[record, metrics.id], dict.to_string().as_bytes());
    let record = Tree { id: record, children: trees };
    Packed { tree: Tree { id: dict, children: vec![record, metrics] }, objects }
}

/// A node that hosts device 2 and does in each round what `script` says.
fn misbehave(url: String, script: Vec<&'static str>, specs: Vec<Spec>) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let stop = Arc::new(AtomicBool::new(false));
    let link = |patience| {
        let http = Http::new(&url, None).unwrap();
        Link::new(Box::new(http), Duration::from_secs(patience), stop.clone())
    };
    let identity = Identity::generate().unwrap();
    let raw = Raw { link: link(0), identity: Identity::from_pem(&identity.to_pem().unwrap()).unwrap() };
    let fleet = Fleet::new(link(9), identity, Duration::from_secs(300));
    let thread = std::thread::spawn(move || {
        let node = fleet.join(None).unwrap();
        let mut late: Vec<Outgoing> = Vec::new();
        let (mut queries, mut tests) = (0, 0);
        while !fleet.link().is_stopped() {
            let Ok(Some(message)) = fleet.pull(node) else {
                sleep(Duration::from_millis(20));
                continue;
            };
            let Ok(objects) = fleet.fetch(node, &message, None, 1 << 30) else { continue };
            let content = message.content(objects).unwrap();
            let answer = |packed: &Packed| Outgoing::new(message.answer(node), packed);
            if message.metadata.message_type == "query" {
                let mut metrics = Values::default();
                metrics.set_ints("device-ids", vec![2]);
                let packed = Content { metrics: Some(metrics), ..Content::default() }.pack();
                queries += 1;
                // As if it had been killed over its first answer: the rest never comes, and it is asked again.
                if queries == 1 {
                    raw.announce(node, &message, &packed);
                    continue;
                }
                fleet.push(node, &answer(&packed), 0.0).unwrap();
                continue;
            }
            // Whatever was held back comes now, a round too late.
            for late in late.drain(..) {
                let _ = fleet.push(node, &late, 0.0);
            }
            let round = content.config.as_ref().unwrap().int("server-round").unwrap() as usize;
            let fault = script[round - 1];
            if (message.metadata.message_type.as_str(), fault) == ("evaluate", "unheard") {
                tests += 1;
                let mut metrics = Values::default();
                metrics.set_int("num-examples", 4);
                metrics.set_float("accuracy", 0.75);
                let packed = Content { metrics: Some(metrics), ..Content::default() }.pack();
                // As if it had been killed over the first one.
                if tests > 1 {
                    fleet.push(node, &answer(&packed), 0.0).unwrap();
                }
                continue;
            }
            act(&fleet, &raw, node, &message, fault, &specs, &mut late);
        }
    });
    (stop, thread)
}

/// The node's own calls, for what [`Fleet`] would not do.
struct Raw {
    link: Link,
    identity: Identity,
}

impl Raw {
    fn call<R: proto::Body>(&self, path: &str, request: &impl prost::Message) -> Result<R, FlowerError> {
        self.link.call(path, &|| self.identity.headers(SystemTime::now()).to_vec(), request)
    }

    /// Announces an answer, and delivers nothing of it.
    fn announce(&self, node: u64, message: &Incoming, packed: &Packed) -> proto::PushMessagesResponse {
        let mut metadata = message.answer(node);
        let body = proto::Message { metadata: Some(metadata.clone()), content: None, error: None };
        let mut objects = packed.objects.clone();
        let id = objects.make(Kind::Message, &[packed.tree.id], &proto::encode(&body));
        metadata.message_id = id.to_string();
        let message =
            proto::Message { metadata: Some(metadata), content: Some(proto::Empty {}), error: None };
        let request = proto::PushMessagesRequest {
            node: Some(proto::Node { node_id: node }),
            messages_list: vec![message],
            message_object_trees: vec![proto::ObjectTree {
                object_id: id.to_string(),
                children: vec![announced(&packed.tree)],
            }],
            clientapp_runtime_list: vec![0.0],
        };
        self.call("fleet/push-messages", &request).unwrap()
    }

    /// Announces an answer, and delivers other bytes under its objects' names.
    fn deliver_something_else(&self, node: u64, message: &Incoming, packed: &Packed) {
        let pushed = self.announce(node, message, packed);
        for id in pushed.objects_to_push {
            let request = proto::PushObjectRequest {
                node: Some(proto::Node { node_id: node }),
                run_id: message.metadata.run_id,
                object_id: id,
                object_content: b"ArrayChunk  3\0abc".to_vec(),
                session_id: pushed.session_id.clone(),
            };
            let stored: Result<proto::PushObjectResponse, _> = self.call("fleet/push-object", &request);
            assert!(stored.is_err() || !stored.unwrap().stored, "a wrong hash was taken");
        }
    }
}

fn announced(tree: &Tree) -> proto::ObjectTree {
    proto::ObjectTree {
        object_id: tree.id.to_string(),
        children: tree.children.iter().map(announced).collect(),
    }
}

fn act(
    fleet: &Fleet,
    own: &Raw,
    node: u64,
    message: &Incoming,
    fault: &str,
    specs: &[Spec],
    late: &mut Vec<Outgoing>,
) {
    let push = |packed: &Packed| {
        // What the SuperLink itself refuses is refused too.
        let _ = fleet.push(node, &Outgoing::new(message.answer(node), packed), 0.0);
    };
    let trained = |arrays: ArrayRecord, samples: i64, devices: Option<Vec<i64>>| {
        let mut metrics = Values::default();
        metrics.set_int("num-examples", samples);
        if let Some(devices) = devices {
            metrics.set_ints("device-ids", devices);
        }
        Content { arrays: Some(arrays), metrics: Some(metrics), config: None }.pack()
    };
    let good = || base(specs.to_vec(), 0.125);
    let mut other = specs.to_vec();
    match fault {
        "error" => {
            let _ = fleet.push(node, &Outgoing::error(message.answer(node), "I will not"), 0.0);
        }
        "silent" => {}
        "late" => late.push(Outgoing::new(message.answer(node), &trained(good(), 20, None))),
        "nan" => push(&trained(base(other, f32::NAN), 20, None)),
        "shapes" => {
            other[0].shape.push(1);
            push(&trained(base(other, 0.0), 20, None));
        }
        "missing" => {
            other.pop();
            push(&trained(base(other, 0.0), 20, None));
        }
        "unknown" => {
            other.push(Spec::trainable("extra", [1]));
            push(&trained(base(other, 0.0), 20, None));
        }
        "truncated" => push(&raw(specs, &|spec| {
            let mut bytes = fedper_flower::npy::write(&spec.shape, &vec![0.0; spec.numel()]);
            bytes.pop();
            bytes
        })),
        // The SuperLink checks the hash of what it is given, and nothing arrives.
        "hash" => own.deliver_something_else(node, message, &trained(base(other, 0.5), 20, None)),
        "twice" => {
            push(&trained(good(), 20, None));
            push(&trained(base(other, 100.0), 20, None));
        }
        "good" | "unheard" => push(&trained(good(), 20, None)),
        "zero" => push(&trained(good(), 0, None)),
        "plenty" => push(&trained(good(), 1_000_000_000_000, None)),
        "norm" => push(&trained(base(other, 1e6), 20, None)),
        "strangers" => push(&trained(good(), 20, Some(vec![1]))),
        other => panic!("no fault `{other}`"),
    }
}

/// Runs a federation of two good devices and one that follows `script`; returns the final base and the server's log.
fn run(place: &Place, name: &str, script: Vec<&'static str>, specs: &[Spec]) -> (Params, String) {
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let _clients = [0, 1].map(|device| {
        let device = device.to_string();
        place.client(&format!("{name}-client-{device}"), &url(port), &["--device", &device])
    });
    let rounds = script.len();
    let (stop, thread) = misbehave(url(port), script, specs.to_vec());
    let config = format!("{CONFIG}rounds = {rounds}");
    let args = ["--round-timeout", "10", "--max-update-norm", "1000", "--min-answers", "2"];
    let mut server = place.server(name, &url(port), &config, &args);
    place.expect_success(name, &mut server, Duration::from_secs(300));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
    for (i, round) in lines(&place.path(name), "rounds.jsonl").iter().enumerate() {
        let answers = if FAULTS[i].1.is_empty() { 3 } else { 2 };
        assert_eq!(
            (&round["devices"], &round["failed"]),
            (&answers.into(), &(3 - answers).into()),
            "{round}"
        );
    }
    (weights(&place.path(name).join("weights/fedper/base.safetensors")), place.log(&format!("{name}-server")))
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn every_fault_is_refused_and_harms_nothing() {
    let place = Place::new(venv());
    let specs = &base_specs()[..];
    // The same federation where the third node says that it will not, or answers once.
    let honest = FAULTS.iter().map(|fault| if fault.1.is_empty() { "good" } else { "error" });
    let (good, _) = run(&place, "absent", honest.collect(), specs);
    let (base, log) = run(&place, "faulty", FAULTS.iter().map(|fault| fault.0).collect(), specs);
    assert_eq!(distance(&good, &base), 0.0, "a refused answer has changed the base\n{log}");
    for (i, (fault, expected)) in FAULTS.iter().enumerate().filter(|(_, fault)| !fault.1.is_empty()) {
        let round = format!("round {}: device 2: ", i + 1);
        let line = log.lines().find(|line| line.contains(&round));
        let line = line.unwrap_or_else(|| panic!("nothing is said of `{fault}`\n{log}"));
        // Of a question that nobody answers the SuperLink may say first that it has expired.
        let expired = expected.contains("no answer") && line.contains("Message Unavailable");
        assert!(expired || line.contains(expected), "`{fault}`: {line}");
        println!("{fault}: {line}");
    }
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn a_device_that_is_not_heard_in_an_evaluation_is_asked_again() {
    let place = Place::new(venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let _clients = [0, 1].map(|device| {
        let device = device.to_string();
        place.client(&format!("client-{device}"), &url(port), &["--device", &device])
    });
    let (stop, thread) = misbehave(url(port), vec!["unheard"], base_specs());
    let args = ["--round-timeout", "5", "--min-answers", "3"];
    let mut server = place.server("run", &url(port), &format!("{CONFIG}rounds = 1"), &args);
    place.expect_success("run", &mut server, Duration::from_secs(100));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();
    let log = place.log("run-server");
    assert!(log.contains("2 devices were tested, 3 are needed; the others are asked again"), "{log}");
    let rounds = lines(&place.path("run"), "rounds.jsonl");
    assert_eq!((rounds.len(), &rounds[0]["devices"], &rounds[0]["failed"]), (1, &3.into(), &0.into()));
    let devices = lines(&place.path("run"), "devices.jsonl");
    assert_eq!(devices.len(), 3, "{devices:?}");
    assert_eq!(devices[2]["accuracy"], 0.75);
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn a_flood_of_unknown_messages_changes_nothing() {
    let place = Place::new(venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let config = format!("{CONFIG}rounds = 2");
    let _clients = [0, 1, 2].map(|device| {
        let device = device.to_string();
        place.client(&format!("client-{device}"), &url(port), &["--device", &device])
    });
    let link = Link::new(
        Box::new(Http::new(&url(port), None).unwrap()),
        Duration::from_secs(60),
        Arc::new(AtomicBool::new(false)),
    );
    let runtime = Runtime::new(link, None);
    let run = runtime.start().unwrap();
    let nodes = loop {
        let nodes = runtime.nodes(&run).unwrap();
        if nodes.len() == 3 {
            break nodes;
        }
        sleep(Duration::from_millis(50));
    };
    let mut asked = Vec::new();
    for i in 0..20 {
        for &node in &nodes {
            let kind = ["train", "evaluate", "query.what", "system"][i % 4];
            let metadata = runtime.question(&run, node, kind, "x", 60.0);
            // Empty, without settings, without arrays, with settings that are none.
            let mut config = Values::default();
            config.set_text("fedper-config", "]");
            config.set_int("server-round", i as i64 - 3);
            let content = Content { config: (i % 3 > 0).then_some(config), ..Content::default() };
            let question = Outgoing::new(metadata, &content.pack());
            assert!(runtime.push(&run, &question).unwrap());
            asked.push(question.id().to_owned());
        }
    }
    let (mut refused, mut answered) = (0, 0);
    while !asked.is_empty() {
        for (id, answer) in runtime.pull(&run, asked.clone()).unwrap() {
            asked.retain(|asked| *asked != id);
            match answer.unwrap().error {
                Some(error) => {
                    assert_eq!(error.code, fedper_flower::message::APP_FAILED, "{}", error.reason);
                    refused += 1;
                }
                None => answered += 1,
            }
        }
        sleep(Duration::from_millis(50));
    }
    runtime.finish(&run, "completed", "").unwrap();
    // Only queries are answered: the others name no round, or settings that cannot be read.
    assert_eq!((refused, answered), (45, 15));
    simulated(&config, &place.path("simulated"));
    let mut server = place.server("deployed", &url(port), &config, &[]);
    place.expect_success("deployed", &mut server, Duration::from_secs(120));
    assert_same(&shared_results(&place.path("deployed")), &shared_results(&place.path("simulated")));
}
