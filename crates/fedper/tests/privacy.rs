//! Personal parameters do not travel: a whole run's traffic holds no byte of them.

mod common;

use std::collections::HashSet;
use std::path::Path;

use common::observed;
use fedper::simulator::Observer;
use fedper_core::round::Wire;

/// Keeps every message as it would go over a wire.
#[derive(Default)]
struct Tap(Vec<Vec<u8>>);

impl Observer for Tap {
    fn message(&mut self, message: &dyn Wire) {
        self.0.push(message.to_bytes());
    }
}

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

fn holds(messages: &[Vec<u8>], pairs: &HashSet<u64>) -> bool {
    messages.iter().any(|message| {
        message.windows(8).any(|bytes| pairs.contains(&u64::from_le_bytes(bytes.try_into().unwrap())))
    })
}

#[test]
fn no_personal_byte_travels() {
    let personal = ["fc1.0.weight", "fc1.0.bias", "fc.weight", "fc.bias"];
    let dir = tempfile::tempdir().unwrap();
    // The personal weights after each round are the final ones of a shorter run.
    let mut pairs = HashSet::new();
    let mut tap = Tap::default();
    for rounds in 1..=3 {
        let path = dir.path().join(rounds.to_string());
        tap = Tap::default();
        observed(&format!("{CONFIG}algorithm = ['fedper']\nrounds = {rounds}"), &path, 2, &mut tap);
        pairs.extend(personal_pairs(&path, "fedper", &personal));
    }
    assert_eq!(tap.0.len(), 3 * 3 * 2, "a download and an upload for each device and round");
    assert!(!holds(&tap.0, &pairs));
}

#[test]
fn the_search_would_find_them() {
    // The same search over FedAvg's traffic, whose last downloads hold the classifier of the round before.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1");
    observed(&format!("{CONFIG}algorithm = ['fedavg']\nrounds = 1"), &path, 2, &mut Tap::default());
    let pairs = personal_pairs(&path, "fedavg", &["fc1.0.weight", "fc.weight"]);
    let mut tap = Tap::default();
    observed(&format!("{CONFIG}algorithm = ['fedavg']\nrounds = 2"), &dir.path().join("2"), 2, &mut tap);
    assert!(holds(&tap.0, &pairs));
}
