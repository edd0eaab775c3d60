//! A server with its clients against the simulator: what is configured means the same in both.

mod common;
mod superlink;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use common::{assert_same, every_method, fedper, results, stderr, text, weights};
use fedper::network::server::ServerOptions;
use fedper::network::store::{Scope, Store};
use fedper::rundir::RunDir;
use fedper::rundir::records::RoundRecord;
use fedper_core::round::DeviceId;
use fedper_core::strategy::METHODS;
use superlink::{Deployed, Lost, deployed, deployed_losing};

const CONFIG: &str = "model = 'mlp'\nclients = 4\nsamples_per_client = 20\nbatch_size = 10\nclasses_per_client = 3\n\
                      personal_layers = 1\nlr = 0.05\n";

/// What of a run does not depend on how it was run: not times, bytes on the wire, and what stays on devices.
fn shared(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = results(dir);
    let rounds = String::from_utf8(out["rounds"].clone()).unwrap();
    let bare = |line: &str| {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().retain(|key, _| !key.starts_with("wire_"));
        record.to_string()
    };
    out.insert("rounds".into(), rounds.lines().map(bare).collect::<Vec<_>>().join("\n").into_bytes());
    out.retain(|name, _| !name.contains("/device-"));
    out
}

/// Runs the same on four clients and in the simulator, and compares them; returns the first.
fn as_simulated(config: &str, place: &Path) -> (Deployed, Vec<RoundRecord>) {
    let (simulated, there) = (place.join("simulated"), place.join("deployed"));
    common::run(config, &simulated, 2);
    let run = deployed(config, &there, &place.join("states"), &[0..=0, 1..=1, 2..=2, 3..=3]);
    assert!(run.summary.is_ok(), "{:?}\n{:?}", run.summary, run.said);
    assert_same(&shared(&simulated), &shared(&there));
    let rounds = RunDir::rounds(&there).unwrap();
    assert!(rounds.iter().all(|round| round.wire_down > Some(round.bytes_down)));
    assert!(RunDir::rounds(&simulated).unwrap().iter().all(|round| round.wire_down.is_none()));
    (run, rounds)
}

#[test]
fn a_flat_curve_ends_an_algorithm() {
    let dir = tempfile::tempdir().unwrap();
    // At this rate nothing is learned, so nothing gets better.
    let config =
        format!("{CONFIG}algorithm = ['fedper', 'fedavg']\nrounds = 9\neval_every = 1\npatience = 2\n");
    let (run, rounds) = as_simulated(&config.replace("lr = 0.05", "lr = 1e-9"), dir.path());
    let summary = run.summary.unwrap();
    assert!(summary.complete && summary.algorithms.values().all(|a| a.stopped_early && a.rounds == 3));
    assert_eq!(rounds.len(), 6);
}

#[test]
fn failures_and_samples_of_devices_are_drawn_alike() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "{CONFIG}algorithm = ['fedper']\nrounds = 5\neval_every = 2\nparticipation = 0.5\neval_devices = 2\n\
         failure_rate = 0.6\nseed = 3\n"
    );
    let (run, rounds) = as_simulated(&config, dir.path());
    let answered: Vec<u32> = rounds.iter().map(|round| round.devices).collect();
    assert!(answered.contains(&0) && answered.contains(&1), "another seed: {answered:?}");
    // Nobody is asked again for what was drawn.
    assert!(!run.said.iter().any(|line| line.contains("begun again")), "{:?}", run.said);
    assert_eq!(run.summary.unwrap().algorithms["fedper"].devices.len(), 2);
}

#[test]
fn every_method_is_the_simulators_bit_for_bit() {
    for (model, more) in
        [("mlp", "participation = 0.6\nfailure_rate = 0.2\nrounds = 4\n"), ("mobilenet_v1", "rounds = 1\n")]
    {
        let dir = tempfile::tempdir().unwrap();
        let config = CONFIG.replace("mlp", model) + &every_method() + more;
        let (run, _) = as_simulated(&config, dir.path());
        let summary = run.summary.unwrap();
        assert_eq!(summary.algorithms.len(), METHODS.len());
    }
}

