//! What a program brings along for an experiment: checked, and noted by name and hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedper_core::strategy::{METHODS, Strategy};
use fedper_data::{Dataset, Partition, Shard};
use fedper_nn::Architecture;
use sha2::{Digest, Sha256};

use crate::config::{Own, OwnMethod};
use crate::error::Error;
use crate::experiment::Experiment;

/// What a program brings along for an experiment, checked; what is not here, the configuration says.
#[derive(Default)]
pub(crate) struct Brought {
    pub(crate) partition: Option<Partition>,
    pub(crate) network: Option<Architecture>,
    pub(crate) methods: Vec<Arc<dyn Strategy>>,
}

fn wrong<T>(message: String) -> Result<T, Error> {
    Err(Error::Config(message))
}

/// Names are keys of the configuration and folders of the run directory.
pub(crate) fn check_names(methods: &[Arc<dyn Strategy>]) -> Result<(), Error> {
    for (at, method) in methods.iter().enumerate() {
        let name = method.name();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return wrong(format!(
                "a method cannot be named `{name}`: a name has small letters, digits, - and _, such as my-method"
            ));
        }
        if METHODS.iter().any(|entry| entry.name == name) {
            return wrong(format!("there is a method `{name}` already: give your own another name"));
        }
        if methods[..at].iter().any(|other| other.name() == name) {
            return wrong(format!("two of your methods are named `{name}`: give each a name of its own"));
        }
    }
    Ok(())
}

/// What the configuration notes of what is brought along; hashes of methods follow once the network is known.
pub(crate) fn own(
    data: Option<&Dataset>,
    shards: Option<&[Shard]>,
    network: Option<&Architecture>,
    methods: &[Arc<dyn Strategy>],
) -> Result<Own, Error> {
    let named = |name: &str, hash: String| format!("{name} sha256:{hash}");
    let methods: BTreeMap<String, OwnMethod> = methods
        .iter()
        .map(|method| {
            let momentum = method.takes_momentum();
            (method.name().to_owned(), OwnMethod { sha256: String::new(), momentum })
        })
        .collect();
    Ok(Own {
        data: data.map(|data| Ok::<_, Error>(named(&data.name, data.sha256()?))).transpose()?,
        shards: shards.map(|shards| named(&format!("{} devices", shards.len()), Shard::sha256(shards))),
        network: network
            .map(|it| named(&it.name, sha256(&format!("{:?}", (it.input, it.classes, &it.blocks))))),
        methods,
    })
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of what a run of it has stored, and how it is set.
pub(crate) fn hash_of_method(experiment: &Experiment, method: &dyn Strategy) -> Result<String, Error> {
    let parts = experiment.parts(method);
    let name = method.name();
    if let Some(slot) = parts.down.slots().iter().find(|slot| !parts.server.has(slot.prefix)) {
        return wrong(format!(
            "the method `{name}` sends the slot `{}` to devices, and the server does not have it: remember it there too",
            slot.prefix
        ));
    }
    if parts.folds.len() != parts.up.slots().len() {
        return wrong(format!("the method `{name}` must say how each slot that devices send is folded"));
    }
    let slots = [&parts.server, &parts.down, &parts.up, &parts.kept].map(|bundle| bundle.slots());
    let cut: Vec<&str> = parts.split.personal().specs().iter().map(|spec| spec.name.as_str()).collect();
    Ok(sha256(&format!("{:?}", (slots, &parts.folds, cut, method.settings()))))
}

/// A network must be for the images that it gets.
pub(crate) fn fits(network: &Architecture, dataset: &Dataset) -> Result<(), Error> {
    let images = &dataset.images;
    let found = [network.input.height, network.input.width, network.input.channels];
    let wanted = [images.height, images.width, images.channels];
    let text = |[height, width, channels]: [usize; 3]| format!("{height}x{width}x{channels}");
    if found != wanted {
        return wrong(format!(
            "the network `{}` takes images of {}, and those of `{}` are {} (height x width x channels)",
            network.name,
            text(found),
            dataset.name,
            text(wanted)
        ));
    }
    if network.classes != dataset.classes.len() {
        return wrong(format!(
            "the network `{}` tells {} classes apart, and `{}` has {}",
            network.name,
            network.classes,
            dataset.name,
            dataset.classes.len()
        ));
    }
    Ok(network.validate()?)
}
