//! The command line as a process: what it prints, what it writes, with which code it exits.

mod common;

use common::{fedper, stderr, stdout, text};
use fedper::rundir::records::PartitionRecord;

/// A run that takes a moment.
const SMALL: [&str; 14] = [
    "run",
    "--model",
    "mlp",
    "--clients",
    "4",
    "--samples-per-client",
    "30",
    "--rounds",
    "2",
    "--batch-size",
    "10",
    "--algorithm",
    "fedper,fedavg",
    "--quiet",
];

#[test]
fn bad_input_gets_one_line_and_a_code_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let truncated = dir.path().join("weights.safetensors");
    std::fs::write(&truncated, b"\x20\0\0\0\0\0\0\0{\"a\":").unwrap();
    let foreign = dir.path().join("cifar");
    std::fs::create_dir(&foreign).unwrap();
    for batch in 1..=5 {
        std::fs::write(foreign.join(format!("data_batch_{batch}.bin")), b"this is no CIFAR file").unwrap();
    }
    let out = dir.path().join("out");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--dataset", "imagenet"], 2, "there is no dataset 'imagenet'"),
        (&["--personal-layers", "5"], 2, "`cnn`, which has 4 blocks"),
        (&["--classes-per-client", "11"], 2, "classes"),
        (&["--model", "vgg16"], 2, "there is no model named `vgg16`"),
        (&["--algorithm", "fedper,fedsgd"], 2, "there is no algorithm `fedsgd`"),
        (&["--iid", "--dirichlet", "0.5"], 2, "contradict each other"),
        (
            &["--model", "mobilenet_v1", "--stem", "imagenet", "--batch-size", "1", "--drop-last"],
            2,
            "give --batch-size 2 or more",
        ),
        (&["--lr", "nan"], 2, "lr is NaN"),
        (&["--model", "mlp", "--init", text(&truncated)], 1, "not a safetensors file"),
        (&["--model", "mlp", "--init", "/nowhere/w.safetensors"], 1, "cannot read /nowhere/w.safetensors"),
        (&["--dataset", "cifar10", "--data-dir", text(&foreign)], 1, "data_batch_1.bin"),
        (&["--dataset", "cifar100", "--data-dir", text(&foreign)], 1, "cifar100"),
        (&["--personal-pattern", "head.*"], 2, "no parameter named `head.*`"),
        (&["--workers", "0"], 2, "workers is 0"),
        (&["--personal-memory", "lots"], 2, "give a size such as 64MiB"),
        (&["--dataset", "fashion-mnist-small", "--clients", "9000", "--samples-per-client", "0"], 2, "is 0"),
        (&["--config", "/nowhere.toml"], 1, "cannot read /nowhere.toml"),
        (&["--batch-size", "288230376151711744"], 2, "use smaller batches"),
    ];
    for (args, code, expected) in cases {
        let output = fedper(&["run", "--out", text(&out), "--quiet"]).args(*args).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        assert!(!out.exists(), "{args:?} wrote something");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn an_unwritable_output_folder_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "something else").unwrap();
    let output = fedper(&SMALL).args(["--out", text(&file.join("run"))]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("file/run"), "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "something else");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_loses_nothing_that_was_committed() {
    // /dev/full takes no byte: the records cannot be written, the run ends with the reason.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    assert!(fedper(&SMALL).args(["--out", text(&out)]).output().unwrap().status.success());
    let rounds = std::fs::read(out.join("rounds.jsonl")).unwrap();
    let full = dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::copy(out.join("config.toml"), full.join("config.toml")).unwrap();
    std::os::unix::fs::symlink("/dev/full", full.join("rounds.jsonl")).unwrap();
    let output = fedper(&["run", "--resume", text(&full), "--quiet"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("rounds.jsonl"), "{}", stderr(&output));
    assert_eq!(std::fs::read(out.join("rounds.jsonl")).unwrap(), rounds);
}

#[test]
fn a_run_prints_its_table_and_where_its_report_is() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let output = fedper(&SMALL).args(["--out", text(&out)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "--quiet");
    let printed = stdout(&output);
    for expected in ["algorithm", "fedper", "fedavg", text(&out.join("report.html"))] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    for file in [
        "config.toml",
        "partition.json",
        "rounds.jsonl",
        "devices.jsonl",
        "summary.json",
        "report.html",
        "accuracy.svg",
        "weights/fedper/base.safetensors",
        "weights/fedper/device-00003.safetensors",
        "weights/fedavg/base.safetensors",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    assert!(!out.join("weights/fedavg/device-00000.safetensors").exists());

    // The same folder again is refused, and nothing in it changes.
    let before = std::fs::read(out.join("summary.json")).unwrap();
    let again = fedper(&SMALL).args(["--out", text(&out)]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(stderr(&again).contains("there is a run in"), "{}", stderr(&again));
    assert_eq!(std::fs::read(out.join("summary.json")).unwrap(), before);

    // A device's own network, under its published names.
    let weights = dir.path().join("device.safetensors");
    let export = |extra: &[&str]| {
        fedper(&["model", "export", "--run", text(&out), "--algorithm", "fedper", "--out", text(&weights)])
            .args(extra)
            .output()
            .unwrap()
    };
    assert!(stderr(&export(&[])).contains("--device"));
    let exported = export(&["--device", "2"]);
    assert!(exported.status.success(), "{}", stderr(&exported));
    let params = fedper_nn::weights::read_safetensors(&std::fs::read(&weights).unwrap()).unwrap();
    assert_eq!(params.layout().len(), 6);
    assert!(stderr(&export(&["--device", "2"])).contains("exists"));

    // It starts another run.
    let next = dir.path().join("next");
    let output = fedper(&SMALL).args(["--out", text(&next), "--init", text(&weights)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));

    // Both side by side.
    let both = dir.path().join("both");
    let output = fedper(&["report", text(&out), text(&next), "--out", text(&both)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(both.join("report.html").is_file());
    let output = fedper(&["report", text(dir.path())]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn more_devices_than_images_share_them() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [
        "run",
        "--model",
        "mlp",
        "--clients",
        "20000",
        "--samples-per-client",
        "5",
        "--participation",
        "0.0002",
        "--eval-devices",
        "3",
        "--rounds",
        "2",
        "--algorithm",
        "fedper",
        "--out",
        text(&out),
    ];
    let output = fedper(&args).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("20000 devices, 100000 training and "), "{said}");
    assert!(said.contains("drawn with replacement, dealt at random, labels in an order"), "{said}");
    let partition = std::fs::read(out.join("partition.json")).unwrap();
    let partition: PartitionRecord = serde_json::from_slice(&partition).unwrap();
    assert_eq!(partition.devices.len(), 20000);
    let device = &partition.devices[12345];
    assert_eq!((device.device, device.train.len()), (12345, 5));
    assert_eq!(device.train_classes.iter().sum::<u32>(), 5);
    assert_eq!(device.test_classes.iter().sum::<u32>() as usize, device.test.len());
    let weights = std::fs::read_dir(out.join("weights/fedper")).unwrap().count();
    assert!(
        (6..=9).contains(&weights),
        "four devices a round have trained, and there is the base: {weights}"
    );
    assert!(std::fs::metadata(out.join("report.html")).unwrap().len() < 1_000_000);
}

#[test]
fn a_federation_of_any_size_is_measured() {
    let args = ["bench", "scale", "--participants", "2", "--samples-per-client", "4", "--rounds", "2"];
    let output = fedper(&args).args(["--devices", "3,40", "--json"]).output().unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(stderr(&output), "");
    for (figures, devices) in figures["scale"].as_array().unwrap().iter().zip([3, 40]) {
        assert_eq!(figures["devices"], devices);
        assert_eq!(figures["round_seconds"].as_array().unwrap().len(), 2);
        for key in ["startup_seconds", "seconds", "images_per_second", "run_dir_bytes"] {
            assert!(figures[key].as_f64().unwrap() > 0.0, "{key}: {figures}");
        }
    }
    let output = fedper(&args).args(["--devices", "1,40"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("2 participants of 1 devices"), "{}", stderr(&output));
    // A measured process that cannot go on says why.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("3")).unwrap();
    std::fs::write(dir.path().join("3/thesis.tex"), "years of work").unwrap();
    let output =
        fedper(&args).args(["--devices", "3", "--json", "--out", text(dir.path())]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not empty"), "{}", stderr(&output));
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn json_is_all_there_is_on_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args: Vec<&str> = SMALL.iter().copied().filter(|&arg| arg != "--quiet").collect();
    let output = fedper(&args).args(["--json", "--out", text(&out)]).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["algorithms"]["fedper"]["rounds"], 2);
    assert_eq!(summary["complete"], true);
    let progress = stderr(&output);
    assert!(progress.contains("round 2/2 fedavg: accuracy"), "{progress}");
    assert!(!progress.contains('\x1b'), "no terminal codes where there is no terminal");
}

#[test]
fn a_changed_configuration_is_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    assert!(fedper(&SMALL).args(["--out", text(&out)]).output().unwrap().status.success());
    let output = fedper(&["run", "--resume", text(&out), "--lr", "0.5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("lr is 0.5 here and 0.05 there"), "{}", stderr(&output));
    let output = fedper(&["run", "--resume", text(dir.path())]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("holds no run"), "{}", stderr(&output));
}

#[test]
fn diverged_training_ends_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let output =
        fedper(&SMALL).args(["--lr", "1e9", "--out", text(&dir.path().join("run"))]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("diverged") && message.contains("--lr"), "{message}");
}

#[test]
fn who_holds_what_is_printed_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let svg = dir.path().join("partition.svg");
    let output =
        fedper(&["data", "partition", "--clients", "5", "--classes-per-client", "2", "--svg", text(&svg)])
            .output()
            .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("Ankle boot"), "{}", stdout(&output));
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));
}

#[test]
fn offline_a_fetch_says_where_the_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let output = fedper(&["data", "fetch", "cifar10"])
        .env("XDG_CACHE_HOME", dir.path())
        .env("http_proxy", "http://127.0.0.1:9")
        .env("https_proxy", "http://127.0.0.1:9")
        .output()
        .unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(text(dir.path())), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

/// A step that takes no time.
const STEP: [&str; 10] =
    ["bench", "train", "--model", "mlp", "--image-size", "4", "--batch-size", "2", "--seconds", "0.01"];

#[test]
fn a_measured_step_is_a_table_and_json() {
    let output = fedper(&STEP).args(["--workers", "2", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(report["workers"], 2);
    let number = |key: &str| report[key].as_f64().unwrap();
    // Multiply-adds: 48 x 200 + 200 x 200 + 200 x 10.
    let work = 6.0 * 51_600.0 * number("images_per_second");
    assert!((number("gflops_nominal") * 1e9 - work).abs() < 1e-6 * work, "{report}");
    assert!((number("seconds") * number("images_per_second") - 4.0).abs() < 1e-6, "{report}");
    for worker in [0, 1] {
        assert!(report["steps"][worker].as_u64().unwrap() >= 3, "{report}");
    }

    let output = fedper(&STEP).output().unwrap();
    for expected in ["images/s", "2 x 3x4x4", "mlp"] {
        assert!(stdout(&output).contains(expected), "{}", stdout(&output));
    }
}

#[test]
fn what_a_step_computes_is_written_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("check.safetensors");
    let output = fedper(&STEP).args(["--lr", "0.1", "--check", text(&file)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let check = fedper_nn::weights::read_safetensors(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(check.get("batch.images").unwrap().len(), 2 * 4 * 4 * 3);
    assert_eq!(check.get("batch.labels").unwrap(), [0.0, 1.0]);
    assert_eq!(check.get("fc1.weight").unwrap().len(), 200 * 48);
    let losses = check.get("losses").unwrap();
    assert!(losses[2] < losses[0], "{losses:?}");
}

#[test]
fn a_measured_round_tells_where_the_time_goes() {
    let args = ["bench", "round", "--model", "mlp", "--dataset", "fashion-mnist-small", "--clients", "3"];
    let more = ["--samples-per-client", "24", "--rounds", "2"];
    let output = fedper(&args).args(more).arg("--json").output().unwrap();
    assert_eq!(stderr(&output), "");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Batches of 10, the last one left out.
    assert_eq!(report["images"], 60);
    assert_eq!(report["rounds"].as_array().unwrap().len(), 2);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    assert!((number(&report["images_per_second"]) * number(&report["seconds"]) - 60.0).abs() < 1e-6);
    for part in ["train", "average", "evaluate", "checkpoint"] {
        assert!(number(&report["parts"][part]) >= 0.0, "{report}");
    }
    let output = fedper(&args).args(more).output().unwrap();
    assert!(stdout(&output).contains("checkpoint"), "{}", stdout(&output));
    for (args, expected) in [
        (&["--rounds", "0"][..], "rounds is 0"),
        (&["--workers", "0"], "workers is 0"),
        (&["--algorithm", "fedper,fedavg"], "several algorithms"),
        (&["--dataset", "imagenet"], "there is no dataset"),
    ] {
        let output = fedper(&["bench", "round"]).args(args).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(expected) && message.lines().count() == 1, "{args:?}: {message}");
    }
}

#[test]
fn averaging_is_measured_beside_a_copy() {
    let args =
        ["bench", "aggregate", "--model", "mlp", "--image-size", "4", "--clients", "11", "--rounds", "1"];
    let output = fedper(&args).arg("--json").output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["images_per_second"], serde_json::Value::Null);
    assert_eq!(report["devices"], 11);
    // 48 x 200 + 200 and 200 x 200 + 200 values; the last layer is personal.
    assert_eq!(report["base_bytes"], 200_000);
    let output = fedper(&args).output().unwrap();
    assert!(stdout(&output).contains("read + written"), "{}", stdout(&output));
    for (flag, value, expected) in [
        ("--personal-layers", "3", "no base is left"),
        ("--personal-layers", "4", "3 blocks"),
        ("--clients", "0", "clients is 0"),
        ("--rounds", "0", "rounds is 0"),
    ] {
        let output = fedper(&["bench", "aggregate", "--model", "mlp", flag, value]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{value}: {message}");
        assert!(message.contains(expected) && message.lines().count() == 1, "{flag}: {message}");
    }
}

#[test]
fn a_measurement_that_cannot_be_made_is_one_clear_line() {
    let cases: &[(&[&str], &str)] = &[
        (&["--seconds", "0"], "seconds is 0"),
        (&["--seconds", "-1"], "seconds is -1"),
        (&["--workers", "0"], "workers is 0"),
        (&["--batch-size", "0"], "batch_size is 0"),
        (&["--image-size", "0"], "image_size is 0"),
        (&["--classes", "0"], "0 classes"),
        (&["--channels", "0"], "0x4x4"),
        (&["--lr", "nan"], "lr is NaN"),
        (&["--model", "vgg16"], "there is no model named `vgg16`"),
        (&["--model", "cnn"], "too small"),
        (&["--model", "mobilenet_v1", "--batch-size", "1"], "at least 2 samples"),
    ];
    for (args, expected) in cases {
        let mut command = fedper(&["bench", "train"]);
        let defaults = [("--model", "mlp"), ("--image-size", "4"), ("--batch-size", "2")];
        for (flag, value) in defaults.iter().filter(|(flag, _)| !args.contains(flag)) {
            command.args([flag, value]);
        }
        let output = command.args(*args).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(expected), "{args:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn every_command_explains_itself() {
    for command in [
        &["--help"][..],
        &["run", "--help"],
        &["predict", "--help"],
        &["report", "--help"],
        &["data", "--help"],
        &["data", "fetch", "--help"],
        &["data", "partition", "--help"],
        &["bench", "--help"],
        &["bench", "scale", "--help"],
        &["model", "summary", "--help"],
        &["model", "export", "--help"],
        &["model", "import", "--help"],
        &["bench", "--help"],
        &["bench", "train", "--help"],
        &["bench", "round", "--help"],
        &["bench", "aggregate", "--help"],
    ] {
        let output = fedper(command).output().unwrap();
        assert!(output.status.success(), "{command:?}");
        assert!(stdout(&output).contains("Usage"), "{command:?}");
    }
    assert_eq!(fedper(&["nonsense"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn augmentation_is_off_unless_asked_for_and_repeats_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, args: &[&str]| {
        let out = dir.path().join(name);
        let output = fedper(&SMALL).args(["--out", text(&out)]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        (common::weights(&out), std::fs::read_to_string(out.join("config.toml")).unwrap())
    };
    let (plain, config) = run("plain", &[]);
    assert!(config.contains("augment = \"none\""), "{config}");
    let (none, _) = run("none", &["--augment", "none"]);
    common::assert_same(&plain, &none);
    let (flipped, config) = run("flipped", &["--augment", "crop-flip"]);
    assert!(config.contains("augment = \"crop-flip\""), "{config}");
    assert_ne!(plain, flipped);
    // As a plain switch, and from its own configuration file in the older form.
    common::assert_same(&flipped, &run("switch", &["--augment"]).0);
    let older = dir.path().join("older.toml");
    std::fs::write(&older, config.replace("\"crop-flip\"", "true")).unwrap();
    common::assert_same(&flipped, &run("older", &["--config", text(&older)]).0);
}
