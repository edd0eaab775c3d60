//! A run goes on to more rounds than it was begun for, and ends as one that was begun for them.

mod common;

use std::path::Path;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{assert_same, every_method, fedper, results, run, stderr, text};
use fedper::rundir::read_summary;

const MLP: &str = "model = 'mlp'\nclients = 5\nclasses_per_client = 3\nsamples_per_client = 43\nbatch_size = 10\n\
                   lr = 0.05\nmomentum = 0.5\nlocal_epochs = 1\neval_every = 1\n";

const EVERYTHING: &str = "algorithm = ['fedper', 'fedavg', 'local', 'fedavg-ft']\nparticipation = 0.5\n\
                          failure_rate = 0.2\naugment = 'crop-flip'\nwarmup_rounds = 2\nclip_norm = 1.0\n\
                          new_clients = 1\n";

fn resume(dir: &Path, args: &[&str]) -> Output {
    fedper(&["run", "--quiet", "--resume", text(dir)]).args(args).output().unwrap()
}

fn goes_on(dir: &Path, args: &[&str]) {
    let output = resume(dir, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
}

#[test]
fn a_finished_run_goes_on_to_more_rounds() {
    let dir = tempfile::tempdir().unwrap();
    for (name, settings) in [
        ("everything", EVERYTHING),
        ("schedule", "lr_schedule = 'step'\nlr_step_rounds = 4\nlr_step_factor = 0.5\n"),
        ("methods", &format!("momentum = 0.0\n{}participation = 0.5\n", every_method())),
        (
            "statistics",
            "model = 'mobilenet_v1'\nbatch_norm = 'local'\nalgorithm = ['fedper']\nclients = 2\nsamples_per_client = 8\nbatch_size = 4\n",
        ),
    ] {
        let mut table: toml::Table = MLP.parse().unwrap();
        table.extend(settings.parse::<toml::Table>().unwrap());
        let of = |name: String, rounds: u32| {
            let out = dir.path().join(name);
            run(&format!("rounds = {rounds}\n{table}"), &out, 2);
            out
        };
        let (short, whole) = (of(format!("{name}-3"), 3), of(format!("{name}-7"), 7));
        goes_on(&short, &["--rounds", "5"]);
        goes_on(&short, &["--rounds", "7", "--personal-memory", "0"]);
        assert_same(&results(&whole), &results(&short));
        let [ours, theirs] = [&short, &whole].map(|dir| read_summary(dir).unwrap());
        assert_eq!((ours.rounds, ours.complete, &ours.command), (Some(7), true, &theirs.command));
        assert_eq!(ours.new_clients, theirs.new_clients);
        for (name, a) in &ours.algorithms {
            let b = &theirs.algorithms[name];
            assert_eq!((a.rounds, a.last, a.best_round, &a.devices), (7, b.last, b.best_round, &b.devices));
        }
        assert!(!short.join("checkpoint").exists());
        // Now it is complete with 7.
        let output = resume(&short, &[]);
        assert!(output.status.success());
        assert_same(&results(&whole), &results(&short));
    }
}

#[test]
fn an_interrupted_run_goes_on_to_another_number_of_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("{MLP}{EVERYTHING}rounds = 15\n")).unwrap();
    for (name, rounds) in [("more", "20"), ("fewer", "12")] {
        let (killed, whole) = (dir.path().join(name), dir.path().join(format!("{name}-whole")));
        let begin = |out: &Path, args: &[&str]| {
            let mut command = fedper(&["run", "--quiet", "--config", text(&config), "--out", text(out)]);
            command.args(args).stdout(Stdio::null());
            command
        };
        assert!(begin(&whole, &["--rounds", rounds]).status().unwrap().success());
        let mut command = begin(&killed, &[]);
        // Killed in the run as it was begun, and in what it goes on with.
        let mut kills = 0;
        for lines in [6, 20, 34] {
            let mut child = command.spawn().unwrap();
            while std::fs::read_to_string(killed.join("rounds.jsonl")).unwrap_or_default().lines().count()
                < lines
            {
                assert!(child.try_wait().unwrap().is_none(), "it was to be killed");
                sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            kills += u32::from(!child.wait().unwrap().success());
            command = fedper(&["run", "--quiet", "--resume", text(&killed), "--rounds", rounds]);
            command.stdout(Stdio::null());
        }
        assert_eq!(kills, 3);
        // What it goes on to is in its configuration by now.
        goes_on(&killed, &[]);
        assert_same(&results(&whole), &results(&killed));
    }
}