/// A device that has trained keeps its new state before its answer is counted. Where the answer is lost, it goes on as if it had
/// never been asked.
#[test]
fn a_training_that_did_not_count_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let methods = ["fedper", "ditto", "scaffold"];
    let config =
        format!("{CONFIG}algorithm = {methods:?}\nrounds = 4\n").replace("clients = 4", "clients = 3");
    let options =
        ServerOptions { min_answers: 2, round_timeout: Duration::from_secs(3), ..superlink::options() };
    let [unheard, unasked] = [Lost::Answer(1, 2), Lost::Question(1, 2)].map(|lost| {
        let (run, states) =
            (dir.path().join(format!("{lost:?}")), dir.path().join(format!("{lost:?} states")));
        deployed_losing(&config, &run, &states, &[0..=0, 1..=1, 2..=2], &options, Some(lost))
            .summary
            .unwrap();
        let failed: Vec<Vec<u64>> =
            RunDir::rounds(&run).unwrap().into_iter().map(|round| round.failed_devices).collect();
        assert!(failed.iter().any(|failed| failed == &[1]), "{failed:?}");
        (run, states)
    });
    assert_same(&shared(&unheard.0), &shared(&unasked.0));
    let experiment = fedper::experiment::Experiment::prepare(&common::settings(&config)).unwrap();
    for (name, device) in methods.into_iter().flat_map(|name| (0..3).map(move |device| (name, device))) {
        let parts = experiment.parts(&*experiment.config.method(name).unwrap());
        let state = |states: &Path| {
            let store = Store::open(&states.join(format!("client-{device}"))).unwrap();
            let federation = store.federations().unwrap().remove(0);
            let scope = Scope { federation: &federation, algorithm: name };
            store.after(4, scope, DeviceId(device), &parts).unwrap().unwrap()
        };
        assert!(state(&unheard.1) == state(&unasked.1), "{name}, device {device}");
    }
}

/// Devices of one process send their mean, which is rounded once more. A small rate: a large one makes more of that.
#[test]
fn every_method_is_the_simulators_but_for_a_rounding_where_devices_share_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}{}rounds = 2\n", every_method())
        .replace("samples_per_client = 20\n", "samples_per_client = 33\n")
        .replace("lr = 0.05", "lr = 0.01");
    let (simulated, there) = (dir.path().join("simulated"), dir.path().join("deployed"));
    common::run(&config, &simulated, 2);
    deployed(&config, &there, &dir.path().join("states"), &[0..=2, 3..=3]).summary.unwrap();
    let mut compared = 0;
    for (name, ours) in weights(&there) {
        let [ours, theirs] = [&ours, &std::fs::read(simulated.join("weights").join(&name)).unwrap()]
            .map(|bytes| fedper_nn::weights::read_safetensors(bytes).unwrap());
        for (spec, values) in ours.iter() {
            let others = theirs.get(&spec.name).unwrap();
            // A control is a difference of weights divided by the way, so it has the error of weights divided by that.
            let most = if spec.name.starts_with("control/") { 1e-6 / 0.01 } else { 1e-6 };
            for (a, b) in values.iter().zip(others) {
                assert!((a - b).abs() <= most, "{name}, {}: {a} and {b}", spec.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 100_000, "{compared}");
}

#[test]
fn devices_that_share_a_process_count_each() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}algorithm = ['fedper', 'local']\nrounds = 2\n");
    let (simulated, there) = (dir.path().join("simulated"), dir.path().join("deployed"));
    common::run(&config, &simulated, 2);
    deployed(&config, &there, &dir.path().join("states"), &[0..=2, 3..=3]).summary.unwrap();
    let bytes = |dir: &Path| -> Vec<(u64, u64)> {
        RunDir::rounds(dir).unwrap().iter().map(|round| (round.bytes_down, round.bytes_up)).collect()
    };
    assert_eq!(bytes(&simulated), bytes(&there));
    let base = std::fs::read(there.join("weights/fedper/base.safetensors")).unwrap();
    let values = fedper_nn::weights::read_safetensors(&base).unwrap().values().len() as u64;
    assert_eq!(bytes(&there)[..2], [(4 * 4 * values, 4 * 4 * values), (0, 0)]);
    // Three of them sent one mean.
    let up = RunDir::rounds(&there).unwrap()[0].wire_up.unwrap();
    assert!((2 * 4 * values..3 * 4 * values).contains(&up), "{up} bytes of {values} values");
}

