//! The keys of a configuration as flags, made of their table.

use std::sync::LazyLock;

use clap::builder::{PossibleValue, PossibleValuesParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{Form, KEYS, Key, Settings};

/// Clap takes names that live for ever.
static FLAGS: LazyLock<Vec<String>> = LazyLock::new(|| KEYS.iter().map(Key::flag).collect());

/// Flatten it into a command that takes all keys as flags.
pub(super) struct SettingsArgs(pub(super) Settings);

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        command.args(KEYS.iter().zip(FLAGS.iter()).map(|(key, flag)| arg(key, flag)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut args = Self(Settings::default());
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for key in KEYS {
            if let Some(values) = matches.get_many::<String>(key.name) {
                let typed: Vec<&str> = values.map(String::as_str).collect();
                let set = self.0.set(key.name, &typed.join(","));
                set.expect("each value was read before, and a list is read as its values are");
            }
        }
        Ok(())
    }
}

fn arg(key: &'static Key, flag: &'static str) -> Arg {
    let help = match key.default {
        Some(default) => format!("{} [default: {default}]", key.help()),
        None => key.help().to_owned(),
    };
    let arg = Arg::new(key.name).long(flag).help(help).help_heading(key.heading).action(ArgAction::Set);
    let arg = match key.form {
        Form::With(name) => arg.value_name(name),
        Form::Optional(name, without) => arg.value_name(name).num_args(0..=1).default_missing_value(without),
        Form::List(name) | Form::Set(name) => {
            arg.value_name(name).value_delimiter(',').action(ArgAction::Append)
        }
        Form::On => arg.num_args(0).default_missing_value("true"),
        Form::Off => arg.num_args(0).default_missing_value("false"),
    };
    arg.value_parser(parser(key))
}

fn parser(key: &'static Key) -> ValueParser {
    if key.words.is_empty() {
        return ValueParser::new(|text: &str| key.check(text).map(|()| text.to_owned()));
    }
    let words = key.words.iter().map(|word| PossibleValue::new(word.name).help(word.help()));
    PossibleValuesParser::new(words).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Augment, LrSchedule, Samples};

    fn read(words: &[&str]) -> Result<Settings, String> {
        let command = SettingsArgs::augment_args(Command::new("test"));
        let matches = command.try_get_matches_from([&["test"], words].concat());
        let matches = matches.map_err(|error| error.to_string())?;
        Ok(SettingsArgs::from_arg_matches(&matches).map_err(|error| error.to_string())?.0)
    }

    #[test]
    fn nothing_typed_sets_nothing() {
        assert!(read(&[]).unwrap().is_empty());
    }

    #[test]
    fn flags_set_the_keys_they_are_named_after() {
        let found = read(&[
            "--dataset",
            "cifar10",
            "--clients=7",
            "--iid",
            "--no-shuffle",
            "--lr",
            "1e-3",
            "--algorithm",
            "fedper,local",
            "--algorithm",
            "fedavg",
            "--samples-per-client",
            "all",
            "--lr-schedule",
            "cosine",
            "--data-dir",
            "a b",
        ]);
        let expected = Settings {
            dataset: Some("cifar10".into()),
            clients: Some(7),
            iid: Some(true),
            shuffle: Some(false),
            lr: Some(1e-3),
            algorithm: Some(["fedper", "local", "fedavg"].map(str::to_owned).into()),
            samples_per_client: Some(Samples::All),
            lr_schedule: Some(LrSchedule::Cosine),
            data_dir: Some("a b".into()),
            ..Settings::default()
        };
        assert_eq!(found.unwrap(), expected);
        for (typed, expected) in [
            (&["--augment"][..], Augment::CropFlip),
            (&["--augment", "none"], Augment::None),
            (&["--augment=crop-flip"], Augment::CropFlip),
            (&["--augment", "--iid"], Augment::CropFlip),
        ] {
            assert_eq!(read(typed).unwrap().augment, Some(expected), "{typed:?}");
        }
    }

    /// Every key, typed as a flag and written in a file.
    #[test]
    fn a_flag_is_what_the_key_is_in_a_file() {
        for key in KEYS {
            let flag = format!("--{}", key.flag());
            let word = key.words.last().map_or("7", |word| word.name);
            let (typed, written) = match key.form {
                Form::On => (vec![&flag[..]], "true".to_owned()),
                Form::Off => (vec![&flag[..]], "false".to_owned()),
                Form::List(_) => (vec![&flag[..], "a,b"], "['a', 'b']".to_owned()),
                Form::Set(_) => (vec![&flag[..], "a.b=1,a.c=0.5"], "{ a = { b = 1, c = 0.5 } }".to_owned()),
                Form::With(_) | Form::Optional(..) => (vec![&flag[..], word], format!("'{word}'")),
            };
            let file = |value: &str| toml::from_str::<Settings>(&format!("{} = {value}", key.name));
            let file = file(&written).or_else(|_| file("7")).unwrap();
            assert_eq!(read(&typed).unwrap(), file, "{}", key.name);
            assert!(!file.is_empty(), "{}", key.name);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (typed, expected) in [
            (&["--lr", "x"][..], "invalid value 'x' for '--lr <RATE>': `x` is not a number, such as 0.5"),
            (&["--clients", "abc"], "for '--clients <N>': `abc` is not a whole number, such as 10"),
            (&["--rounds", "5000000000"], "5000000000 is too large: it can be at most 4294967295"),
            (&["--samples-per-client", "x"], "`x` is neither a number nor `all`"),
            (&["--batch-norm", "averag"], "a similar value exists: 'average'"),
            (&["--augment=foo"], "[possible values: none, crop-flip]"),
            (&["--roundz", "3"], "a similar argument exists: '--rounds'"),
            (&["--iid=false"], "unexpected value 'false' for '--iid'"),
            (&["--iid", "--iid"], "cannot be used multiple times"),
            (&["--no-shuffle=1"], "unexpected value '1' for '--no-shuffle'"),
            (&["--lr", "0.1", "--lr", "0.2"], "cannot be used multiple times"),
            (&["--algorithm"], "a value is required for '--algorithm <NAME,...>'"),
            (&["--data-dir="], "for '--data-dir <DIR>': it is empty: give a path"),
            (&["--shuffle"], "unexpected argument '--shuffle'"),
        ] {
            let error = read(typed).unwrap_err();
            assert!(error.contains(expected), "{typed:?}: {error}");
        }
    }
}