#[test]
fn a_finished_run_killed_while_it_goes_on_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (short, whole) = (dir.path().join("short"), dir.path().join("whole"));
    run(&format!("{MLP}{EVERYTHING}rounds = 3\n"), &short, 2);
    run(&format!("{MLP}{EVERYTHING}rounds = 12\n"), &whole, 2);
    for wait in [5, 15, 30, 60, 90, 120] {
        let mut child = fedper(&["run", "--quiet", "--resume", text(&short), "--rounds", "12"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(wait));
        let _ = child.kill();
        child.wait().unwrap();
    }
    goes_on(&short, &["--rounds", "12"]);
    assert_same(&results(&whole), &results(&short));
}

#[test]
fn what_would_be_another_run_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], &str); 7] = [
        ("", &["--rounds", "2"], "rounds is 2, but 4 are done"),
        ("", &["--rounds", "0"], "rounds is 0"),
        ("", &["--rounds", "8", "--lr", "0.1"], "lr is 0.1 here and 0.05 there"),
        ("", &["--rounds", "8", "--clients", "6"], "clients is 6 here and 5 there"),
        ("lr_schedule = 'cosine'\n", &["--rounds", "8"], "lr_schedule = cosine"),
        ("lr_schedule = 'step'\n", &["--rounds", "8"], "say so with --lr-step-rounds 2"),
        ("patience = 2\n", &["--rounds", "8", "--patience", "3"], "patience is 3 here and 2 there"),
    ];
    for (i, (settings, args, expected)) in cases.into_iter().enumerate() {
        let out = dir.path().join(i.to_string());
        run(&format!("{MLP}rounds = 4\n{settings}"), &out, 2);
        let before = (results(&out), std::fs::read(out.join("summary.json")).unwrap());
        let output = resume(&out, args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{args:?}: {said}");
        assert!(before == (results(&out), std::fs::read(out.join("summary.json")).unwrap()), "{args:?}");
        assert!(!out.join("checkpoint").exists(), "{args:?}");
        goes_on(&out, &[]);
    }
    // With the advice followed.
    goes_on(&dir.path().join("5"), &["--rounds", "8", "--lr-step-rounds", "2"]);
    let whole = dir.path().join("whole");
    run(&format!("{MLP}rounds = 8\nlr_schedule = 'step'\nlr_step_rounds = 2\n"), &whole, 2);
    assert_same(&results(&whole), &results(&dir.path().join("5")));
}

#[test]
fn what_ended_on_its_plateau_stays_there_unless_it_was_the_end_that_was_tested_out_of_turn() {
    let dir = tempfile::tempdir().unwrap();
    // A learning rate of next to nothing leaves the accuracy where it is: it ends with round 6, the third in turn.
    let flat =
        MLP.replace("lr = 0.05", "lr = 1e-9").replace("eval_every = 1", "eval_every = 2") + "patience = 3\n";
    let of = |rounds: u32| {
        let out = dir.path().join(rounds.to_string());
        run(&format!("{flat}rounds = {rounds}\n"), &out, 2);
        out
    };
    let whole = of(20);
    // Rounds 5 and 7 are evaluated only where they are the last.
    for rounds in [5, 7] {
        let short = of(rounds);
        goes_on(&short, &["--rounds", "20"]);
        assert_same(&common::weights(&whole), &common::weights(&short));
        let rounds = |dir: &Path| read_summary(dir).unwrap().algorithms["fedavg"].rounds;
        assert_eq!((rounds(&short), rounds(&whole)), (6, 6));
        assert!(read_summary(&short).unwrap().algorithms.values().all(|a| a.stopped_early));
    }
}
