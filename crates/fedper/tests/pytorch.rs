//! Two FedPer rounds over three devices, through the whole simulator, agree with PyTorch.
//!
//! The golden values, the scripts that made them and the tolerances are the engine's (`fedper-nn/tests/golden`).

mod common;
#[path = "../../fedper-nn/tests/support/mod.rs"]
mod support;

use std::sync::atomic::AtomicBool;

use fedper::experiment::Experiment;
use fedper::rundir::RunDir;
use fedper::simulator::{self, RunOptions};
use fedper_core::params::Params;
use fedper_core::seed::SERVER;
use fedper_data::{Dataset, Images, Partition, Shard};
use support::report::Report;
use support::rounds::Rounds;

fn experiment(name: &str, case: &Rounds) -> Experiment {
    let (model, stem) = name.split_once('-').unwrap_or((name, "cifar"));
    let input = case.arch.input;
    let sgd = case.sgd;
    let settings = common::settings(&format!(
        "dataset = 'golden'\nmodel = '{model}'\nstem = '{stem}'\nclients = 3\niid = true\ntest_fraction = 0.5\n\
         algorithm = ['fedper']\npersonal_layers = {}\nrounds = {}\nlocal_epochs = {}\nbatch_size = {}\nlr = {}\n\
         momentum = {}\nweight_decay = {}\nshuffle = false",
        case.personal_layers,
        case.rounds,
        case.local_epochs,
        case.batch,
        sgd.lr,
        sgd.momentum,
        sgd.weight_decay
    ));
    let pixels: Vec<u8> = case.devices.iter().flat_map(|device| device.pixels.clone()).collect();
    let labels: Vec<u16> = case.devices.iter().flat_map(|d| d.labels.iter().map(|&l| l as u16)).collect();
    let dataset = Dataset {
        name: "golden".into(),
        classes: (0..case.arch.classes).map(|class| class.to_string()).collect(),
        train_len: labels.len(),
        images: Images::new([input.height, input.width, input.channels], pixels, labels).unwrap(),
        devices: None,
        left_out: fedper_data::LeftOut::default(),
        note: None,
    };
    let mut experiment = Experiment::with_dataset(&settings, dataset).unwrap();
    assert_eq!(experiment.architecture, case.arch);
    // Each device holds its own samples in their order, and is tested on them.
    let mut first = 0;
    let shards = case.devices.iter().map(|device| {
        let samples: Vec<u32> = (first..first + device.labels.len() as u32).collect();
        first += samples.len() as u32;
        Shard { train: samples.clone(), test: samples }
    });
    experiment.partition = Partition::new(shards.collect());
    experiment.start_from(SERVER, case.initial(0)).unwrap();
    for device in 0..3 {
        experiment.start_from(device, case.initial(device as usize)).unwrap();
    }
    experiment
}

fn agree(name: &str) {
    let case = Rounds::open(name);
    let experiment = experiment(name, &case);
    let dir = tempfile::tempdir().unwrap();
    let mut run = RunDir::create(&dir.path().join("run"), &experiment).unwrap();
    let options =
        RunOptions { workers: 2, personal_memory: simulator::PERSONAL_MEMORY, stop: &AtomicBool::new(false) };
    simulator::run(&experiment, &mut run, &options, &mut common::Silent).unwrap();
    let read = |file: &str| -> Params {
        let path = dir.path().join("run/weights/fedper").join(file);
        fedper_nn::weights::read_safetensors(&std::fs::read(path).unwrap()).unwrap()
    };
    let mut report = Report::new(format!("{name}: two rounds through the simulator"));
    case.check_base(&mut report, &read("base.safetensors"));
    for device in 0..3 {
        case.check_personal(&mut report, device, &read(&format!("device-{device:05}.safetensors")));
    }
    report.finish();
}

#[test]
fn mlp() {
    agree("mlp");
}

#[test]
fn cnn() {
    agree("cnn");
}

#[test]
fn resnet34() {
    agree("resnet34-imagenet");
}

#[test]
fn mobilenet_v1() {
    agree("mobilenet_v1-cifar");
}
