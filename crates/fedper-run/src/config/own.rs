//! What a run has that stands in no file: samples, shards, a network, methods that a program brought along. `config.toml` has
//! their names and hashes, so that a run goes on with them and with no others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Config, Samples, Settings, wrong};
use crate::error::Error;

/// What a program brought along, as the table `[own]` of a run's `config.toml` has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Own {
    /// Name and hash of the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Hash of who holds what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<String>,
    /// Name and hash of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Methods by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub methods: BTreeMap<String, OwnMethod>,
}

/// A method that a program brought along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnMethod {
    /// Of its slots and settings.
    pub sha256: String,
    /// Whether devices may train with momentum.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub momentum: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_yes(it: &bool) -> bool {
    *it
}

/// Keys that say who holds what.
const DEALING: [&str; 7] = [
    "classes_per_client",
    "dirichlet",
    "iid",
    "by_folder",
    "samples_per_client",
    "with_replacement",
    "test_fraction",
];
/// Keys that say which network it is.
const NETWORK: [&str; 3] = ["model", "stem", "norm"];

impl Own {
    /// Whether there is nothing of the kind.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What there is, in words; `None` if there is nothing.
    pub(crate) fn in_words(&self) -> Option<String> {
        let mut all = Vec::new();
        all.extend(self.data.as_ref().map(|_| "samples".to_owned()));
        all.extend(self.shards.as_ref().map(|_| "shards".to_owned()));
        all.extend(self.network.as_ref().map(|_| "a network".to_owned()));
        all.extend(self.methods.keys().map(|name| format!("the method `{name}`")));
        let last = all.pop()?;
        Some(if all.is_empty() { last } else { format!("{} and {last}", all.join(", ")) })
    }

    /// How `now` differs from what a run began with.
    pub(crate) fn changes(&self, now: &Self) -> Vec<String> {
        let show = |it: &Option<String>| it.clone().unwrap_or_else(|| "none of its own".to_owned());
        let mut changes = Vec::new();
        for (what, began, now) in [
            ("samples", &self.data, &now.data),
            ("shards", &self.shards, &now.shards),
            ("network", &self.network, &now.network),
        ] {
            if began != now {
                changes.push(format!("its {what} were {}, and are now {}", show(began), show(now)));
            }
        }
        for (name, began) in &self.methods {
            match now.methods.get(name) {
                None => changes.push(format!("the method `{name}` is missing")),
                Some(now) if now != began => {
                    changes.push(format!("the method `{name}` has other slots or settings"));
                }
                Some(_) => {}
            }
        }
        let more = now.methods.keys().filter(|name| !self.methods.contains_key(*name));
        changes.extend(more.map(|name| format!("the method `{name}` is new")));
        changes
    }

    /// Refuses keys that say what is brought along.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), Error> {
        let counted = matches!(settings.samples_per_client, Some(Samples::Count(_)));
        let dealing = [
            settings.classes_per_client.is_some(),
            settings.dirichlet.is_some(),
            settings.iid == Some(true),
            settings.by_folder == Some(true),
            counted,
            settings.with_replacement == Some(true),
            settings.test_fraction.is_some(),
        ];
        let network = [settings.model.is_some(), settings.stem.is_some(), settings.norm.is_some()];
        let given = |keys: &[&'static str], set: &[bool]| {
            keys.iter().zip(set).find(|&(_, &set)| set).map(|(&key, _)| key)
        };
        if let (Some(_), Some(key)) = (&self.shards, given(&DEALING, &dealing)) {
            return wrong(format!("the shards say who holds what: leave {key} out, or give no shards"));
        }
        if let (Some(_), Some(key)) = (&self.network, given(&NETWORK, &network)) {
            return wrong(format!("the run has a network of its own: leave {key} out, or give no network"));
        }
        Ok(())
    }
}

impl Settings {
    /// Refuses what only the program has that began it.
    ///
    /// # Errors
    /// [`Error::Config`] with what is missing.
    pub(crate) fn check_nothing_own(&self) -> Result<(), Error> {
        match self.own.as_ref().and_then(Own::in_words) {
            None => Ok(()),
            Some(what) => wrong(format!(
                "the run has {what} of its own, which stand in no file: run it, or go on with it, by the program that began it"
            )),
        }
    }
}

impl Config {
    /// The text of `config.toml` without the keys that what is brought along stands for.
    pub(super) fn without_replaced(&self, text: String) -> String {
        let mut replaced: Vec<&str> = Vec::new();
        if self.own.shards.is_some() {
            replaced.extend(DEALING);
        }
        if self.own.network.is_some() {
            replaced.extend(NETWORK);
        }
        if replaced.is_empty() {
            return text;
        }
        let mut table: toml::Table = text.parse().expect("a configuration is a table");
        table.retain(|key, _| !replaced.contains(&key));
        toml::to_string(&table).expect("a configuration is a table")
    }
}
