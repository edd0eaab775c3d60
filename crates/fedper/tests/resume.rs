//! A run that was killed, or interrupted, goes on and ends as if nothing had happened.

mod common;

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{assert_same, fedper, results, text};
use fedper_core::seed::{self, Purpose};

const KILLS: usize = 20;

fn args<'a>(out: &'a str, seed: &'a str) -> Vec<&'a str> {
    vec![
        "run",
        "--model",
        "mlp",
        "--clients",
        "6",
        "--samples-per-client",
        "60",
        "--rounds",
        "25",
        "--batch-size",
        "10",
        "--participation",
        "0.7",
        "--failure-rate",
        "0.1",
        "--algorithm",
        "fedper,fedavg,local",
        "--seed",
        seed,
        "--out",
        out,
    ]
}

#[test]
fn twenty_kills_at_random_moments_leave_no_trace() {
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("kills drawn from {moment}");
    let mut random = seed::derive(moment, Purpose::Failure, 0, 0);
    let dir = tempfile::tempdir().unwrap();
    let mut kills = 0;
    let mut run = 0;
    while kills < KILLS {
        run += 1;
        assert!(run <= 20, "the run ends too soon to be killed");
        let seed = run.to_string();
        let (whole, killed) =
            (dir.path().join(format!("whole-{run}")), dir.path().join(format!("killed-{run}")));
        let start = Instant::now();
        let status =
            fedper(&args(text(&whole), &seed)).arg("--quiet").stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
        let time = start.elapsed();

        let mut command = fedper(&args(text(&killed), &seed));
        loop {
            // Sometimes everything that devices keep is in memory, sometimes nothing is.
            let memory = if kills % 2 == 0 { "0" } else { "256MiB" };
            let mut child = command
                .args(["--quiet", "--personal-memory", memory])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // Early in the run, late, and in between; some kills come before the run directory is there.
            let wait = time.mul_f64(0.4 * seed::uniform(&mut random));
            sleep(wait);
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
            command = if killed.join("config.toml").exists() {
                fedper(&["run", "--resume", text(&killed)])
            } else {
                fedper(&args(text(&killed), &seed))
            };
        }
        assert_same(&results(&whole), &results(&killed));
        assert!(!killed.join("checkpoint").exists());
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    assert!(fedper(&args(text(&whole), "3")).stdout(Stdio::null()).output().unwrap().status.success());
    let child = fedper(&args(text(&stopped), "3")).stderr(Stdio::piped()).spawn().unwrap();
    while !std::fs::read(stopped.join("rounds.jsonl")).is_ok_and(|text| !text.is_empty()) {
        sleep(Duration::from_millis(2));
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains(&format!("fedper run --resume {}", stopped.display())), "{message}");
    let resumed = fedper(&["run", "--resume", text(&stopped)]).output().unwrap();
    assert!(resumed.status.success());
    assert_same(&results(&whole), &results(&stopped));
    // Once more: there is nothing left to do, and nothing changes.
    let again = fedper(&["run", "--resume", text(&stopped)]).output().unwrap();
    assert!(again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("complete"));
    assert_same(&results(&whole), &results(&stopped));
}

#[test]
fn a_run_killed_in_its_last_moment_leaves_no_checkpoint_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let seed = "7".to_owned();
    assert!(
        fedper(&args(text(&path), &seed)).arg("--quiet").stdout(Stdio::null()).status().unwrap().success()
    );
    // As it is between the summary and the end.
    std::fs::create_dir(path.join("checkpoint")).unwrap();
    std::fs::write(path.join("checkpoint/state.redb"), "left").unwrap();
    let before = results(&path);
    assert!(fedper(&["run", "--resume", text(&path)]).stdout(Stdio::null()).status().unwrap().success());
    assert!(!path.join("checkpoint").exists());
    assert_same(&before, &results(&path));
}
