//! What runs compute stays what it is, to the last bit: final weights and records of small runs of every method and every
//! network, compared with hashes in `tests/pinned/hashes.txt`.
//!
//! Every setting that has a default is given, so another default changes nothing here. A change that is meant to compute
//! something else makes the file anew and says why: `FEDPER_PIN=write cargo test --release -p fedper --test pinned`.
//!
//! Exponentials and logarithms of a loss are the C library's, so the file holds for Linux with glibc on x86-64 (with FMA).
#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::{fedper, stderr, text};
use sha2::{Digest, Sha256};

/// The instruction sets whose results are pinned. What has more of them has these too.
const KERNELS: [&str; 3] = ["portable", "avx2", "avx512"];

/// What all runs share.
const ALL: &str = "\
seed = 5
dataset = 'fashion-mnist-small'
norm = 'batch'
precision = 'fp32'
algorithm = ['fedper', 'fedavg', 'local', 'fedavg-ft']
batch_norm = 'average'
clients = 2
classes_per_client = 2
with_replacement = false
own_labels = false
samples_per_client = 8
rounds = 2
local_epochs = 1
finetune_epochs = 1
batch_size = 4
drop_last = false
lr = 0.02
lr_schedule = 'constant'
warmup_rounds = 0
momentum = 0.5
weight_decay = 0.001
shuffle = true
augment = 'none'
participation = 1.0
failure_rate = 0.0
eval_every = 1
";

/// Name, and what differs from [`ALL`].
const CASES: [(&str, &str); 9] = [
    // Its files are large: one round.
    ("resnet34-imagenet", "model = 'resnet34'\nstem = 'imagenet'\npersonal_layers = 2\nrounds = 1\n"),
    (
        "resnet34-cifar",
        "model = 'resnet34'\nstem = 'cifar'\npersonal_layers = 2\nsamples_per_client = 4\nalgorithm = ['fedper']\n",
    ),
    ("mobilenet_v1-imagenet", "model = 'mobilenet_v1'\nstem = 'imagenet'\npersonal_layers = 2\n"),
    ("mobilenet_v1-cifar", "model = 'mobilenet_v1'\nstem = 'cifar'\npersonal_layers = 2\n"),
    (
        "mobilenet_v1-statistics-on-devices",
        "model = 'mobilenet_v1'\nstem = 'imagenet'\npersonal_layers = 1\nbatch_norm = 'local'\nalgorithm = ['fedper']\n",
    ),
    (
        "mobilenet_v1-statistics-reset",
        "model = 'mobilenet_v1'\nstem = 'imagenet'\npersonal_layers = 1\nbatch_norm = 'reset'\nalgorithm = ['fedper']\n",
    ),
    ("cnn", "model = 'cnn'\nstem = 'imagenet'\npersonal_layers = 2\n"),
    ("mlp", "model = 'mlp'\nstem = 'imagenet'\npersonal_layers = 1\n"),
    (
        "mlp-everything",
        "model = 'mlp'\nstem = 'imagenet'\npersonal_layers = 1\nclients = 6\nsamples_per_client = 42\nrounds = 4\n\
         batch_size = 10\nlocal_epochs = 2\nlr_schedule = 'cosine'\nwarmup_rounds = 1\nclip_norm = 0.5\n\
         augment = 'crop-flip'\nparticipation = 0.7\nfailure_rate = 0.2\neval_every = 3\n",
    ),
];

/// The fields of `rounds.jsonl` that are compared: neither times nor bytes, and none that came later.
const FIELDS: [&str; 9] = [
    "algorithm",
    "round",
    "accuracy",
    "accuracy_local",
    "loss",
    "train_loss",
    "devices",
    "failed",
    "samples_trained",
];

#[test]
fn runs_compute_what_they_always_did() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pinned/hashes.txt");
    let write = std::env::var("FEDPER_PIN").is_ok_and(|how| how == "write");
    let available: Vec<String> =
        fedper_nn::InstructionSet::available().iter().map(ToString::to_string).collect();
    let (here, skipped): (Vec<&str>, Vec<&str>) =
        KERNELS.into_iter().partition(|set| available.iter().any(|known| known == set));
    let found: String = here.iter().flat_map(|set| CASES.map(|case| hashes(set, case))).collect();
    if write {
        assert!(skipped.is_empty(), "this CPU cannot compute {skipped:?}: make the file on one that can");
        std::fs::write(&path, found).unwrap();
        return;
    }
    let pinned = std::fs::read_to_string(&path).unwrap();
    let expected = pinned.lines().filter(|line| here.iter().any(|set| line.split(' ').next() == Some(*set)));
    let expected: Vec<&str> = expected.collect();
    println!(
        "{} results compared in {}; {} not, for want of {skipped:?} in this CPU",
        expected.len(),
        here.join(", "),
        pinned.lines().count() - expected.len()
    );
    assert!(!expected.is_empty());
    let changed: Vec<&str> = found.lines().filter(|line| !expected.contains(line)).collect();
    assert!(changed.is_empty(), "these results are no longer what they were:\n{}", changed.join("\n"));
    assert_eq!(found.lines().count(), expected.len(), "every pinned result was computed");
}

/// A line for the records and for each file of weights of a run in instruction set `kernels`.
fn hashes(kernels: &str, (name, settings): (&str, &str)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (dir.path().join("config.toml"), dir.path().join("run"));
    let mut table: toml::Table = ALL.parse().unwrap();
    table.extend(settings.parse::<toml::Table>().unwrap());
    std::fs::write(&config, table.to_string()).unwrap();
    let mut command = fedper(&["run", "--quiet", "--config", text(&config), "--out", text(&out)]);
    let output = command.env("FEDPER_KERNELS", kernels).output().unwrap();
    assert!(output.status.success(), "{kernels} {name}: {}", stderr(&output));
    let mut lines = String::new();
    let mut line = |what: &str, hash: Sha256| {
        let hash: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(lines, "{kernels} {name} {what} {hash}").unwrap();
    };
    let records = std::fs::read_to_string(out.join("rounds.jsonl")).unwrap();
    let mut hash = Sha256::new();
    for record in records.lines() {
        let members = members(record);
        for field in FIELDS {
            hash.update(format!("{field}:{};", members[field]));
        }
    }
    line("rounds", hash);
    for algorithm in sorted(&out.join("weights")) {
        for file in sorted(&algorithm) {
            let short = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
            line(&format!("{}/{}", short(&algorithm), short(&file)), tensors(&file));
        }
    }
    lines
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The hash of a file's values, in the order of their names, whatever else is in it.
fn tensors(path: &Path) -> Sha256 {
    let params = fedper_nn::weights::read_safetensors(&std::fs::read(path).unwrap()).unwrap();
    let by_name: BTreeMap<&str, &[f32]> =
        params.iter().map(|(spec, values)| (spec.name.as_str(), values)).collect();
    let mut hash = Sha256::new();
    for (name, values) in by_name {
        hash.update(name);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(&bytes);
    }
    hash
}

/// The members of a JSON object as they are written: numbers that are read and written again might be others.
fn members(object: &str) -> BTreeMap<&str, &str> {
    let inside = object.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
    let (mut depth, mut quoted) = (0, false);
    inside
        .split(|c: char| {
            match c {
                '"' => quoted = !quoted,
                '{' | '[' if !quoted => depth += 1,
                '}' | ']' if !quoted => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0 && !quoted
        })
        .map(|member| {
            let (key, value) = member.split_once(':').unwrap();
            (key.trim_matches('"'), value)
        })
        .collect()
}
