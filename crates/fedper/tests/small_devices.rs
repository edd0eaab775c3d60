//! Devices with few samples train, or are left out by name; nothing is refused that can be trained.

mod common;

use fedper::error::Error;
use fedper::experiment::Experiment;
use fedper::rundir::RunDir;
use fedper::simulator::{self, RunOptions};
use fedper_data::{Dataset, DeviceFolder, Images, LoadOptions};
use std::sync::atomic::AtomicBool;

use common::{Silent, settings};

/// Three folders of `train` images each, which come first, and then of two test images each.
fn folders(train: [usize; 3]) -> Dataset {
    let mut dataset = fedper_data::load("fashion-mnist-small", None, &LoadOptions::default()).unwrap();
    let (mut pixels, mut labels, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (device, count) in train.into_iter().enumerate() {
        let from = labels.len() as u32;
        for i in 0..count {
            let sample = 1000 * device + 17 * i;
            pixels.extend_from_slice(dataset.images.pixels(sample));
            labels.push(dataset.images.labels()[sample]);
        }
        let name = format!("ward-{device}");
        devices.push(DeviceFolder { name, train: from..labels.len() as u32, test: 0..0 });
    }
    dataset.name = "wards".to_owned();
    dataset.train_len = labels.len();
    dataset.images = Images::new([28, 28, 1], pixels, labels).unwrap();
    dataset.devices = Some(devices);
    dataset
}

const TRAINING: &str = "by_folder = true\ntest_fraction = 0.25\nmodel = \"mobilenet_v1\"\nstem = \"imagenet\"\nalgorithm = [\"fedper\"]\n\
    rounds = 2\nlocal_epochs = 1\nlr = 0.01\n";

#[test]
fn a_single_image_is_left_out_by_name_and_21_are_not() {
    // In batches of 10, 21 - 5 = 16 and 29 - 8 = 21 training images leave 6 and 1 for the last.
    let experiment =
        Experiment::with_dataset(&settings(&format!("{TRAINING}batch_size = 10\n")), folders([21, 1, 29]))
            .unwrap();
    assert_eq!(experiment.left_out, [1]);
    let notes = experiment.notes().join("\n");
    assert!(notes.contains("left out") && notes.contains("`ward-1`"), "{notes}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut run_dir = RunDir::create(&path, &experiment).unwrap();
    let stop = AtomicBool::new(false);
    let options = RunOptions { workers: 2, personal_memory: simulator::PERSONAL_MEMORY, stop: &stop };
    let summary = simulator::run(&experiment, &mut run_dir, &options, &mut Silent).unwrap();
    assert!(summary.notes.iter().any(|note| note.contains("ward-1")), "{:?}", summary.notes);
    let devices: Vec<u64> = summary.algorithms["fedper"].devices.keys().copied().collect();
    assert_eq!(devices, [0, 2]);
    // A network without batch norm trains on one image.
    let cnn = format!("{TRAINING}batch_size = 10\n").replace("mobilenet_v1", "cnn");
    assert_eq!(Experiment::with_dataset(&settings(&cnn), folders([21, 1, 29])).unwrap().left_out, [0u64; 0]);
}

#[test]
fn what_nobody_can_train_is_refused_with_what_would_work() {
    let refused = |text: &str, train| match Experiment::with_dataset(&settings(text), folders(train)) {
        Err(Error::Config(message)) => message,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    };
    let one = format!("{TRAINING}batch_size = 1\n");
    for text in [one.clone(), format!("{one}drop_last = true\n")] {
        let message = refused(&text, [21, 9, 29]);
        assert!(message.contains("--batch-size 2") && !message.contains("drop-last"), "{message}");
    }
    let message = refused(&format!("{TRAINING}batch_size = 10\n"), [1, 1, 1]);
    assert!(message.contains("--model cnn"), "{message}");
    // What is advised works.
    let advised = format!("{TRAINING}batch_size = 2\n");
    assert!(Experiment::with_dataset(&settings(&advised), folders([21, 9, 29])).is_ok());
}

/// The field's usual partitions, with and without a last batch that is dropped.
#[test]
fn dirichlet_partitions_of_any_number_of_devices_are_accepted() {
    let dataset = fedper_data::load("fashion-mnist-small", None, &LoadOptions::default()).unwrap();
    for devices in [10, 20, 50, 100, 1000] {
        for alpha in [0.1, 0.01] {
            for seed in 1..=3 {
                for drop_last in [false, true].into_iter().take(1 + usize::from(seed == 1)) {
                    let text = format!(
                        "model = \"mobilenet_v1\"\nstem = \"imagenet\"\nsamples_per_client = \"all\"\nclients = {devices}\ndirichlet = {alpha}\nseed = {seed}\n\
                         batch_size = 20\ndrop_last = {drop_last}\n"
                    );
                    let experiment = Experiment::with_dataset(&settings(&text), dataset.clone()).unwrap();
                    assert_eq!(experiment.left_out, [0u64; 0], "{text}");
                    let filled = experiment.notes().iter().any(|note| note.contains("filled up"));
                    assert!(filled || !(devices == 100 && alpha == 0.01), "{text}: {:?}", experiment.notes());
                }
            }
        }
    }
}
