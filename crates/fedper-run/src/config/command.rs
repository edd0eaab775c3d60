//! A configuration beside another: what differs, and the command line that says so.

use fedper_core::strategy::registry::by_name;
use fedper_nn::Model;

use super::{Config, EMBEDDED, Settings, defaults};

impl Config {
    /// The command line that repeats the run: what differs from the defaults, as flags.
    pub fn command(&self) -> String {
        if let Some(what) = self.own.in_words() {
            return format!("# by the program that has {what} of its own");
        }
        let table =
            |config: &Self| config.to_toml().parse::<toml::Table>().expect("a configuration is a table");
        // Against the defaults of this dataset and network, which are said if they are not the first screen's.
        let named = |model: Option<Model>| Settings {
            dataset: Some(self.dataset.clone()),
            model: model.map(|model| model.to_string()),
            ..Settings::default()
        };
        let defaults = Self::resolve(&named(Some(self.model))).expect("the defaults are valid");
        // A way of dealing that is typed takes along nothing of the default one's.
        let dealing = |config: &Self| (config.scheme(), config.own_labels, config.test_fraction);
        let typed = dealing(self) != dealing(&defaults);
        let defaults = match typed {
            true => Self {
                iid: false,
                classes_per_client: None,
                own_labels: false,
                test_fraction: None,
                ..defaults
            },
            false => defaults,
        };
        let all = self.samples_per_client.is_none() && !self.by_folder;
        let mut command = "fedper run".to_owned();
        let defaults = table(&defaults);
        let differs = |key: &str, value: &toml::Value| match key {
            "dataset" => self.dataset != EMBEDDED,
            "model" => self.model != defaults::model(&self.dataset),
            // What is left away may be bounded.
            "samples_per_client" if all => true,
            _ => defaults.get(key) != Some(value),
        };
        for (key, value) in table(self).iter().filter(|(key, value)| differs(key, value)) {
            let flag = key.replace('_', "-");
            match value {
                toml::Value::Table(methods) => command += &set_flags(methods),
                toml::Value::Boolean(true) => command += &format!(" --{flag}"),
                toml::Value::Boolean(false) => command += &format!(" --no-{flag}"),
                toml::Value::String(text) => command += &format!(" --{flag} {}", quoted(text)),
                toml::Value::Array(items) => {
                    let items: Vec<&str> = items.iter().filter_map(toml::Value::as_str).collect();
                    command += &format!(" --{flag} {}", quoted(&items.join(",")));
                }
                number => command += &format!(" --{flag} {number}"),
            }
        }
        command
    }

    /// The keys whose values differ between two texts of `config.toml`, with both values.
    pub fn differences(ours: &str, theirs: &str) -> Vec<String> {
        let table = |text: &str| text.parse::<toml::Table>().unwrap_or_default();
        let (ours, theirs) = (table(ours), table(theirs));
        let mut keys: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
        keys.sort();
        keys.dedup();
        let show =
            |value: Option<&toml::Value>| value.map_or_else(|| "not set".into(), |value| value.to_string());
        keys.into_iter()
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .map(|key| format!("{key} is {} here and {} there", show(ours.get(key)), show(theirs.get(key))))
            .collect()
    }
}

/// What is set of methods, where it is not the default.
fn set_flags(methods: &toml::Table) -> String {
    let mut flags = String::new();
    for (method, values) in methods {
        for (name, value) in values.as_table().into_iter().flatten() {
            let default =
                by_name(method).and_then(|entry| entry.settings.iter().find(|s| s.name == name)?.default);
            if value.as_float().or(value.as_integer().map(|whole| whole as f64)) != default {
                flags += &format!(" --set {method}.{name}={value}");
            }
        }
    }
    flags
}

/// `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./,=:+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
