//! The methods of a run, and what is set of each: `--set ditto.lambda=0.1`, in the file `[method.ditto]` `lambda = 0.1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedper_core::strategy::registry::by_name;
use fedper_core::strategy::{METHODS, Strategy};
use serde::{Deserialize, Serialize, Serializer};

use super::value::Value;
use super::{Config, Own, Settings, wrong};
use crate::error::Error;

/// Settings by method, and by their own name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct MethodSettings(BTreeMap<String, BTreeMap<String, f64>>);

impl Serialize for MethodSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = |values: &BTreeMap<String, f64>| -> BTreeMap<String, Written> {
            values.iter().map(|(name, &value)| (name.clone(), Written(value))).collect()
        };
        serializer.collect_map(self.0.iter().map(|(method, values)| (method, written(values))))
    }
}

/// A value as it is written: a whole one as such.
struct Written(f64);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = self.0 as i64;
        if self.0 == whole as f64 {
            serializer.serialize_i64(whole)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl MethodSettings {
    /// Takes over what `other` says, and keeps the rest.
    pub(super) fn set(&mut self, other: Self) {
        for (method, values) in other.0 {
            self.0.entry(method).or_default().extend(values);
        }
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Typed as `METHOD.NAME=VALUE`, with commas between several.
impl Value for MethodSettings {
    fn read(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for text in text.split(',') {
            let parts = text.split_once('=').and_then(|(key, value)| {
                let (method, name) = key.trim().split_once('.')?;
                Some((method, name, value.trim()))
            });
            let Some((method, name, value)) = parts else {
                return Err(format!("`{text}` is not METHOD.NAME=VALUE, such as ditto.lambda=0.1"));
            };
            let value = value.parse().map_err(|_| format!("`{value}` is not a number, such as 0.1"))?;
            settings.0.entry(method.to_owned()).or_default().insert(name.to_owned(), value);
        }
        Ok(settings)
    }
}

/// What is set of the methods in `algorithms`: as the settings say, and by default.
///
/// # Errors
/// [`Error::Config`] if a setting is of no method of the run, or not one that the method has.
pub(super) fn resolve(settings: &Settings, algorithms: &[String]) -> Result<MethodSettings, Error> {
    let MethodSettings(mut given) = settings.method.clone().unwrap_or_default();
    for method in given.keys() {
        if by_name(method).is_none() {
            return wrong(format!("there is no method `{method}` to set anything of; there are {}", names()));
        }
        if !algorithms.contains(method) {
            return wrong(format!(
                "something is set of {method}, and the run has {}: give --algorithm {method} too, or leave it out",
                algorithms.join(", ")
            ));
        }
    }
    let mut resolved = MethodSettings::default();
    for entry in algorithms.iter().filter_map(|name| by_name(name)) {
        let mut values: BTreeMap<String, f64> = entry
            .settings
            .iter()
            .filter_map(|setting| Some((setting.name.to_owned(), setting.default?)))
            .collect();
        values.extend(given.remove(entry.name).unwrap_or_default());
        entry.with(&values).map_err(Error::Config)?;
        if !values.is_empty() {
            resolved.0.insert(entry.name.to_owned(), values);
        }
    }
    Ok(resolved)
}

/// Every method, by name.
pub(super) fn names() -> String {
    METHODS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

impl Config {
    /// The method called `name`, as it is set; `None` if there is none.
    pub fn method(&self, name: &str) -> Option<Arc<dyn Strategy>> {
        let nothing = BTreeMap::new();
        by_name(name)?.with(self.method.0.get(name).unwrap_or(&nothing)).ok()
    }

    /// The run's methods, in order.
    pub fn methods(&self) -> Vec<Arc<dyn Strategy>> {
        self.algorithm.iter().filter_map(|name| self.method(name)).collect()
    }
}

/// The methods among these that cannot have momentum.
pub(super) fn plain<'a>(algorithms: &'a [String], own: &Own) -> Vec<&'a str> {
    let names = algorithms.iter().map(String::as_str);
    let takes = |name: &str| match own.methods.get(name) {
        Some(method) => method.momentum,
        None => by_name(name).is_none_or(|entry| entry.by_default().takes_momentum()),
    };
    names.filter(|name| !takes(name)).collect()
}
