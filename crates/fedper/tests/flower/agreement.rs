//! A deployed federation ends as the simulated one does.

use std::time::Duration;

use fedper::experiment::Experiment;
use fedper::network::store::{Scope, Store};
use fedper_core::round::DeviceId;
use fedper_core::strategy::FedPer;

use crate::common::{assert_same, every_method, settings};
use crate::support::{Place, distance, free_port, lines, shared_results, simulated, url, venv, weights};

const WAIT: Duration = Duration::from_secs(180);

const CONFIG: &str = "model = 'cnn'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 40\nbatch_size = 10\n\
                      personal_layers = 1\nlr = 0.01\nrounds = 3\n";

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn a_process_a_device_equals_the_simulator_bit_for_bit() {
    equals_the_simulator(&format!("{CONFIG}{}failure_rate = 0.1", every_method()));
}

/// What a device decides from the seed and from its own images: the order of its classes, its batch-norm statistics.
#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn own_labels_and_statistics_are_those_of_the_simulator() {
    equals_the_simulator(
        "model = 'mobilenet_v1'\nstem = 'imagenet'\nclients = 3\niid = true\nown_labels = true\nsamples_per_client = 21\n\
         batch_size = 10\npersonal_layers = 1\nlr = 0.01\nrounds = 2\nbatch_norm = 'recalibrate'\n\
         algorithm = ['fedper', 'fedavg', 'local']",
    );
}

fn equals_the_simulator(config: &str) {
    let place = Place::new(venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let _clients = [0, 1, 2].map(|device| {
        let device = device.to_string();
        place.client(&format!("client-{device}"), &url(port), &["--device", &device, "--of", "3"])
    });
    let mut server = place.server("deployed", &url(port), config, &[]);
    simulated(config, &place.path("simulated"));
    place.expect_success("deployed", &mut server, WAIT);
    let deployed = place.path("deployed");
    assert_same(&shared_results(&deployed), &shared_results(&place.path("simulated")));
    assert!(deployed.join("report.html").is_file() && !deployed.join("network.json").exists());
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn personal_layers_are_those_of_the_simulator() {
    let place = Place::new(venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    // Devices of different sizes, whose mean is rounded.
    let config =
        "model = 'cnn'\nclients = 3\ndirichlet = 0.5\nbatch_size = 50\ndrop_last = true\npersonal_layers = 1\nlr = 0.01\n\
         rounds = 3\nalgorithm = ['fedper']\nsamples_per_client = 300\nseed = 4"
            .to_owned();
    let mut client = place.client("client", &url(port), &["--clients", "0..2"]);
    let mut server = place.server("deployed", &url(port), &config, &[]);
    simulated(&config, &place.path("simulated"));
    place.expect_success("deployed", &mut server, WAIT);
    client.kill();

    // Several devices answer with one mean: the same but for its rounding.
    let (ours, theirs) = (place.path("deployed"), place.path("simulated"));
    let base = |dir: &std::path::Path| weights(&dir.join("weights/fedper/base.safetensors"));
    let apart = distance(&base(&ours), &base(&theirs));
    println!("hosted together: bases are {apart:e} apart");
    assert!(apart < 1e-6, "bases are {apart} apart");
    for (a, b) in lines(&ours, "devices.jsonl").iter().zip(lines(&theirs, "devices.jsonl")) {
        assert_eq!((&a["device"], &a["round"], &a["samples"]), (&b["device"], &b["round"], &b["samples"]));
        let difference = (a["accuracy"].as_f64().unwrap() - b["accuracy"].as_f64().unwrap()).abs();
        assert!(difference < 1e-6, "{a} and {b}");
    }

    let experiment = Experiment::prepare(&settings(&config)).unwrap();
    let parts = experiment.parts(&FedPer);
    let store = Store::open(&place.path("client-state")).unwrap();
    let federations = store.federations().unwrap();
    assert_eq!(federations.len(), 1);
    let scope = Scope { federation: &federations[0], algorithm: "fedper" };
    for device in 0..3 {
        let state = store.state(scope, DeviceId(device), &parts).unwrap().unwrap();
        assert_eq!(state.round, 3);
        let theirs = weights(&theirs.join(format!("weights/fedper/device-{device:05}.safetensors")));
        let apart = distance(state.personal.params(), &theirs);
        assert!(apart < 1e-6, "device {device}'s layers are {apart} apart");
    }
}
