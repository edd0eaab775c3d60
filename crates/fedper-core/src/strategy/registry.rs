//! Every method, by the name that users type, with its settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{METHODS, Strategy};

/// A number that a method takes: `--set ditto.lambda=0.1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Its name, without the method's.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// What it is if nothing is said; `None` where that is another setting of the run, which `help` names.
    pub default: Option<f64>,
    /// The least value that makes sense ...
    pub least: f64,
    /// ... and the greatest.
    pub most: f64,
    /// Whether it counts something.
    pub whole: bool,
}

impl Setting {
    /// A number that is not negative.
    pub const fn number(name: &'static str, help: &'static str, default: f64) -> Self {
        Self { name, help, default: Some(default), least: 0.0, most: f64::INFINITY, whole: false }
    }

    /// A count.
    pub const fn whole(name: &'static str, help: &'static str, default: Option<f64>) -> Self {
        Self { name, help, default, least: 0.0, most: 1e6, whole: true }
    }

    /// # Errors
    /// In words, if `value` is none that this setting can have.
    fn check(&self, method: &str, value: f64) -> Result<(), String> {
        let name = self.name;
        if self.whole && value.fract() != 0.0 {
            return Err(format!("{method}.{name} is {value}, and it must be a whole number"));
        }
        if !(self.least..=self.most).contains(&value) {
            let range = match self.most.is_finite() {
                true => format!("between {} and {}", self.least, self.most),
                false => format!("{} or more", self.least),
            };
            return Err(format!("{method}.{name} is {value}, and it must be {range}: {}", self.help));
        }
        Ok(())
    }
}

/// The settings of a method: as they were given, or by default.
#[derive(Clone, Debug)]
pub struct Values {
    known: &'static [Setting],
    given: BTreeMap<String, f64>,
}

impl Values {
    /// # Panics
    /// If neither a value nor a default is there.
    pub fn get(&self, name: &str) -> f64 {
        let default = || self.known.iter().find(|setting| setting.name == name)?.default;
        self.given(name).or_else(default).unwrap_or_else(|| panic!("`{name}` has no default"))
    }

    /// The same of a count.
    pub fn count(&self, name: &str) -> u32 {
        self.get(name) as u32
    }

    /// What was given, if anything was.
    pub fn given(&self, name: &str) -> Option<f64> {
        self.given.get(name).copied()
    }
}

/// A method that can be chosen by name.
pub struct Entry {
    /// The name that users type.
    pub name: &'static str,
    /// What can be set.
    pub settings: &'static [Setting],
    make: fn(&Values) -> Arc<dyn Strategy>,
}

impl Entry {
    /// The method with these settings.
    ///
    /// # Errors
    /// In words, if one is unknown or has a value that makes no sense.
    pub fn with(&self, values: &BTreeMap<String, f64>) -> Result<Arc<dyn Strategy>, String> {
        for (name, &value) in values {
            match self.settings.iter().find(|setting| setting.name == name) {
                Some(setting) => setting.check(self.name, value)?,
                None if self.settings.is_empty() => {
                    return Err(format!("{} has no settings, so no {}.{name}", self.name, self.name));
                }
                None => {
                    let known: Vec<&str> = self.settings.iter().map(|setting| setting.name).collect();
                    return Err(format!(
                        "{} has no setting `{name}`: it has {}",
                        self.name,
                        known.join(", ")
                    ));
                }
            }
        }
        Ok((self.make)(&Values { known: self.settings, given: values.clone() }))
    }

    /// The method with the settings that it has by default.
    pub fn by_default(&self) -> Arc<dyn Strategy> {
        (self.make)(&Values { known: self.settings, given: BTreeMap::new() })
    }
}

impl Entry {
    /// A method with settings.
    pub const fn new(
        name: &'static str,
        settings: &'static [Setting],
        make: fn(&Values) -> Arc<dyn Strategy>,
    ) -> Self {
        Self { name, settings, make }
    }
}

/// The method called `name`.
pub fn by_name(name: &str) -> Option<&'static Entry> {
    METHODS.iter().copied().find(|entry| entry.name == name)
}
