//! A result depends on the configuration and on nothing else, bit for bit.

mod common;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{Silent, assert_same, results, run, weights, with_options};
use fedper::simulator::RunOptions;
use fedper_core::params::Params;

const MLP: &str = "model = 'mlp'\nclients = 5\nclasses_per_client = 3\nsamples_per_client = 43\nrounds = 3\n\
                   batch_size = 10\nlr = 0.05\nweight_decay = 0.001\n";

#[test]
fn the_number_of_workers_does_not_matter() {
    for config in [
        format!(
            "{MLP}algorithm = ['fedper', 'fedavg', 'local', 'fedavg-ft']\nparticipation = 0.6\nfailure_rate = 0.3\n\
             augment = true"
        ),
        // Batch norm with its statistics, and a partial last batch.
        "model = 'mobilenet_v1'\nclients = 3\nsamples_per_client = 43\nrounds = 2\nbatch_size = 16\n\
         algorithm = ['fedper', 'fedavg-ft']"
            .to_owned(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, workers| {
            run(&config, &dir.path().join(name), workers);
            results(&dir.path().join(name))
        };
        let one = of("one", 1);
        assert_same(&one, &of("two", 2));
        assert_same(&one, &of("five", 5));
    }
}

#[test]
fn the_memory_for_personal_layers_does_not_matter() {
    // fedper keeps the last two of mlp's layers (41 kB), local all of them (670 kB).
    let config = format!(
        "{MLP}algorithm = ['fedper', 'fedavg', 'local']\nparticipation = 0.6\nfailure_rate = 0.3\nrounds = 6\n\
         eval_devices = 4"
    )
    .replace("rounds = 3\n", "");
    let dir = tempfile::tempdir().unwrap();
    let of = |personal_memory: u64| {
        let path = dir.path().join(personal_memory.to_string());
        let options = RunOptions { workers: 2, personal_memory, stop: &AtomicBool::new(false) };
        with_options(&config, &path, &options, &mut Silent);
        results(&path)
    };
    let plenty = of(1 << 30);
    assert!(plenty.len() > 12, "devices have trained: {:?}", plenty.keys());
    assert_same(&plenty, &of(0));
    // Some of fedper's devices fit, one of local's.
    assert_same(&plenty, &of(1_500_000));
}

#[test]
fn the_written_configuration_repeats_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    run(&format!("{MLP}seed = 9\ndirichlet = 0.5").replace("classes_per_client = 3\n", ""), &first, 2);
    run(&std::fs::read_to_string(first.join("config.toml")).unwrap(), &second, 2);
    assert_same(&results(&first), &results(&second));
}

#[test]
fn the_seed_matters() {
    let dir = tempfile::tempdir().unwrap();
    let of = |seed: u32| {
        let path = dir.path().join(seed.to_string());
        run(&format!("{MLP}algorithm = ['fedavg']\nseed = {seed}"), &path, 2);
        weights(&path)
    };
    assert_ne!(of(1), of(2));
}

/// The whole network of `device` at the end of a run.
fn network(dir: &Path, algorithm: &str, device: u32) -> Vec<(String, Vec<u32>)> {
    let folder = dir.join("weights").join(algorithm);
    let mut named = Vec::new();
    for file in ["base.safetensors".to_owned(), format!("device-{device:05}.safetensors")] {
        if let Ok(bytes) = std::fs::read(folder.join(file)) {
            let params: Params = fedper_nn::weights::read_safetensors(&bytes).unwrap();
            named.extend(
                params
                    .iter()
                    .map(|(spec, values)| (spec.name.clone(), values.iter().map(|v| v.to_bits()).collect())),
            );
        }
    }
    named.sort();
    named
}

#[test]
fn no_personal_layer_is_fedavg_and_all_personal_layers_are_local_training() {
    for (model, all, extra) in [("mlp", 3, ""), ("mobilenet_v1", 15, "rounds = 2\n"), ("cnn", 4, "")] {
        let dir = tempfile::tempdir().unwrap();
        let config = MLP.replace("'mlp'", &format!("'{model}'"));
        let config = if extra.is_empty() { config } else { config.replace("rounds = 3\n", extra) };
        for (k_p, twin) in [(0, "fedavg"), (all, "local")] {
            let path = dir.path().join(k_p.to_string());
            let config = format!("{config}algorithm = ['fedper', '{twin}']\npersonal_layers = {k_p}");
            let summary = run(&config, &path, 2);
            let (ours, theirs) = (&summary.algorithms["fedper"], &summary.algorithms[twin]);
            assert_eq!(ours.devices, theirs.devices, "{model} {k_p}");
            assert_eq!(
                (ours.bytes_down, ours.bytes_up, ours.accuracy),
                (theirs.bytes_down, theirs.bytes_up, theirs.accuracy)
            );
            for device in 0..5 {
                let ours = network(&path, "fedper", device);
                assert!(!ours.is_empty());
                assert!(ours == network(&path, twin, device), "{model}, K_P {k_p}, device {device}");
            }
        }
    }
}

