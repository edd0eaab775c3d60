//! What a message advises works: each of these follows it.

mod common;

use common::{fedper, stderr, stdout, text};

fn refused(args: &[&str]) -> String {
    let output = fedper(args).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn the_names_that_a_pattern_can_match_are_those_of_its_network() {
    let said = refused(&["run", "--model", "cnn", "--personal-pattern", "classifier.*"]);
    assert!(said.contains("`fedper model summary --model cnn --parameters`"), "{said}");
    let output = fedper(&["model", "summary", "--model", "cnn", "--parameters"]).output().unwrap();
    assert!(stdout(&output).contains("conv2.0.weight"), "{}", stdout(&output));
}

#[test]
fn no_device_is_too_few_whatever_the_participants() {
    let said = refused(&["bench", "scale", "--devices", "0", "--participants", "1"]);
    assert!(said.contains("devices, participants") && !said.contains("lower"), "{said}");
}

#[test]
fn weights_that_are_gone_are_made_again_by_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let (out, again) = (dir.path().join("run"), dir.path().join("again"));
    let small =
        "run --quiet --model mlp --clients 3 --samples-per-client 20 --batch-size 10 --rounds 1 --out";
    let mut args: Vec<&str> = small.split(' ').collect();
    args.push(text(&out));
    assert!(fedper(&args).output().unwrap().status.success());
    std::fs::remove_dir_all(out.join("weights")).unwrap();
    let export = |run| {
        let args = ["--algorithm", "fedper", "--device", "1", "--out"];
        let mut command = fedper(&["model", "export", "--run", run]);
        command.args(args).arg(dir.path().join("weights.safetensors"));
        command.output().unwrap()
    };
    let config = out.join("config.toml");
    let said = stderr(&export(text(&out)));
    assert!(said.contains(&format!("fedper run --config {} --out", text(&config))), "{said}");
    let args = ["run", "--quiet", "--config", text(&config), "--out", text(&again)];
    assert!(fedper(&args).output().unwrap().status.success());
    assert!(export(text(&again)).status.success());
}

#[test]
fn a_size_as_the_message_has_it_is_one() {
    let said = refused(&["run", "--personal-memory", "lots"]);
    for size in ["64MiB", "2GB", "1000000"] {
        assert!(said.contains(size), "{said}");
        // Another complaint, or none.
        let output = fedper(&["run", "--personal-memory", size, "--lr", "nan"]).output().unwrap();
        assert!(stderr(&output).contains("lr is NaN"), "{}", stderr(&output));
    }
}
