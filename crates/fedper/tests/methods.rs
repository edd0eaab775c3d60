//! What holds for every method, and what each of them is equal to.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{
    Silent, assert_same, every_method, fedper, results, run, stderr, text, weights, whole_and_killed,
    with_options,
};
use fedper::rundir::records::RoundRecord;
use fedper::simulator::{PERSONAL_MEMORY, RunOptions};
use fedper_core::params::Params;

/// Some take part, some fail, some are tested.
const SOME: &str = "model = 'mlp'\nclients = 6\nclasses_per_client = 3\nsamples_per_client = 43\nlocal_epochs = 1\n\
                    batch_size = 10\nlr = 0.05\nweight_decay = 0.001\nparticipation = 0.6\nfailure_rate = 0.3\n\
                    eval_devices = 4\n";

#[test]
fn neither_workers_nor_memory_matter() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["mlp", "mobilenet_v1"] {
        let rounds = if model == "mlp" { "rounds = 4\n" } else { "rounds = 2\n" };
        let config = SOME.replace("mlp", model) + &every_method() + rounds;
        let of = |workers, personal_memory| {
            let out = dir.path().join(format!("{model}-{workers}"));
            let options = RunOptions { workers, personal_memory, stop: &AtomicBool::new(false) };
            with_options(&config, &out, &options, &mut Silent);
            results(&out)
        };
        assert_same(&of(1, PERSONAL_MEMORY), &of(4, 0));
    }
}

#[test]
fn no_kill_changes_anything() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("{SOME}{}rounds = 12\n", every_method())).unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    whole_and_killed(&config, &whole, &killed);
    assert_same(&results(&whole), &results(&killed));
}

/// All take part, with as many samples each, and a power of two of them: weights of a mean that no rounding can tell apart.
const ALL: &str = "model = 'mlp'\nclients = 4\nclasses_per_client = 3\nsamples_per_client = 32\nlocal_epochs = 2\n\
                   batch_size = 10\nlr = 0.05\nmomentum = 0.0\nrounds = 3\n";

/// Runs `methods`, with more settings, and returns all weights.
fn end(dir: &Path, name: &str, methods: &str, more: &str) -> BTreeMap<String, Vec<u8>> {
    let out = dir.join(name);
    run(&format!("{ALL}algorithm = {methods}\n{more}"), &out, 2);
    weights(&out)
}

fn params(bytes: &[u8]) -> Params {
    fedper_nn::weights::read_safetensors(bytes).unwrap()
}

/// The parameters whose names begin with `prefix`, without it.
fn slot(bytes: &[u8], prefix: &str) -> BTreeMap<String, Vec<f32>> {
    let params = params(bytes);
    let named = params
        .iter()
        .filter_map(|(spec, values)| Some((spec.name.strip_prefix(prefix)?.to_owned(), values.to_vec())));
    named.collect()
}

#[test]
fn fedrep_without_a_head_is_fedavg_and_without_a_base_local_training() {
    let dir = tempfile::tempdir().unwrap();
    let ends = end(dir.path(), "none", "['fedrep', 'fedavg']", "personal_layers = 0\n");
    assert_eq!(ends["fedrep/base.safetensors"], ends["fedavg/base.safetensors"]);
    // Its head phase sees batches of its own, unless nothing is shuffled.
    let all = "personal_layers = 3\nshuffle = false\n[method.fedrep]\nhead_epochs = 2\n";
    let ends = end(dir.path(), "all", "['fedrep', 'local']", all);
    for device in 0..4 {
        let file = format!("device-{device:05}.safetensors");
        assert_eq!(ends[&format!("fedrep/{file}")], ends[&format!("local/{file}")]);
    }
}

