//! A log that nobody reads, or that has no room, ends no run; a result that cannot be written is an error.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{assert_same, fedper, results, stderr, text};

const RUN: [&str; 15] = [
    "run",
    "--model",
    "mlp",
    "--clients",
    "4",
    "--samples-per-client",
    "30",
    "--rounds",
    "3",
    "--batch-size",
    "10",
    "--algorithm",
    "fedper,fedavg",
    "--failure-rate",
    "0.2",
];

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that nobody reads any more.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn run(out: &Path) -> Command {
    let mut command = fedper(&RUN);
    command.arg("--out").arg(out);
    command
}

#[test]
fn a_run_goes_on_without_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    assert!(run(&whole).output().unwrap().status.success());
    let expected = results(&whole);
    type End = fn() -> Stdio;
    let logs: [(&str, End, End); 4] = [
        ("full", Stdio::null, || full().into()),
        ("closed", Stdio::null, closed),
        ("both-closed", closed, closed),
        ("full-and-closed", closed, || full().into()),
    ];
    for (name, out, log) in logs {
        let path = dir.path().join(name);
        let status = run(&path).stdout(out()).stderr(log()).status().unwrap();
        assert_eq!(status.code(), Some(0), "{name}");
        assert_same(&expected, &results(&path));
        assert!(path.join("report.html").is_file() && !path.join("checkpoint").exists(), "{name}");
    }
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_reader_who_left_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("run");
    assert!(run(&done).output().unwrap().status.success());
    let image = dir.path().join("image.png");
    image::GrayImage::new(28, 28).save(&image).unwrap();
    let step =
        ["bench", "train", "--model", "mlp", "--image-size", "4", "--batch-size", "2", "--seconds", "0.01"];
    let commands: [&[&str]; 12] = [
        &["run", "--resume", text(&done), "--json"],
        &["run", "--resume", text(&done)],
        &["report", text(&done)],
        &["data", "list"],
        &["data", "partition", "--clients", "5"],
        &["model", "summary"],
        &["predict", "--run", text(&done), "--device", "1", "--json", text(&image)],
        &["predict", "--run", text(&done), "--device", "1", text(&image)],
        &["reproduce", "all", "--scale", "smoke", "--list"],
        &step,
        &["bench", "aggregate", "--model", "mlp", "--image-size", "4", "--clients", "3", "--rounds", "1"],
        &[
            "bench",
            "scale",
            "--participants",
            "2",
            "--samples-per-client",
            "4",
            "--rounds",
            "1",
            "--devices",
            "3",
        ],
    ];
    for args in commands {
        let output = fedper(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(&output));
        let said = stderr(&output);
        assert!(said.lines().last().unwrap().contains("cannot write standard output"), "{args:?}: {said}");
        let output = fedper(args).stdout(closed()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn an_error_that_nobody_hears_keeps_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("run");
    assert!(run(&done).output().unwrap().status.success());
    let no_image = dir.path().join("no-image.png");
    std::fs::write(&no_image, "none").unwrap();
    let cases: [(&[&str], i32); 3] = [
        (&["run", "--lr", "nan"], 2),
        (&["predict", "--run", text(&done), "--device", "1", text(&no_image)], 1),
        (&["report", "/nowhere"], 2),
    ];
    for (args, code) in cases {
        let status = fedper(args).stdout(Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
        let status = fedper(args).stdout(Stdio::null()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_run_started_to_outlive_its_terminal_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut args = RUN;
    args[8] = "60";
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_fedper")).args(args).args(["--out", text(&out)]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !std::fs::read(out.join("rounds.jsonl")).is_ok_and(|text| !text.is_empty()) {
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(out.join("summary.json").is_file());
}