#[test]
fn an_algorithm_that_no_device_comes_through_ends_and_the_others_go_on() {
    // As in `ended.rs`: what is averaged grows with every round.
    let dir = tempfile::tempdir().unwrap();
    let config = "model = 'mlp'\nclients = 4\nsamples_per_client = 20\nbatch_size = 10\nparticipation = 0.25\nlr = 0.1\n\
                  weight_decay = 100\nmomentum = 0.0\nalgorithm = ['fedavg', 'local']\nrounds = 4\nseed = 7\n\
                  classes_per_client = 3\nlocal_epochs = 1\neval_every = 1\n";
    let (simulated, there) = (dir.path().join("simulated"), dir.path().join("deployed"));
    let expected = common::run(config, &simulated, 2);
    let clients = [0..=0, 1..=1, 2..=2, 3..=3];
    let run = deployed(config, &there, &dir.path().join("states"), &clients);
    let summary = run.summary.unwrap();
    let (fedavg, local) = (&summary.algorithms["fedavg"], &summary.algorithms["local"]);
    assert!(summary.complete && fedavg.rounds < 4, "{fedavg:?}");
    assert_eq!((fedavg.rounds, local.rounds), (expected.algorithms["fedavg"].rounds, 4));
    assert_eq!(local.ended, None);
    let reason = fedavg.ended.as_deref().unwrap();
    let start = format!("no device came through round {}: device ", fedavg.rounds);
    assert!(reason.starts_with(&start) && reason.contains("training diverged"), "{reason}");
    // It was not given up at the first failure.
    assert_eq!(
        run.said.iter().filter(|line| line.contains("it is begun again")).count(),
        3,
        "{:?}",
        run.said
    );
    // All but the words are the simulator's, and the base is that of the round before.
    let bare = |dir: &Path| {
        let mut rounds = RunDir::rounds(dir).unwrap();
        for round in &mut rounds {
            (round.seconds, round.wire_down, round.wire_up) = (0.0, None, None);
            round.ended = round.ended.take().map(|_| String::new());
        }
        rounds
    };
    assert_eq!(bare(&simulated), bare(&there));
    let base = |dir: &Path| std::fs::read(dir.join("weights/fedavg/base.safetensors")).unwrap();
    assert_eq!(base(&simulated), base(&there));
}

#[test]
fn a_server_refuses_new_devices_and_nothing_else_of_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (dir.path().join("exp.toml"), dir.path().join("run"));
    let serve = |more: &str| {
        std::fs::write(&config, format!("{CONFIG}rounds = 2\n{more}")).unwrap();
        // Nobody listens there.
        let args =
            ["server", "--superlink", "http://127.0.0.1:1", "--patience", "0.1", "--config", text(&config)];
        let output = fedper(&args).args(["--out", text(&out)]).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, said) = serve("new_clients = 1\n");
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(
        said.contains("new_clients is for `fedper run`") && said.contains("leave new_clients out"),
        "{said}"
    );
    assert!(!out.exists());
    let (code, said) =
        serve("patience = 1\nmin_delta = 0.1\neval_every = 1\nfailure_rate = 0.1\neval_devices = 2\n");
    assert!(code == Some(1) && said.contains("cannot reach the SuperLink"), "{said}");
}
