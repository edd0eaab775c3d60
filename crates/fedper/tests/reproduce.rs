//! `fedper reproduce` as a process: a figure from nothing, killed and taken up again, not run twice.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::stderr;

fn reproduce(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedper"));
    command.args(["reproduce", "--scale", "smoke", "--out"]).arg(out).args(more);
    command
}

#[test]
fn a_panel_is_run_once_survives_a_kill_and_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("figures");
    let panel = ["fig2", "--panel", "mobilenet-k10"];
    let mut child = reproduce(&out, &panel).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let rounds = out.join("runs/fashion-mnist-small-mobilenet_v1-k10-fedper-kp2-6rounds-seed1/rounds.jsonl");
    let start = Instant::now();
    while fs::read_to_string(&rounds).map_or(0, |text| text.lines().count()) < 1 {
        assert!(start.elapsed() < Duration::from_secs(300), "no round");
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let output = reproduce(&out, &panel).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let table = String::from_utf8_lossy(&output.stdout);
    let row = |method: &str| {
        table
            .lines()
            .find(|line| line.contains("MobileNet-v1, k = 10") && line.contains(method))
            .unwrap()
            .to_owned()
    };
    assert!(row("FedPer").contains("83.0 %"), "the published value stands beside it: {table}");
    assert!(table.contains("dataset fashion-mnist-small (paper: cifar10)"), "{table}");
    let svg = fs::read_to_string(out.join("fig2.svg")).unwrap();
    roxmltree::Document::parse(&svg).unwrap();
    assert!(fs::read(out.join("fig2.png")).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    let csv = fs::read_to_string(out.join("fig2.csv")).unwrap();
    let line = csv.lines().find(|line| line.starts_with("\"MobileNet-v1, k = 10\",FedPer,1,6,0.")).unwrap();

    // The table says what the run recorded.
    let last = fs::read_to_string(&rounds).unwrap().lines().last().unwrap().to_owned();
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    let accuracy = last["accuracy"]["mean"].as_f64().unwrap();
    assert!(line.contains(&format!(",{accuracy:.4},")), "{line} but {accuracy}");

    // What is complete is not run again, whether its weights are still there or not.
    let before = fs::metadata(&rounds).unwrap().modified().unwrap();
    fs::remove_dir_all(rounds.with_file_name("weights")).unwrap();
    let again = reproduce(&out, &panel).output().unwrap();
    assert!(again.status.success() && !stderr(&again).contains("Run "), "{}", stderr(&again));
    assert_eq!(fs::metadata(&rounds).unwrap().modified().unwrap(), before);

    fs::remove_file(out.join("fig2.svg")).unwrap();
    let drawn = reproduce(&out, &["fig2", "--draw"]).output().unwrap();
    assert!(drawn.status.success() && out.join("fig2.svg").is_file(), "{}", stderr(&drawn));

    let list = reproduce(&out, &["fig2", "--panel", "k10,k8", "--list"]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert_eq!(list.lines().filter(|line| line.ends_with("done")).count(), 2, "{list}");
    assert_eq!(list.lines().filter(|line| line.ends_with("to do")).count(), 6, "{list}");
}

#[test]
fn what_cannot_be_had_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let unknown = reproduce(folder.path(), &["fig9"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("there is no figure `fig9`"), "{}", stderr(&unknown));

    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let data = format!("cifar10={}", empty.display());
    let missing = Command::new(env!("CARGO_BIN_EXE_fedper"))
        .args(["reproduce", "fig2", "--panel", "mobilenet-k4", "--data-dir", &data, "--out"])
        .arg(folder.path().join("out"))
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1), "{}", stderr(&missing));
    assert!(
        stderr(&missing).contains("fig2: ") && stderr(&missing).contains("empty"),
        "{}",
        stderr(&missing)
    );
    assert!(
        String::from_utf8_lossy(&missing.stdout).contains("MobileNet-v1, k = 4"),
        "what is there is drawn"
    );
}