#[test]
fn fedreps_base_under_a_head_that_does_not_train_is_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = "personal_layers = 1\n[method.fedrep]\nhead_epochs = 0\n";
    let out = dir.path().join("frozen");
    let ends = end(dir.path(), "frozen", "['fedrep', 'fedper']", frozen);
    // The head is the one that it began with, so another run from the same seed has it too, whatever its rounds.
    let one = end(dir.path(), "one", "['fedrep']", &frozen.replace("[method", "eval_every = 3\n[method"));
    for device in 0..4 {
        let file = format!("fedrep/device-{device:05}.safetensors");
        assert_eq!(ends[&file], one[&file]);
        assert_ne!(ends[&file], ends[&file.replace("fedrep", "fedper")]);
    }
    let command = std::fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(command.contains("[method.fedrep]\nhead_epochs = 0"), "{command}");
}

fn rounds(dir: &Path) -> Vec<RoundRecord> {
    let text = std::fs::read_to_string(dir.join("rounds.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn settings_that_make_no_sense_are_refused_with_a_line() {
    for (args, expected) in [
        (
            "--algorithm fedrep --set fedrep.head_epochs=-1",
            "fedrep.head_epochs is -1, and it must be between 0 and",
        ),
        ("--algorithm fedrep --set fedrep.tau=1", "fedrep has no setting `tau`: it has head_epochs"),
        ("--algorithm fedper --set fedrep.head_epochs=1", "give --algorithm fedrep too, or leave it out"),
        (
            "--algorithm ditto --set ditto.lambda=-0.1",
            "ditto.lambda is -0.1, and it must be 0 or more: pull of",
        ),
        (
            "--algorithm scaffold --set scaffold.server_lr=nan",
            "scaffold.server_lr is NaN, and it must be 0 or more",
        ),
        ("--algorithm fedper --set sgd.x=1", "there is no method `sgd`"),
    ] {
        let output = fedper(&["run"]).args(args.split(' ')).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    for (typed, expected) in
        [("fedper", "is not METHOD.NAME=VALUE, such as"), ("a.b=x", "`x` is not a number, such as 0.1")]
    {
        let output = fedper(&["run", "--set", typed]).output().unwrap();
        assert!(output.status.code() == Some(2) && stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn what_is_set_is_written_and_repeats_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    let config = dir.path().join("begin.toml");
    std::fs::write(&config, format!("{ALL}algorithm = ['fedrep']\n[method.fedrep]\nhead_epochs = 3\n"))
        .unwrap();
    // What is typed goes before the file.
    let args =
        ["run", "--quiet", "--config", text(&config), "--set", "fedrep.head_epochs=1", "--out", text(&first)];
    assert!(fedper(&args).status().unwrap().success());
    let written = std::fs::read_to_string(first.join("config.toml")).unwrap();
    assert!(written.ends_with("[method.fedrep]\nhead_epochs = 1\n"), "{written}");
    run(&written, &second, 2);
    assert_same(&results(&first), &results(&second));
    assert_eq!(rounds(&first).len(), 3);
}

#[test]
fn dittos_global_model_is_fedavgs_and_without_a_pull_its_own_is_local_training() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["mlp", "mobilenet_v1"] {
        let first = dir.path().join(format!("{model}.safetensors"));
        let args = ["model", "export", "--model", model, "--out", text(&first)];
        assert!(fedper(&args).stdout(std::process::Stdio::null()).status().unwrap().success());
        // From the same start on all devices, which is what they receive first.
        let more = format!("init = '{}'\nmodel = '{model}'\n", first.display());
        let config = ALL.replace("model = 'mlp'\n", "") + &more;
        let of = |name: &str, lambda: &str| {
            let out = dir.path().join(format!("{model}-{name}"));
            let methods = "algorithm = ['ditto', 'fedavg', 'local']\n";
            run(&format!("{config}{methods}[method.ditto]\nlambda = {lambda}\n"), &out, 2);
            weights(&out)
        };
        let (free, pulled) = (of("free", "0.0"), of("pulled", "0.5"));
        for ends in [&free, &pulled] {
            assert!(ends["ditto/base.safetensors"] == ends["fedavg/base.safetensors"], "{model}");
        }
        for device in 0..4 {
            let file = |method: &str| format!("{method}/device-{device:05}.safetensors");
            assert_eq!(slot(&free[&file("ditto")], "own/"), slot(&free[&file("local")], ""), "{model}");
            assert_ne!(free[&file("ditto")], pulled[&file("ditto")]);
        }
    }
}

/// A device that never trained is tested with the model that it receives.
#[test]
fn dittos_devices_begin_with_what_they_receive_first() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(&format!("{SOME}algorithm = ['ditto', 'fedavg']\nrounds = 1\nseed = 3\n"), &out, 2);
    let text = std::fs::read_to_string(out.join("devices.jsonl")).unwrap();
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loss = |method: &str, device: u64| {
        let found = records.iter().find(|r| r["algorithm"] == method && r["device"] == device);
        found.map(|record| record["loss"].as_f64().unwrap())
    };
    let trained = |device: u64| out.join(format!("weights/ditto/device-{device:05}.safetensors")).exists();
    let tested: Vec<u64> = (0..6).filter(|&device| loss("ditto", device).is_some()).collect();
    assert!(tested.iter().any(|&device| trained(device)) && tested.iter().any(|&device| !trained(device)));
    for device in tested {
        assert_eq!(loss("ditto", device) == loss("fedavg", device), !trained(device), "device {device}");
    }
}

#[test]
fn scaffolds_first_round_is_fedavgs_and_its_control_is_the_mean_of_its_devices() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["mlp", "mobilenet_v1"] {
        let of = |name: &str, more: &str| {
            let out = dir.path().join(format!("{model}-{name}"));
            let config = ALL.replace("mlp", model).replace("rounds = 3\n", "");
            run(&format!("{config}algorithm = ['scaffold', 'fedavg']\n{more}"), &out, 2);
            weights(&out)
        };
        let one = of("one", "rounds = 1\n");
        assert!(one["scaffold/base.safetensors"] == one["fedavg/base.safetensors"], "{model}");
        let three = of("three", "rounds = 3\n");
        assert!(three["scaffold/base.safetensors"] != three["fedavg/base.safetensors"], "{model}");
        let control = slot(&three["scaffold/server.safetensors"], "control/");
        assert!(control.keys().all(|name| !name.contains("running")), "{control:?}");
        let devices: Vec<_> = (0..4)
            .map(|d| slot(&three[&format!("scaffold/device-{d:05}.safetensors")], "control/"))
            .collect();
        for (name, values) in &control {
            let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
            for (i, value) in values.iter().enumerate() {
                let mean = devices.iter().map(|device| device[name][i]).sum::<f32>() / 4.0;
                assert!(
                    (value - mean).abs() <= 1e-5 * (largest + value.abs()),
                    "{model} {name}: {value} and {mean}"
                );
            }
        }
    }
}

/// Where one method cannot have momentum, none has it by default; where it is typed, that method is refused.
#[test]
fn scaffold_has_no_momentum() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args =
        "run --model mlp --clients 2 --samples-per-client 10 --rounds 1 --algorithm fedavg,scaffold --out";
    let mut command = fedper(&args.split(' ').collect::<Vec<_>>());
    let said = stderr(&command.arg(&out).output().unwrap());
    let line = "momentum is 0 for all methods: scaffold cannot have any, and all train alike";
    assert!(said.contains(line), "{said}");
    let config = std::fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("momentum = 0.0\n"), "{config}");
    assert!(
        !config.contains("[method.fedavg]") && config.contains("[method.scaffold]\nserver_lr = 1"),
        "{config}"
    );
    for (momentum, code) in [("0.9", Some(2)), ("0", Some(0))] {
        let out = dir.path().join(momentum);
        let mut command = fedper(&args.split(' ').collect::<Vec<_>>());
        let output = command.arg(&out).args(["--momentum", momentum]).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), code, "{said}");
        assert_eq!(said.contains("scaffold counts on steps without it"), code == Some(2), "{said}");
    }
}