#[test]
fn batch_norm_statistics_go_where_they_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let base = |way: &str| {
        let path = dir.path().join(way);
        run(
            &format!(
                "model = 'mobilenet_v1'\nclients = 2\nsamples_per_client = 20\nrounds = 1\nbatch_size = 10\n\
                 algorithm = ['fedper']\npersonal_layers = 1\nbatch_norm = '{way}'"
            ),
            &path,
            2,
        );
        let bytes = std::fs::read(path.join("weights/fedper/base.safetensors")).unwrap();
        fedper_nn::weights::read_safetensors(&bytes).unwrap()
    };
    let has_statistics = |params: &Params| params.get("bn1.running_mean").is_some();
    assert!(has_statistics(&base("average")) && has_statistics(&base("reset")));
    assert!(!has_statistics(&base("local")));
}

/// Every instruction set repeats its own results bit for bit whatever the number of workers; two differ by rounding.
fn kernels_repeat_and_agree(experiment: &str, precision: &str, tolerance: f64) {
    let dir = tempfile::tempdir().unwrap();
    let of = |kernels: &str, workers: &str| {
        let out = dir.path().join(format!("{kernels}-{workers}"));
        let mut args = vec!["run", "--quiet", "--algorithm", "fedper"];
        args.extend(experiment.split(' '));
        args.extend(["--precision", precision, "--workers", workers, "--out", out.to_str().unwrap()]);
        let done = common::fedper(&args).env("FEDPER_KERNELS", kernels).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (weights(&out), network(&out, "fedper", 1))
    };
    let mut networks = Vec::new();
    for set in fedper_nn::InstructionSet::available() {
        let (one, network) = of(&set.to_string(), "1");
        assert_same(&one, &of(&set.to_string(), "2").0);
        networks.push((set, network));
    }
    let (_, first) = &networks[0];
    for (set, other) in &networks {
        for ((name, a), (_, b)) in first.iter().zip(other) {
            let pairs =
                a.iter().zip(b).map(|(a, b)| (f64::from(f32::from_bits(*a)), f64::from(f32::from_bits(*b))));
            let (distance, norm) = pairs.fold((0.0, 0.0), |(d, n), (a, b)| (d + (a - b).powi(2), n + a * a));
            let (distance, norm) = (distance.sqrt(), norm.sqrt());
            assert!(distance <= tolerance * norm, "{set}, {name}: {distance} of {norm}");
        }
    }
}

const SMALL: &str = "--model cnn --clients 3 --samples-per-client 40 --rounds 2 --lr 0.01 --momentum 0.5 \
    --classes-per-client 3 --local-epochs 1 --batch-size 20 --personal-layers 2";

#[test]
fn kernels_agree_in_fp32() {
    kernels_repeat_and_agree(SMALL, "fp32", 1e-5);
}

/// Many channels in small planes, which not every instruction set multiplies as f32. One step, and not closely: in so deep a
/// network every layer makes differences of rounding larger, and a single ReLU may fall on the other side.
#[test]
fn kernels_agree_in_a_step_of_a_deep_network() {
    let deep =
        "--model mobilenet_v1 --clients 2 --samples-per-client 40 --rounds 1 --batch-size 40 --lr 0.001";
    kernels_repeat_and_agree(deep, "fp32", 2e-2);
}

/// Where two sums round to different f32, the values they are multiplied as may be an ulp of bf16 apart.
#[test]
fn kernels_agree_in_bf16() {
    kernels_repeat_and_agree(SMALL, "bf16", 1e-3);
}

#[test]
fn kernels_that_are_not_there_are_an_error() {
    let done = common::fedper(&["run"]).env("FEDPER_KERNELS", "abacus").output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(said.contains("abacus") && said.contains("portable") && said.lines().count() == 1, "{said}");
}
