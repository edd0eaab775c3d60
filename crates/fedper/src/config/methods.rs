//! The methods of a run, and what is set of each: `--set ditto.lambda=0.1`, in the file `[method.ditto]` `lambda = 0.1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedper_core::strategy::registry::by_name;
use fedper_core::strategy::{METHODS, Strategy};

use super::{Config, Settings, wrong};
use crate::error::Error;

/// Settings by method, and by their own name.
pub type MethodSettings = BTreeMap<String, BTreeMap<String, f64>>;

/// `METHOD.NAME=VALUE`, as `--set` has it.
fn parse(text: &str) -> Result<(&str, &str, f64), Error> {
    let parts = text.split_once('=').and_then(|(key, value)| {
        let (method, name) = key.trim().split_once('.')?;
        Some((method, name, value.trim()))
    });
    let Some((method, name, value)) = parts else {
        return wrong(format!(
            "--set takes METHOD.NAME=VALUE, such as ditto.lambda=0.1, and this is `{text}`"
        ));
    };
    match value.parse() {
        Ok(value) => Ok((method, name, value)),
        Err(_) => wrong(format!("--set {text}: `{value}` is not a number")),
    }
}

/// What is set of the methods in `algorithms`: as the settings say, and by default.
///
/// # Errors
/// [`Error::Config`] if a setting is of no method of the run, or not one that the method has.
pub(super) fn resolve(settings: &Settings, algorithms: &[String]) -> Result<MethodSettings, Error> {
    let mut given = settings.method.clone().unwrap_or_default();
    for text in settings.set.iter().flatten() {
        let (method, name, value) = parse(text)?;
        given.entry(method.to_owned()).or_default().insert(name.to_owned(), value);
    }
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
    let mut resolved = MethodSettings::new();
    for entry in algorithms.iter().filter_map(|name| by_name(name)) {
        let mut values: BTreeMap<String, f64> = entry
            .settings
            .iter()
            .filter_map(|setting| Some((setting.name.to_owned(), setting.default?)))
            .collect();
        values.extend(given.remove(entry.name).unwrap_or_default());
        entry.with(&values).map_err(Error::Config)?;
        if !values.is_empty() {
            resolved.insert(entry.name.to_owned(), values);
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
        by_name(name)?.with(self.method.get(name).unwrap_or(&nothing)).ok()
    }

    /// The run's methods, in order.
    pub fn methods(&self) -> Vec<Arc<dyn Strategy>> {
        self.algorithm.iter().filter_map(|name| self.method(name)).collect()
    }
}

/// The methods among these that cannot have momentum.
pub(super) fn plain(algorithms: &[String]) -> Vec<&'static str> {
    let entries = algorithms.iter().filter_map(|name| by_name(name));
    entries.filter(|entry| !entry.by_default().takes_momentum()).map(|entry| entry.name).collect()
}
