//! Personal parameters do not travel: all that a run sends over a network holds no byte of them.

mod common;
mod superlink;

use std::collections::HashSet;
use std::path::Path;

use fedper::experiment::Experiment;
use fedper_core::params::Params;
use fedper_core::strategy::METHODS;
use superlink::deployed;

const CONFIG: &str = "model = 'cnn'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 20\nbatch_size = 10\n\
                      personal_layers = 2\nlr = 0.01\n";

const PERSONAL: [&str; 4] = ["fc1.0.weight", "fc1.0.bias", "fc.weight", "fc.bias"];

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

fn names(messages: &[Vec<u8>], name: &str) -> bool {
    messages.iter().any(|message| message.windows(name.len()).any(|bytes| bytes == name.as_bytes()))
}

/// What the pairs are looked for in: the traffic of a run on three clients.
fn traffic(config: &str, place: &Path) -> Vec<Vec<u8>> {
    let run = deployed(config, &place.join("deployed"), &place.join("states"), &[0..=0, 1..=1, 2..=2]);
    run.summary.unwrap();
    run.traffic
}

#[test]
fn no_personal_byte_travels() {
    let dir = tempfile::tempdir().unwrap();
    // The personal weights after each round are the final ones of a shorter simulated run, which is the same bit for bit.
    let mut pairs = HashSet::new();
    for rounds in 1..=3 {
        let path = dir.path().join(rounds.to_string());
        common::run(&format!("{CONFIG}algorithm = ['fedper']\nrounds = {rounds}"), &path, 2);
        pairs.extend(personal_pairs(&path, "fedper", &PERSONAL));
        let base = std::fs::read(path.join("weights/fedper/base.safetensors")).unwrap();
        assert!(!holds(&[base], &personal_pairs(&path, "fedper", &PERSONAL)));
    }
    let traffic = traffic(&format!("{CONFIG}algorithm = ['fedper']\nrounds = 3"), dir.path());
    let base = "weights/fedper/base.safetensors";
    let simulated = std::fs::read(dir.path().join("3").join(base)).unwrap();
    assert_eq!(simulated, std::fs::read(dir.path().join("deployed").join(base)).unwrap());
    assert!(!holds(&traffic, &pairs), "a pair of personal values was sent");
    for name in PERSONAL {
        assert!(!names(&traffic, name), "the name of a personal tensor was sent");
    }
    // The searches would find them: what is not personal is there.
    assert!(names(&traffic, "\"flat-"));
    assert!(holds(&traffic, &personal_pairs(&dir.path().join("3"), "fedper", &["conv2.0.weight"])));
}

/// The values of a begun network by name: what has hardly moved from there since is no secret, as the model that is sent may
/// have moved as little.
fn unmoved(begin: &Params, name: &str, at: usize, value: f32) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    begin.get(name).is_some_and(|begin| (begin[at] - value).abs() <= 1e-5 * value.abs())
}

/// What each method says is private is on no wire, whatever else the method sends.
#[test]
fn no_private_byte_of_any_method_travels() {
    for entry in METHODS {
        let name = entry.name;
        // With as many epochs, a weight that moved in the last step alone would be that of the model that is sent.
        let more = if name == "ditto" { "[method.ditto]\npersonal_epochs = 2\nlambda = 10\n" } else { "" };
        let config = |rounds: u32| {
            format!("{CONFIG}momentum = 0.0\nalgorithm = ['{name}']\nrounds = {rounds}\n{more}")
        };
        let experiment = Experiment::prepare(&common::settings(&config(1))).unwrap();
        let parts = experiment.parts(&*entry.by_default());
        let begin = experiment.initial_state(&parts);
        let slots = parts.kept.slots().iter().enumerate();
        let private = slots.filter(|(nth, slot)| slot.private && !parts.kept.slot_layout(*nth).is_empty());
        let private: Vec<&str> = private.map(|(_, slot)| slot.prefix).collect();
        let is_private = |name: &str| match name.rfind('/') {
            Some(end) => private.contains(&&name[..=end]),
            None => private.contains(&""),
        };
        let dir = tempfile::tempdir().unwrap();
        let mut pairs = HashSet::new();
        for rounds in 1..=2 {
            let path = dir.path().join(rounds.to_string());
            common::run(&config(rounds), &path, 2);
            for (file, bytes) in common::weights(&path).iter().filter(|(file, _)| file.contains("/device-")) {
                let kept = fedper_nn::weights::read_safetensors(bytes)
                    .unwrap_or_else(|error| panic!("{file}: {error}"));
                for (spec, values) in kept.iter().filter(|(spec, _)| is_private(&spec.name)) {
                    let moved = |&(at, pair): &(usize, &[f32])| {
                        pair[0].to_bits() != pair[1].to_bits()
                            && !unmoved(begin.params(), &spec.name, at, pair[0])
                            && !unmoved(begin.params(), &spec.name, at + 1, pair[1])
                    };
                    let moved = values.windows(2).enumerate().filter(moved);
                    pairs.extend(
                        moved.map(|(_, p)| u64::from(p[0].to_bits()) | u64::from(p[1].to_bits()) << 32),
                    );
                }
            }
        }
        assert_eq!(pairs.len() > 1000, !private.is_empty(), "{name}: {}", pairs.len());
        let traffic = traffic(&config(2), dir.path());
        assert!(!holds(&traffic, &pairs), "{name}: a pair of private values was sent");
    }
}

#[test]
fn the_search_would_find_them() {
    // The same search over FedAvg's traffic, whose second round begins with the classifier of the first.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1");
    common::run(&format!("{CONFIG}algorithm = ['fedavg']\nrounds = 1"), &path, 2);
    let pairs = personal_pairs(&path, "fedavg", &["fc1.0.weight", "fc.weight"]);
    assert!(holds(&traffic(&format!("{CONFIG}algorithm = ['fedavg']\nrounds = 2"), dir.path()), &pairs));
}
