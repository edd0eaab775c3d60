//! An algorithm that fails ends with its reason, and the others go on.

mod common;

use common::{assert_same, fedper, results, stderr, stdout, text, whole_and_killed};
use fedper::rundir::read_summary;

/// Weight decay that multiplies all weights by -9 in each step: what was averaged has been through all rounds and is no longer
/// finite after some, what stays on a device only through those in which it was drawn.
const GROWS: &str = "model = 'mlp'\nclients = 4\nsamples_per_client = 20\nbatch_size = 10\nparticipation = 0.25\n\
                     lr = 0.1\nweight_decay = 100\nmomentum = 0.0\nalgorithm = ['fedavg', 'local', 'fedavg-ft']\n\
                     rounds = 4\nseed = 7\nclasses_per_client = 3\nlocal_epochs = 1\neval_every = 1\n";

#[test]
fn the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (dir.path().join("config.toml"), dir.path().join("run"));
    std::fs::write(&config, format!("{GROWS}new_clients = 1\n").replace("clients = 4", "clients = 5"))
        .unwrap();
    let output = fedper(&["run", "--config", text(&config), "--out", text(&out)]).output().unwrap();
    let (said, printed) = (stderr(&output), stdout(&output));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("fedavg ends here: no device came through round"), "{said}");
    assert!(printed.contains("fedavg ended before its time: no device came through round"), "{printed}");
    assert!(!printed.contains("local ended before its time"), "{printed}");
    let summary = read_summary(&out).unwrap();
    let fedavg = &summary.algorithms["fedavg"];
    assert!(summary.complete && fedavg.rounds < 4 && !fedavg.stopped_early, "{fedavg:?}");
    let reason = fedavg.ended.as_deref().unwrap();
    assert!(reason.contains("training diverged") && reason.contains("--lr"), "{reason}");
    let local = &summary.algorithms["local"];
    assert_eq!((local.rounds, &local.ended), (4, &None));
    // What both of them train is the same, and what they leave is finite.
    assert_eq!(summary.algorithms["fedavg-ft"].rounds, fedavg.rounds);
    for (name, bytes) in common::weights(&out) {
        let params = fedper_nn::weights::read_safetensors(&bytes).unwrap();
        assert_eq!(params.first_non_finite(), None, "{name}");
    }
    let last = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let last = last.lines().rfind(|line| line.contains("\"fedavg\"")).unwrap().to_owned();
    assert!(last.contains("\"devices\":0") && last.contains("\"ended\":\"no device"), "{last}");
    assert!(last.contains("\"accuracy\":null"), "{last}");
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(
        page.contains("fedavg ended before its time") && page.contains("no device came through"),
        "{page}"
    );
    // What ended leads to nothing for a new device.
    let new = summary.new_clients.unwrap();
    assert_eq!(new.algorithms.keys().collect::<Vec<_>>(), ["local"]);
    // It is complete; more rounds are more for those that go on.
    let before = results(&out);
    assert!(fedper(&["run", "--quiet", "--resume", text(&out)]).output().unwrap().status.success());
    assert_same(&before, &results(&out));
    let output = fedper(&["run", "--quiet", "--resume", text(&out), "--rounds", "5"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = read_summary(&out).unwrap();
    assert_eq!((summary.algorithms["fedavg"].rounds, summary.algorithms["local"].rounds), (fedavg.rounds, 5));
}

#[test]
fn a_run_that_goes_on_knows_what_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, GROWS).unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    whole_and_killed(&config, &whole, &killed);
    assert!(read_summary(&whole).unwrap().algorithms["fedavg"].ended.is_some());
    assert_same(&results(&whole), &results(&killed));
}

#[test]
fn a_run_of_which_nothing_came_through_fails_with_every_reason() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [
        "--model",
        "mlp",
        "--clients",
        "3",
        "--samples-per-client",
        "20",
        "--batch-size",
        "10",
        "--rounds",
        "2",
        "--lr",
        "1e9",
        "--eval-every",
        "1",
        "--algorithm",
        "fedper,fedavg,local",
        "--classes-per-client",
        "3",
    ];
    let check = |output: std::process::Output| {
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("fedper: no algorithm came through: "), "{said}");
        for name in ["fedper", "fedavg", "local"] {
            assert!(
                last.contains(&format!("{name}: no device came through round 1: training diverged")),
                "{said}"
            );
        }
        stdout(&output)
    };
    check(fedper(&["run", "--out", text(&out)]).args(args).output().unwrap());
    assert!(out.join("report.html").is_file() && !out.join("checkpoint").exists());
    // There is nothing to go on with, and the reason is there.
    let json = check(fedper(&["run", "--json", "--resume", text(&out)]).output().unwrap());
    let summary: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(summary["algorithms"]["local"]["ended"].as_str().unwrap().contains("--lr"));
}

#[test]
fn a_measurement_that_diverges_is_an_error() {
    let output =
        fedper(&["bench", "round", "--model", "mlp", "--dataset", "fashion-mnist-small", "--clients", "3"])
            .args(["--samples-per-client", "24", "--rounds", "2", "--lr", "1e9"])
            .output()
            .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("diverged") && stderr(&output).lines().count() == 1,
        "{}",
        stderr(&output)
    );
}
