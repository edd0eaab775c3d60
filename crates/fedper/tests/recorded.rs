//! What a run directory tells of a run besides its results: who took part, from which weights, what was never trained.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Silent, fedper, settings, stderr, stdout, text};
use fedper::experiment::Experiment;
use fedper::rundir::records::RoundRecord;
use fedper::rundir::{RunDir, read_summary};
use fedper::simulator::{self, RunOptions};
use fedper_core::coordinator::Plan;
use fedper_core::round::DeviceId;
use fedper_data::{Dataset, Images};
use fedper_run::settled::device_network;

const MLP: &str = "model = 'mlp'\nclients = 6\nclasses_per_client = 3\nsamples_per_client = 20\nbatch_size = 10\n\
                   rounds = 3\nlr = 0.05\n";

fn rounds(dir: &Path) -> Vec<RoundRecord> {
    let text = std::fs::read_to_string(dir.join("rounds.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn who_took_part_and_who_failed() {
    let dir = tempfile::tempdir().unwrap();
    let (some, all) = (dir.path().join("some"), dir.path().join("all"));
    let config = format!("{MLP}participation = 0.5\nfailure_rate = 0.4\nalgorithm = ['fedper']\n");
    common::run(&config, &some, 2);
    let plan: Plan = Experiment::prepare(&settings(&config)).unwrap().plan();
    let mut failed = 0;
    for record in rounds(&some) {
        let asked: Vec<u64> = plan.participants(record.round).iter().map(|device| device.0).collect();
        assert_eq!(record.participants, Some(asked.clone()));
        assert_eq!(record.failed_devices.len(), record.failed as usize);
        assert!(record.failed_devices.iter().all(|device| asked.contains(device)), "{record:?}");
        assert_eq!(record.devices + record.failed, 3);
        failed += record.failed;
    }
    assert!(failed > 0, "somebody fails");
    // Where all take part there is nothing to list.
    common::run(&format!("{MLP}algorithm = ['fedper']\n"), &all, 2);
    let text = std::fs::read_to_string(all.join("rounds.jsonl")).unwrap();
    for absent in ["participants", "failed_devices", "untested", "ended"] {
        assert!(!text.contains(absent), "{text}");
    }
}

#[test]
fn the_network_of_a_device_that_never_trained_follows_from_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("init.safetensors");
    let output =
        fedper(&["model", "export", "--model", "mlp", "--seed", "9", "--out", text(&weights)]).output();
    assert!(output.unwrap().status.success());
    let image = dir.path().join("image.png");
    image::GrayImage::new(28, 28).save(&image).unwrap();
    for (name, more) in [
        ("plain", String::new()),
        ("init", format!("init = '{}'\n", text(&weights))),
        ("nobody", "failure_rate = 1.0\n".to_owned()),
    ] {
        let out = dir.path().join(name);
        let config = format!(
            "{MLP}participation = 0.17\nnew_clients = 1\nalgorithm = ['fedper', 'fedavg', 'local']\n{more}"
        );
        common::run(&config, &out, 2);
        let experiment = Experiment::prepare(&settings(&config)).unwrap();
        for algorithm in ["fedper", "local"] {
            let parts = experiment.parts(&*experiment.config.method(algorithm).unwrap());
            let begin = experiment.initial_state(&parts);
            let mut untrained = 0;
            for device in 0..5 {
                let file = out.join(format!("weights/{algorithm}/device-{device:05}.safetensors"));
                let network = device_network(&out, algorithm, Some(device)).unwrap();
                assert_eq!(
                    (network.own, network.trained),
                    (true, file.exists()),
                    "{name} {algorithm} {device}"
                );
                if network.trained {
                    continue;
                }
                untrained += 1;
                for (spec, values) in
                    experiment.initial_kept(&parts, DeviceId(device), &begin).params().iter()
                {
                    assert_eq!(network.params.get(&spec.name), Some(values), "{}", spec.name);
                }
                let export = dir.path().join(format!("{name}-{algorithm}-{device}.safetensors"));
                let run = ["--run", text(&out), "--algorithm", algorithm, "--device", &device.to_string()];
                let output = fedper(&["model", "export", "--out", text(&export)]).args(run).output().unwrap();
                assert!(output.status.success(), "{}", stderr(&output));
                assert!(stdout(&output).contains("never trained"), "{}", stdout(&output));
                let output = fedper(&["predict", text(&image)]).args(run).output().unwrap();
                assert!(output.status.success(), "{}", stderr(&output));
                assert!(stdout(&output).contains("it never trained"), "{}", stdout(&output));
            }
            assert!(untrained >= 2, "{name} {algorithm}");
        }
        let fedavg = device_network(&out, "fedavg", None).unwrap();
        assert!(!fedavg.own && fedavg.trained);
        let error = device_network(&out, "fedper", None).unwrap_err().to_string();
        assert!(error.contains("say whose with --device"), "{error}");
        let error = device_network(&out, "fedper", Some(5)).unwrap_err().to_string();
        assert!(error.contains("held out"), "{error}");
    }
    // What a device did train is not made up.
    let out = dir.path().join("plain");
    let trained =
        (0..5).find(|device| out.join(format!("weights/local/device-{device:05}.safetensors")).exists());
    let trained = trained.unwrap();
    std::fs::remove_file(out.join(format!("weights/local/device-{trained:05}.safetensors"))).unwrap();
    let error = device_network(&out, "local", Some(trained)).unwrap_err().to_string();
    assert!(error.contains("has trained, but"), "{error}");
    // Nor is what it began with, once that is another file.
    std::fs::copy(dir.path().join("plain-fedper-0.safetensors"), &weights)
        .or_else(|_| std::fs::copy(dir.path().join("plain-fedper-1.safetensors"), &weights))
        .unwrap();
    let out = dir.path().join("init");
    let untrained =
        (0..5).find(|device| !out.join(format!("weights/local/device-{device:05}.safetensors")).exists());
    let error = device_network(&out, "local", untrained).unwrap_err().to_string();
    assert!(error.contains("bring that file back"), "{error}");
}

#[test]
fn a_run_goes_on_from_the_weights_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |seed: &str| {
        let path = dir.path().join(format!("{seed}.safetensors"));
        let args = ["model", "export", "--model", "mlp", "--seed", seed, "--out", text(&path)];
        assert!(fedper(&args).output().unwrap().status.success());
        path
    };
    let (init, other) = (weights("1"), weights("2"));
    let (begun, out) = (dir.path().join("begun"), dir.path().join("run"));
    let config = format!("{MLP}init = '{}'\n", text(&init));
    let experiment = Experiment::prepare(&settings(&config)).unwrap();
    drop(RunDir::create(&begun, &experiment).unwrap());
    common::run(&config, &out, 2);
    let hash = read_summary(&out).unwrap().init_sha256.unwrap();
    let sum = std::process::Command::new("sha256sum").arg(&init).output();
    if let Ok(sum) = sum {
        assert!(stdout(&sum).starts_with(&hash), "{hash}");
    }
    assert_eq!(hash.len(), 64);
    let whole = std::fs::read(&init).unwrap();
    std::fs::copy(&other, &init).unwrap();
    for args in [&["--resume", text(&begun)][..], &["--resume", text(&out), "--rounds", "4"]] {
        let output = fedper(&["run", "--quiet"]).args(args).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("begun with other weights") && said.lines().count() == 1, "{said}");
    }
    assert!(!out.join("checkpoint").exists() && RunDir::is_complete(&out));
    std::fs::write(&init, whole).unwrap();
    for args in [&["--resume", text(&begun)][..], &["--resume", text(&out), "--rounds", "4"]] {
        let output = fedper(&["run", "--quiet"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

/// Embedded images of two classes, of which one has no test image.
fn half_tested() -> Dataset {
    let mut dataset = fedper_data::load("fashion-mnist-small", None, &Default::default()).unwrap();
    let images = &dataset.images;
    let labels = images.labels();
    let of = |range: std::ops::Range<usize>, class: u16| -> Vec<usize> {
        range.filter(|&index| labels[index] == class).take(40).collect()
    };
    let train = [of(0..dataset.train_len, 0), of(0..dataset.train_len, 1)].concat();
    let test = of(dataset.train_len..labels.len(), 0);
    let all: Vec<usize> = train.iter().chain(&test).copied().collect();
    let pixels = all.iter().flat_map(|&index| images.pixels(index).to_vec()).collect();
    let labels = all.iter().map(|&index| labels[index]).collect();
    let images = Images::new([images.height, images.width, images.channels], pixels, labels).unwrap();
    (dataset.images, dataset.train_len) = (images, train.len());
    dataset.classes.truncate(2);
    dataset
}

#[test]
fn a_device_without_test_images_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let config =
        MLP.replace("classes_per_client = 3", "classes_per_client = 1").replace("clients = 6", "clients = 2");
    let experiment = Experiment::with_dataset(&settings(&config), half_tested()).unwrap();
    let mut run = RunDir::create(&out, &experiment).unwrap();
    let stop = AtomicBool::new(false);
    let options = RunOptions { workers: 2, personal_memory: simulator::PERSONAL_MEMORY, stop: &stop };
    let summary = simulator::run(&experiment, &mut run, &options, &mut Silent).unwrap();
    for (name, a) in &summary.algorithms {
        assert_eq!((a.untested, a.devices.len()), (1, 1), "{name}");
    }
    assert!(rounds(&out).iter().all(|record| record.untested == 1));
    let output = fedper(&["run", "--resume", text(&out)]).output().unwrap();
    assert!(stdout(&output).contains("1 device has no test images"), "{}", stdout(&output));
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("1 device without test images"));
}

#[test]
fn the_summary_says_what_the_records_say_to_the_last_bit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    common::run(&format!("{MLP}algorithm = ['fedper', 'fedavg']\n"), &out, 2);
    let records = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    // As text: numbers that are read might not be what is written.
    let number = |text: &str, key: &str| {
        let from = text.find(key).unwrap() + key.len();
        text[from..].trim_start().split([',', '\n', '}']).next().unwrap().to_owned()
    };
    for name in ["fedper", "fedavg"] {
        let last = records.lines().rfind(|line| line.contains(&format!("\"{name}\""))).unwrap();
        let mean = number(last, "\"mean\":");
        let place = summary.find(&format!("\"{name}\": {{")).unwrap();
        assert_eq!(number(&summary[place..], "\"last\":"), mean);
    }
    // Every number comes back as it was, which not every reader of JSON takes care of.
    for n in 1..5000u32 {
        for value in [f64::from(n) / 7e3, f64::from(n).sqrt() / 71.0, 1.0 / f64::from(n)] {
            let text = serde_json::to_string(&value).unwrap();
            let back: f64 = serde_json::from_str(&text).unwrap();
            assert_eq!(back.to_bits(), value.to_bits(), "{text}");
        }
    }
}
