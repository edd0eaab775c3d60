//! What the tests of whole runs share.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fedper::config::Settings;
use fedper::experiment::Experiment;
use fedper::rundir::RunDir;
use fedper::rundir::records::Summary;
use fedper::simulator::{self, Observer, RunOptions};
use fedper_core::strategy::METHODS;

pub struct Silent;
impl Observer for Silent {}

pub fn settings(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

/// Runs a configuration (TOML) into `dir`, inside this process.
pub fn run(text: &str, dir: &Path, workers: usize) -> Summary {
    observed(text, dir, workers, &mut Silent)
}

pub fn observed(text: &str, dir: &Path, workers: usize, observer: &mut dyn Observer) -> Summary {
    let stop = AtomicBool::new(false);
    let options = RunOptions { workers, personal_memory: simulator::PERSONAL_MEMORY, stop: &stop };
    with_options(text, dir, &options, observer)
}

pub fn with_options(
    text: &str,
    dir: &Path,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Summary {
    let experiment = Experiment::prepare(&settings(text)).unwrap();
    let mut run_dir = RunDir::create(dir, &experiment).unwrap();
    simulator::run(&experiment, &mut run_dir, options, observer).unwrap()
}

/// The lines of a configuration that run every method that there is; FedRep's head need not train for as long as its paper's.
pub fn every_method() -> String {
    let names: Vec<&str> = METHODS.iter().map(|entry| entry.name).collect();
    format!("algorithm = {names:?}\nmethod.fedrep.head_epochs = 1\n")
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The program, without anything of the surrounding environment that could change what it prints.
pub fn fedper(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedper"));
    command.args(args).env("COLUMNS", "110").env_remove("XDG_CACHE_HOME");
    command
}

/// Runs the configuration in a file twice: to its end into `whole`, and into `killed`, killed and taken up again ever later
/// until it is at its end, at least twice.
pub fn whole_and_killed(config: &Path, whole: &Path, killed: &Path) {
    let begin = |out: &Path| {
        let mut command = fedper(&["run", "--quiet", "--config"]);
        command.arg(config).arg("--out").arg(out);
        command
    };
    let start = Instant::now();
    assert!(begin(whole).stdout(Stdio::null()).status().unwrap().success());
    let time = start.elapsed();
    let mut command = begin(killed);
    let mut kills = 0;
    for tenths in 1.. {
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        sleep(time.mul_f64(0.1 * f64::from(tenths)).max(Duration::from_millis(5)));
        let _ = child.kill();
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        assert_eq!(status.code(), None, "it failed by itself");
        kills += 1;
        command = if killed.join("config.toml").exists() {
            let mut command = fedper(&["run", "--quiet", "--resume"]);
            command.arg(killed);
            command
        } else {
            begin(killed)
        };
    }
    assert!(kills >= 2, "{kills} kills");
}

/// Everything in a run directory that must not depend on how it was run: records without times, and all weights.
pub fn results(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let rounds = std::fs::read_to_string(dir.join("rounds.jsonl")).unwrap();
    let timeless: Vec<String> = rounds
        .lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(record.as_object_mut().unwrap().remove("seconds").is_some());
            record.to_string()
        })
        .collect();
    assert!(!timeless.is_empty());
    out.insert("rounds".to_owned(), timeless.join("\n").into_bytes());
    for name in ["devices.jsonl", "partition.json", "config.toml"] {
        out.insert(name.to_owned(), std::fs::read(dir.join(name)).unwrap());
    }
    out.extend(weights(dir));
    out
}

/// Every weights file, by its path below `weights/`.
pub fn weights(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for algorithm in std::fs::read_dir(dir.join("weights")).unwrap().flatten() {
        for file in std::fs::read_dir(algorithm.path()).unwrap().flatten() {
            let name = format!("{}/{}", algorithm.file_name().display(), file.file_name().display());
            out.insert(name, std::fs::read(file.path()).unwrap());
        }
    }
    out
}

/// Fails with the name of the first file that differs, and its first line that does.
pub fn assert_same(left: &BTreeMap<String, Vec<u8>>, right: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (name, bytes) in left {
        if bytes == &right[name] {
            continue;
        }
        let (Ok(ours), Ok(theirs)) = (str::from_utf8(bytes), str::from_utf8(&right[name])) else {
            panic!("{name} differs");
        };
        let first = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
        panic!("{name} differs: {first:?}, {} and {} lines", ours.lines().count(), theirs.lines().count());
    }
}
