//! Devices that were held out of training.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{assert_same, fedper, results, run, text, whole_and_killed};
use fedper::rundir::read_summary;
use fedper::rundir::records::{NewClientRecord, NewClients};

const SMALL: &str = "model = 'mlp'\nclients = 6\nsamples_per_client = 60\nrounds = 3\nbatch_size = 10\nalgorithm = \
                     ['fedper', 'fedavg', 'local']\n";

fn records(dir: &Path) -> Vec<NewClientRecord> {
    let lines = std::fs::read_to_string(dir.join("new_clients.jsonl")).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn everything(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = results(dir);
    all.insert("new_clients".to_owned(), std::fs::read(dir.join("new_clients.jsonl")).unwrap());
    all
}

fn new_clients(dir: &Path) -> NewClients {
    read_summary(dir).unwrap().new_clients.unwrap()
}

#[test]
fn held_out_devices_do_not_train_and_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (dir.path().join("config.toml"), dir.path().join("run"));
    std::fs::write(&config, SMALL).unwrap();
    let output = fedper(&["run", "--config", text(&config), "--out", text(&out)])
        .args(["--new-clients", "2", "--new-client-epochs", "2"])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("6 devices (2 held out)") && said.contains("new devices: 2"), "{said}");
    // Devices 4 and 5 were neither trained nor tested in any round, but hold samples.
    assert!(!out.join("weights/fedper/device-00004.safetensors").exists());
    assert!(out.join("weights/fedper/device-00003.safetensors").exists());
    let tested = std::fs::read_to_string(out.join("devices.jsonl")).unwrap();
    assert!(!tested.contains("\"device\":4") && tested.contains("\"device\":3"));
    let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    assert!(rounds.lines().all(|line| line.contains("\"devices\":4")), "{rounds}");

    let new = new_clients(&out);
    assert_eq!((&new.devices[..], new.epochs, &new.layers[..]), (&[4, 5][..], 2, "personal"));
    let epochs: Vec<(&str, u32)> = new.algorithms.iter().map(|(name, a)| (name.as_str(), a.epochs)).collect();
    assert_eq!(epochs, [("fedavg", 0), ("fedavg-ft", 2), ("fedper", 2), ("local", 2)]);
    let records = records(&out);
    assert_eq!(records.len(), 2 * (1 + 3 + 3 + 3));
    let fedper_4 =
        records.iter().find(|r| (&r.algorithm[..], r.device, r.epoch) == ("fedper", 4, 2)).unwrap();
    assert_eq!(new.algorithms["fedper"].devices[&4], fedper_4.accuracy);
    // Fine-tuning begins with the model as it is.
    assert_eq!(new.algorithms["fedavg"].by_epoch[0], new.algorithms["fedavg-ft"].by_epoch[0]);

    let printed = String::from_utf8(output.stdout).unwrap();
    for expected in
        ["2 devices that were held out", "FedPer's base", "FedAvg's model", "personal layers", "device 5"]
    {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("New devices") && page.contains("FedPer&#39;s base"), "the report has them");
    roxmltree::Document::parse(page.trim_start_matches("<!DOCTYPE html>")).unwrap();

    // They were never told of anything: there is no network of their own.
    let output = fedper(&["predict", "--run", text(&out), "--device", "4", "x.png"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("never trained"));
}

#[test]
fn what_new_devices_reach_repeats_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{SMALL}new_clients = 2\naugment = true\nclip_norm = 1.0\n");
    let of = |name: &str, config: &str, workers| {
        let out = dir.path().join(name);
        run(config, &out, workers);
        out
    };
    let one = of("one", &config, 1);
    assert_same(&everything(&one), &everything(&of("five", &config, 5)));
    let written = std::fs::read_to_string(one.join("config.toml")).unwrap();
    assert_same(&everything(&one), &everything(&of("again", &written, 2)));

    // Which layers train matters for FedPer's base and for nothing else; nor does the other algorithms' presence.
    let all = of("all", &format!("{config}new_client_layers = 'all'"), 2);
    let fewer = of("fewer", &config.replace("['fedper', 'fedavg', 'local']", "['fedavg-ft', 'fedper']"), 2);
    let [one, all, fewer] = [&one, &all, &fewer].map(|dir| new_clients(dir).algorithms);
    assert_ne!(one["fedper"], all["fedper"]);
    for name in ["fedavg", "fedavg-ft", "local"] {
        assert_eq!(one[name], all[name], "{name}");
    }
    assert_eq!(one, fewer);
}

#[test]
fn a_killed_run_reports_the_same_of_new_devices() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let config = dir.path().join("config.toml");
    let more = "new_clients = 3\nnew_client_epochs = 12\nnew_client_layers = 'all'\n";
    std::fs::write(&config, format!("{SMALL}{more}")).unwrap();
    whole_and_killed(&config, &whole, &killed);
    assert_same(&everything(&whole), &everything(&killed));
    assert_eq!(new_clients(&whole), new_clients(&killed));
}

#[test]
fn one_epoch_of_personal_layers_is_more_than_fedavg_s_model_gives() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        "model = 'cnn'\nclients = 10\nrounds = 6\nnew_clients = 2\nalgorithm = ['fedper', 'fedavg']\n";
    run(config, &dir.path().join("run"), 2);
    let new = new_clients(&dir.path().join("run")).algorithms;
    let mean = |name: &str| new[name].accuracy.unwrap().mean;
    assert_eq!(new["fedper"].epochs, 1);
    assert!(mean("fedper") > mean("fedavg") + 0.05, "{} and {}", mean("fedper"), mean("fedavg"));
}

#[test]
fn somebody_must_train() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for (held, code) in [("10", 2), ("11", 2), ("0", 2)] {
        let args = ["run", "--out", text(&out), "--clients", "10", "--new-clients", held];
        let output = fedper(&args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("new_clients is {held}")), "{said}");
        assert!(!out.exists());
    }
}
