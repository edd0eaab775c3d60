//! Learning-rate schedules, clipping and early stop as a whole run has them.

mod common;

use common::{assert_same, fedper, results, run, text, weights, whole_and_killed};
use fedper::rundir::read_summary;

const MLP: &str = "model = 'mlp'\nclients = 4\nsamples_per_client = 40\nbatch_size = 10\nlocal_epochs = 1\nclasses_per_client = 3\nalgorithm = ['fedper', \
                   'fedavg-ft']\n";

#[test]
fn a_schedule_changes_the_rounds_it_says_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let losses = |name: &str, config: &str| {
        let out = dir.path().join(name);
        run(&format!("{MLP}rounds = 4\n{config}"), &out, 2);
        let rounds = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
        let loss = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            (record["algorithm"] == "fedper").then(|| record["train_loss"].as_f64().unwrap())
        };
        (rounds.lines().filter_map(loss).collect::<Vec<f64>>(), weights(&out))
    };
    let (plain, end) = losses("plain", "");
    let (constant, same) = losses("constant", "lr_schedule = 'constant'");
    assert_eq!(plain, constant);
    assert_same(&end, &same);
    // The first step comes with round 4.
    let (step, other) = losses("step", "lr_schedule = 'step'\nlr_step_rounds = 3\nlr_step_factor = 0.2");
    assert_eq!(plain[..3], step[..3]);
    assert_ne!(plain[3], step[3]);
    assert_ne!(end, other);
    // A factor of 1 is no schedule at all.
    assert_same(&end, &losses("one", "lr_schedule = 'step'\nlr_step_rounds = 1\nlr_step_factor = 1.0").1);
    // Half a cosine has the full rate in the first round only.
    let (cosine, _) = losses("cosine", "lr_schedule = 'cosine'");
    assert_eq!(plain[0], cosine[0]);
    assert_ne!(plain[1], cosine[1]);
    // A warm-up of one round trains that one at half the rate.
    let (warm, _) = losses("warm", "warmup_rounds = 1");
    let (half, _) = losses("half", "lr = 0.025");
    assert_eq!(warm[0], half[0]);
    assert_ne!(warm[1], half[1]);
}

#[test]
fn clipping_far_above_every_gradient_changes_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, config: &str| {
        let out = dir.path().join(name);
        run(&format!("{MLP}rounds = 2\n{config}"), &out, 2);
        weights(&out)
    };
    let plain = of("plain", "");
    assert_same(&plain, &of("far", "clip_norm = 1e9"));
    assert_ne!(plain, of("near", "clip_norm = 0.1"));
}

/// A learning rate of next to nothing leaves the accuracy where it is.
const FLAT: &str = "lr = 1e-9\nrounds = 9\npatience = 3\n";

#[test]
fn an_algorithm_ends_on_its_plateau_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("flat.toml");
    std::fs::write(&config, format!("{MLP}{FLAT}")).unwrap();
    let out = dir.path().join("run");
    let output = fedper(&["run", "--config", text(&config), "--out", text(&out)]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("fedper ends after round 4: its accuracy has stopped rising"), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("Stopped on a plateau of the test accuracy: fedper ended after round 4"),
        "{printed}"
    );
    let summary = read_summary(&out).unwrap();
    assert!(summary.complete);
    let fedper_summary = &summary.algorithms["fedper"];
    assert!(fedper_summary.stopped_early);
    assert_eq!(fedper_summary.rounds, 4);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("ended early on a plateau"), "the report says so");
    // Where the accuracy rises in time nothing ends early, and the run is that without patience.
    let (with, without) = (dir.path().join("with"), dir.path().join("without"));
    let config = format!("{MLP}rounds = 3\n");
    let summary = run(&format!("{config}patience = 3"), &with, 2);
    assert!(summary.algorithms.values().all(|a| !a.stopped_early && a.rounds == 3));
    run(&config, &without, 2);
    assert_same(&weights(&with), &weights(&without));
}

/// With everything on, a run that is killed again and again ends as one that is not.
#[test]
fn kills_leave_no_trace_with_everything_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let everything = "rounds = 40\nlr_schedule = 'cosine'\nwarmup_rounds = 2\nclip_norm = 0.7\npatience = 4\n\
                      min_delta = 0.002\naugment = 'crop-flip'\nparticipation = 0.7\n";
    std::fs::write(&config, format!("{MLP}{everything}")).unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    whole_and_killed(&config, &whole, &killed);
    assert!(read_summary(&whole).unwrap().algorithms.values().any(|a| a.stopped_early));
    assert_same(&results(&whole), &results(&killed));
}
