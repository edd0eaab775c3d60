//! Personal parameters do not travel: what a run leaves on the server holds no byte of them.

mod common;

use std::collections::HashSet;
use std::path::Path;

const CONFIG: &str = "model = 'cnn'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 20\nbatch_size = 10\n\
                      personal_layers = 2\nlr = 0.01\n";

/// All pairs of neighbouring values (8 bytes) of the weights that devices keep, apart from runs of equal values.
fn personal_pairs(dir: &Path, algorithm: &str, names: &[&str]) -> HashSet<u64> {
    let mut pairs = HashSet::new();
    for file in std::fs::read_dir(dir.join("weights").join(algorithm)).unwrap().flatten() {
        let params = fedper_nn::weights::read_safetensors(&std::fs::read(file.path()).unwrap()).unwrap();
        for (_, values) in params.iter().filter(|(spec, _)| names.contains(&spec.name.as_str())) {
            let neighbours = values.windows(2).filter(|pair| pair[0].to_bits() != pair[1].to_bits());
            pairs.extend(neighbours.map(|p| u64::from(p[0].to_bits()) | u64::from(p[1].to_bits()) << 32));
        }
    }
    assert!(pairs.len() > 1000, "too little to look for");
    pairs
}

/// Whether the base that is left of a run, which is what its last devices were sent, holds one of `pairs`.
fn base_holds(dir: &Path, algorithm: &str, pairs: &HashSet<u64>) -> bool {
    let bytes = std::fs::read(dir.join("weights").join(algorithm).join("base.safetensors")).unwrap();
    bytes.windows(8).any(|bytes| pairs.contains(&u64::from_le_bytes(bytes.try_into().unwrap())))
}

const PERSONAL: [&str; 4] = ["fc1.0.weight", "fc1.0.bias", "fc.weight", "fc.bias"];

#[test]
fn the_base_holds_no_personal_byte() {
    let dir = tempfile::tempdir().unwrap();
    let mut pairs = HashSet::new();
    for rounds in 1..=2 {
        let path = dir.path().join(rounds.to_string());
        common::run(&format!("{CONFIG}algorithm = ['fedper']\nrounds = {rounds}"), &path, 2);
        pairs.extend(personal_pairs(&path, "fedper", &PERSONAL));
    }
    assert!(!base_holds(&dir.path().join("2"), "fedper", &pairs));
    // The search would find them.
    let path = dir.path().join("fedavg");
    common::run(&format!("{CONFIG}algorithm = ['fedavg']\nrounds = 1"), &path, 2);
    assert!(base_holds(&path, "fedavg", &personal_pairs(&path, "fedavg", &PERSONAL)));
}
