//! Python on either side: Flower's stock FedAvg drives our devices, our server drives a Python ClientApp.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fedper::experiment::Experiment;
use fedper_core::strategy::FedPer;

use crate::common::settings;
use crate::support::{Place, free_port, lines, simulated, url, venv, weights};

const CONFIG: &str = "model = 'mlp'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 40\nbatch_size = 10\n\
                      personal_layers = 1\nlr = 0.01\nalgorithm = ['fedper']\nrounds = 2\n";

/// Copies the Python app to where it can be built.
fn app(place: &Place) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flower/app");
    let to = place.path("app");
    std::fs::create_dir_all(to.join("fedper_python")).unwrap();
    for file in
        ["pyproject.toml", "fedper_python/__init__.py", "fedper_python/server.py", "fedper_python/client.py"]
    {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    to.to_str().unwrap().to_owned()
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}");
    text
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn flowers_fedavg_drives_our_devices() {
    let place = Place::new(venv());
    let port = free_port();
    let args = ["--insecure", "--isolation", "subprocess", "--disable-runtime-dependency-installation"];
    let _superlink = place.superlink(port, &args);
    std::fs::write(place.path("exp.toml"), CONFIG).unwrap();
    let _clients = [0, 1, 2].map(|device| {
        let (file, device) = (place.text("exp.toml"), device.to_string());
        place.client(&format!("client-{device}"), &url(port), &["--device", &device, "--config", &file])
    });
    // The base that our own server would begin with.
    let experiment = Experiment::prepare(&settings(CONFIG)).unwrap();
    let parts = experiment.parts(&FedPer);
    let begin = experiment.initial_state(&parts);
    let arrays: Vec<_> =
        begin.params().iter().map(|(spec, values)| (&spec.name, &spec.shape, values)).collect();
    std::fs::write(place.path("begin.json"), serde_json::to_vec(&arrays).unwrap()).unwrap();
    std::fs::create_dir_all(place.path("flwr")).unwrap();
    std::fs::write(
        place.path("flwr/config.toml"),
        format!("[superlink]\ndefault = \"here\"\n\n[superlink.here]\naddress = \"127.0.0.1:{port}\"\ninsecure = true\n"),
    )
    .unwrap();
    let mut command = place.flower("flwr");
    let config = format!("begin='{}' end='{}'", place.text("begin.json"), place.text("end.json"));
    command.args(["run", &app(&place), "here", "--run-config", &config]);
    run(command);
    let start = std::time::Instant::now();
    let end: serde_json::Value = loop {
        let text = std::fs::read(place.path("end.json")).unwrap_or_default();
        if let Ok(end) = serde_json::from_slice(&text) {
            break end;
        }
        assert!(
            start.elapsed() < Duration::from_secs(180),
            "{}\n{}",
            place.log("superlink"),
            place.log("client-0")
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    simulated(CONFIG, &place.path("simulated"));
    let ours = weights(&place.path("simulated/weights/fedper/base.safetensors"));
    let arrays = end["arrays"].as_array().unwrap();
    assert_eq!(arrays.len(), ours.layout().len());
    let mut distance = 0f64;
    for array in arrays {
        let ours = ours.get(array[0].as_str().unwrap()).unwrap();
        let theirs = array[1].as_array().unwrap();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            distance = distance.max((f64::from(*ours) - theirs.as_f64().unwrap()).abs());
        }
    }
    println!("Python's FedAvg over our devices: the base is {distance:e} from the simulator's");
    assert!(distance < 1e-6, "{distance}");
    // Its evaluation is the simulator's, weighted by test samples.
    let round = &lines(&place.path("simulated"), "rounds.jsonl")[1];
    let difference =
        round["accuracy"]["weighted"].as_f64().unwrap() - end["metrics"]["2"]["accuracy"].as_f64().unwrap();
    assert!(difference.abs() < 1e-6, "{round} and {end}");
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn a_python_device_and_ours_serve_in_one_federation() {
    let place = Place::new(venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let mut build = place.flower("flwr");
    build.args(["build", "--app", &app(&place)]);
    run(build);
    let fab = std::fs::read_dir(place.dir.path()).unwrap().flatten().map(|entry| entry.path());
    let fab = fab.into_iter().find(|path| path.extension().is_some_and(|end| end == "fab")).unwrap();
    let mut node = place.flower("flower-supernode");
    node.args(["--insecure", "--superlink", &format!("127.0.0.1:{port}"), "--host", "127.0.0.1"]);
    node.args(["--port", &free_port().to_string(), "--isolation", "subprocess"]);
    let _node = place.start("supernode", node);
    let _clients = [0, 2].map(|device| {
        let device = device.to_string();
        place.client(&format!("client-{device}"), &url(port), &["--device", &device])
    });
    let mut server = place.server(
        "deployed",
        &url(port),
        CONFIG,
        &["--fab", fab.to_str().unwrap(), "--round-timeout", "60"],
    );
    place.expect_success("deployed", &mut server, Duration::from_secs(240));
    let log = place.log("deployed-server");
    let rounds = lines(&place.path("deployed"), "rounds.jsonl");
    for round in &rounds {
        assert_eq!((&round["devices"], &round["failed"]), (&3.into(), &0.into()), "{log}");
    }
    let python: Vec<_> = lines(&place.path("deployed"), "devices.jsonl")
        .into_iter()
        .filter(|line| line["device"] == 1)
        .map(|line| (line["samples"].clone(), line["accuracy"].clone(), line["loss"].clone()))
        .collect();
    assert_eq!(python, vec![(8.into(), 0.75.into(), 2.0.into()); 2], "what the Python device said\n{log}");
}
