//! `docs/settings.md` is made of the table of keys. `FEDPER_DOCS=write` writes it again.

use std::path::PathBuf;

use fedper::config::{Form, KEYS, Key};
use fedper_core::strategy::METHODS;

const INTRO: &str = "# Settings

This page lists every key of a run's configuration. It is made of the program's own table of keys, and so is
`fedper run --help`.

Each key is a flag of `fedper run`, and a key of a configuration file (`fedper run --config FILE`). The file has `_` where the
flag has `-`. A flag overrides the file, and the file overrides the default. A run writes all of them into its `config.toml`, with
the defaults filled in.

In a file, text and words are in quotes, a list is in brackets (`algorithm = [\"fedper\", \"local\"]`), and a switch is `true` or
`false`. An unknown key is an error. Numbers must be finite.
";

fn page() -> String {
    let mut page = INTRO.to_owned();
    let mut heading = "";
    for key in KEYS {
        if key.heading != heading {
            heading = key.heading;
            page += &format!(
                "\n## {heading}\n\n| key | flag | what it does | default | range |\n|---|---|---|---|---|\n"
            );
        }
        page += &row(key);
    }
    page += "\n## Methods\n\n`--set ditto.lambda=0.1`, or in a file `[method.ditto]` and `lambda = 0.1`.\n\n\
             | method | setting | what it is | default |\n|---|---|---|---|\n";
    for entry in METHODS {
        for setting in entry.settings {
            let default = setting.default.map_or(String::new(), |value| value.to_string());
            page +=
                &format!("| `{}` | `{}` | {} | {default} |\n", entry.name, setting.name, cell(setting.help));
        }
    }
    page
}

fn row(key: &Key) -> String {
    let flag = key.flag();
    let flag = match key.form {
        Form::With(value) => format!("--{flag} {value}"),
        Form::Optional(value, _) => format!("--{flag} [{value}]"),
        Form::List(values) | Form::Set(values) => format!("--{flag} {values}"),
        Form::On | Form::Off => format!("--{flag}"),
    };
    let mut help = cell(key.help());
    if !key.words.is_empty() {
        let words = key.words.iter().map(|word| format!("`{}` ({})", word.name, lower(&cell(word.help()))));
        help += &format!(". Values: {}", words.collect::<Vec<_>>().join(", "));
    }
    if let Form::Optional(_, without) = key.form {
        help += &format!(". The flag alone is `{without}`");
    }
    let default = key.default.map(cell).unwrap_or_default();
    let default = default.replace("docs/defaults.md", "[defaults.md](defaults.md)");
    let range = key.range.map_or("", |range| range.words);
    format!("| `{}` | `{}` | {help} | {default} | {range} |\n", key.name, cell(&flag))
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn lower(text: &str) -> String {
    let (first, rest) = text.split_at(text.len().min(1));
    first.to_lowercase() + rest
}

#[test]
fn the_page_of_settings_is_made_of_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if std::env::var("FEDPER_DOCS").as_deref() == Ok("write") {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/settings.md is not what the table says: run this test with FEDPER_DOCS=write"
    );
}

#[test]
fn every_key_is_one_that_a_file_can_have_and_says_what_it_does() {
    let unknown = toml::from_str::<fedper::config::Settings>("nothing = 1").unwrap_err().to_string();
    for key in KEYS {
        assert!(unknown.contains(&format!("`{}`", key.name)), "{}", key.name);
        assert!(!key.help().is_empty() && !key.help().ends_with('.'), "{}", key.name);
        // The default has its own place.
        assert!(!key.help().contains("[default:"), "{}", key.name);
    }
}
