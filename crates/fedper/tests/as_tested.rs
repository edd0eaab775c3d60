//! A device is tested with the network that it is given: what `predict` says of its test images is what the run recorded,
//! with batch-norm statistics measured afresh and with classes in an order of its own.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use fedper::experiment::Experiment;
use fedper::predict::Classifier;
use fedper::rundir::records::{DeviceRecord, NewClientRecord, PartitionRecord};

use common::{every_method, results, run, settings, weights};

const SMALL: &str = "clients = 4\niid = true\nsamples_per_client = 40\nlocal_epochs = 1\nbatch_size = 10\n\
    lr = 0.05\nmomentum = 0.5\nrounds = 2\nalgorithm = [\"fedper\", \"fedavg\"]\npersonal_layers = 1\n";

fn records<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Accuracy and loss of `device` as `predict` has them, by the names of the classes.
fn predicted(experiment: &Experiment, dir: &Path, algorithm: &str, device: u64) -> (f64, f64) {
    let mut classifier = Classifier::open(dir, Some(algorithm), device).unwrap();
    let dataset = &experiment.dataset;
    let file = dir.join("image.png");
    let (mut right, mut loss) = (0, 0.0);
    let shard = experiment.partition.shard(device as usize);
    for &sample in &shard.test {
        let pixels = dataset.images.pixels(sample as usize).to_vec();
        image::GrayImage::from_raw(28, 28, pixels).unwrap().save(&file).unwrap();
        let probabilities = classifier.classify(&file).unwrap();
        let name = &dataset.classes[usize::from(dataset.images.labels()[sample as usize])];
        let own = classifier.classes().iter().position(|class| class == name).unwrap();
        loss -= probabilities[own].ln();
        right += usize::from(probabilities.iter().all(|&other| other <= probabilities[own]));
    }
    let tests = shard.test.len() as f64;
    (right as f64 / tests, loss / tests)
}

#[test]
fn what_predict_says_is_what_the_run_recorded() {
    for (name, more) in [
        ("own labels", "model = \"cnn\"\nown_labels = true\n"),
        ("recalibrate", "model = \"mobilenet_v1\"\nbatch_norm = \"recalibrate\"\n"),
        ("both", "model = \"mobilenet_v1\"\nbatch_norm = \"recalibrate\"\nown_labels = true\n"),
        ("neither", "model = \"mobilenet_v1\"\nbatch_norm = \"average\"\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let text = format!("{SMALL}{more}");
        run(&text, &path, 2);
        let experiment = Experiment::prepare(&settings(&text)).unwrap();
        let last: Vec<DeviceRecord> = records(&path.join("devices.jsonl"));
        for record in last.iter().filter(|record| record.round == 2 && record.device % 3 == 0) {
            let (accuracy, loss) = predicted(&experiment, &path, &record.algorithm, record.device);
            assert_eq!(accuracy, record.accuracy, "{name}: {record:?}");
            assert!((loss - record.loss).abs() < 1e-4 * (1.0 + loss), "{name}: {loss} {record:?}");
        }
    }
}

#[test]
fn what_predict_says_is_what_the_run_recorded_whatever_the_method() {
    let dir = tempfile::tempdir().unwrap();
    let text = SMALL
        .replace("momentum = 0.5\n", "")
        .replace("algorithm = [\"fedper\", \"fedavg\"]\n", &every_method());
    for model in ["mlp", "mobilenet_v1"] {
        let path = dir.path().join(model);
        let text = format!("{text}model = \"{model}\"\n");
        run(&text, &path, 2);
        let experiment = Experiment::prepare(&settings(&text)).unwrap();
        let last: Vec<DeviceRecord> = records(&path.join("devices.jsonl"));
        for record in last.iter().filter(|record| record.round == 2 && record.device == 1) {
            let (accuracy, loss) = predicted(&experiment, &path, &record.algorithm, record.device);
            assert_eq!(accuracy, record.accuracy, "{model}: {record:?}");
            assert!((loss - record.loss).abs() < 1e-4 * (1.0 + loss), "{model}: {loss} {record:?}");
        }
    }
}

#[test]
fn each_device_has_an_order_of_its_own_and_the_same_samples() {
    let dir = tempfile::tempdir().unwrap();
    let [own, alike] = ["own", "alike"].map(|name| dir.path().join(name));
    let text = format!("{SMALL}model = \"cnn\"\n");
    run(&format!("{text}own_labels = true\n"), &own, 2);
    run(&text, &alike, 2);
    let partition = |path: &Path| -> PartitionRecord {
        serde_json::from_slice(&std::fs::read(path.join("partition.json")).unwrap()).unwrap()
    };
    let (own, alike) = (partition(&own), partition(&alike));
    let mut orders = BTreeSet::new();
    for (own, alike) in own.devices.into_iter().zip(alike.devices) {
        assert_eq!(
            (&own.train, &own.test, &own.train_classes),
            (&alike.train, &alike.test, &alike.train_classes)
        );
        assert_eq!(alike.labels, None);
        let order = own.labels.unwrap();
        assert_eq!(order.iter().copied().collect::<BTreeSet<u32>>(), (0..10).collect());
        orders.insert(order);
    }
    assert_eq!(orders.len(), 4, "four devices, four orders");
}

/// Measuring is for the test alone: what is trained, sent and averaged is what it is without.
#[test]
fn nothing_that_was_measured_is_trained_on_or_sent() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["mobilenet_v1", "cnn"] {
        let [average, measured] = ["average", "recalibrate"].map(|way| {
            let path = dir.path().join(format!("{model}-{way}"));
            run(&format!("{SMALL}model = \"{model}\"\nbatch_norm = \"{way}\"\n"), &path, 2);
            path
        });
        assert_eq!(weights(&average), weights(&measured), "{model}");
        let rounds = |path: &Path| results(path)["rounds"].clone();
        // A network without batch norm is left alone.
        assert_eq!(rounds(&average) == rounds(&measured), model == "cnn", "{model}");
    }
}

/// A device that was held out measures them too, before its first test: FedAvg's model is then what `predict` gives it.
#[test]
fn a_new_device_is_tested_with_statistics_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let first = |way: &str| {
        let path = dir.path().join(way);
        let text = format!("{SMALL}model = \"mobilenet_v1\"\nnew_clients = 1\nbatch_norm = \"{way}\"\n");
        run(&text, &path, 2);
        let records: Vec<NewClientRecord> = records(&path.join("new_clients.jsonl"));
        let record = records.into_iter().find(|r| r.algorithm == "fedavg" && r.epoch == 0).unwrap();
        assert_eq!(record.device, 3);
        let experiment = Experiment::prepare(&settings(&text)).unwrap();
        let (accuracy, loss) = predicted(&experiment, &path, "fedavg", 3);
        assert_eq!(accuracy, record.accuracy, "{way}");
        assert!((loss - record.loss).abs() < 1e-4 * (1.0 + loss), "{way}: {loss} {record:?}");
        record.loss
    };
    assert_ne!(first("recalibrate"), first("average"));
}
