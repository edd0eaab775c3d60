//! What a key of the configuration is. The table itself is in `settings.rs`; flags, keys of a file, `--help` and the
//! reference page are made of it.

use super::value::Word;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As a configuration file has it.
    pub name: &'static str,
    /// What it is about.
    pub heading: &'static str,
    /// How it is typed as a flag.
    pub form: Form,
    /// The words that are its only values, if it has such.
    pub words: &'static [Word],
    /// What its value must be, if it is a number.
    pub range: Option<Range>,
    /// What holds where it is not given, in words.
    pub default: Option<&'static str>,
    /// What it does, as in its documentation comment.
    pub(super) help: &'static str,
    /// Reads a value, and says what would be right if that fails.
    pub(super) check: fn(&str) -> Result<(), String>,
}

impl Key {
    /// The flag, without its dashes.
    pub fn flag(&self) -> String {
        let name = self.name.replace('_', "-");
        match self.form {
            Form::Off => format!("no-{name}"),
            Form::Set(_) => "set".to_owned(),
            _ => name,
        }
    }

    /// What it does.
    pub fn help(&self) -> &'static str {
        self.help.trim_start()
    }

    /// Whether this is a value it can have.
    ///
    /// # Errors
    /// What would be right.
    pub fn check(&self, text: &str) -> Result<(), String> {
        (self.check)(text)
    }
}

/// How a key is typed as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With a value, of this name.
    With(&'static str),
    /// With a value of this name, or without one, which is then the second.
    Optional(&'static str, &'static str),
    /// With values of this name, and a comma between them.
    List(&'static str),
    /// As `--set`, with assignments of this form, and a comma between them.
    Set(&'static str),
    /// Without a value: the key is true.
    On,
    /// Without a value: `--no-` and the key, which is false.
    Off,
}

/// Numbers that a key can have. All are finite.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    holds: fn(f64) -> bool,
    /// In words, after "it must be".
    pub words: &'static str,
}

impl Range {
    pub(super) const AT_LEAST_1: Self = Self { holds: |v| v >= 1.0, words: "at least 1" };
    pub(super) const POSITIVE: Self = Self { holds: |v| v > 0.0, words: "greater than 0" };
    pub(super) const NOT_NEGATIVE: Self = Self { holds: |v| v >= 0.0, words: "0 or greater" };
    pub(super) const BELOW_1: Self = Self { holds: |v| (0.0..1.0).contains(&v), words: "from 0 to below 1" };
    pub(super) const PROBABILITY: Self = Self { holds: |v| (0.0..=1.0).contains(&v), words: "from 0 to 1" };
    pub(super) const SHARE: Self = Self { holds: |v| v > 0.0 && v <= 1.0, words: "above 0 and at most 1" };
    pub(super) const PART: Self = Self { holds: |v| v > 0.0 && v < 1.0, words: "between 0 and 1" };

    /// Whether `value` is in it.
    pub fn contains(&self, value: f64) -> bool {
        value.is_finite() && (self.holds)(value)
    }
}

/// Makes [`super::Settings`] of the table: a field, a flag and a key of a file for each line. A line is what the key does, its
/// name, its type, how it is typed as a flag, what holds where it is not given, and its range.
macro_rules! keys {
    ($($heading:literal { $(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty = $form:expr $(, default $default:literal)? $(, range $range:expr)?;
    )+ })+) => {
        /// What the user typed: keys of a configuration, as flags and as a TOML file.
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Settings {
            $($(
                $(#[doc = $help])+
                pub $name: Option<$type>,
            )+)+
            /// What the program brought along that began the run: no key that anybody types.
            pub own: Option<super::Own>,
        }

        /// All keys, in the order they are shown in.
        pub const KEYS: &[Key] = &[$($(Key {
            name: stringify!($name),
            heading: $heading,
            form: $form,
            words: <$type as Value>::WORDS,
            range: [$(Some($range),)? None][0],
            default: [$(Some($default),)? None][0],
            help: concat!($($help),+),
            check: |text| <$type as Value>::read(text).map(drop),
        }),+),+];

        impl Settings {
            /// Sets a key to a value that is typed; of a list, all values with commas between them.
            ///
            /// # Errors
            /// What would be right, or that there is no such key.
            pub fn set(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $($(stringify!($name) => self.$name = Some(Value::read(text)?),)+)+
                    _ => return Err(format!("there is no key `{key}`")),
                }
                Ok(())
            }

            /// Key by key: these where they are given, the others elsewhere.
            fn or(self, others: Self) -> Self {
                Self { $($($name: self.$name.or(others.$name)),+),+, own: self.own.or(others.own) }
            }

            /// The number that each key has been given, if its value is one; in the order of [`KEYS`].
            fn numbers(&self) -> [Option<f64>; KEYS.len()] {
                [$($(self.$name.as_ref().and_then(Value::number)),+),+]
            }
        }
    };
}

pub(super) use keys;
