//! `fedper methods`.

use fedper_core::strategy::registry::by_name;
use fedper_core::strategy::{Entry, METHODS, Setting};

use super::table::{Align, table};
use crate::error::Error;

/// List the methods that can be compared, or say more of one
#[derive(clap::Args)]
pub(super) struct Args {
    /// One of them
    method: Option<String>,
}

pub(super) fn main(args: &Args) -> Result<(), Error> {
    let Some(name) = &args.method else {
        let row = |entry: &&Entry| {
            let about = entry.by_default().about();
            vec![entry.name.to_owned(), about.kept.to_owned(), about.line.to_owned()]
        };
        let rows: Vec<Vec<String>> = METHODS.iter().map(row).collect();
        let columns =
            [("method", Align::Left), ("a device keeps", Align::Left), ("what it does", Align::Left)];
        return super::print(&format!("{}\nfedper methods NAME says more of one.\n", table(&columns, &rows)));
    };
    let Some(entry) = by_name(name) else {
        let known: Vec<&str> = METHODS.iter().map(|entry| entry.name).collect();
        return Err(Error::Config(format!("there is no method `{name}`; there are {}", known.join(", "))));
    };
    super::print(&described(entry))
}

fn described(entry: &Entry) -> String {
    let method = entry.by_default();
    let about = method.about();
    let mut text = format!("{}: {}\n\n", entry.name, about.line);
    if !about.source.is_empty() {
        text += &format!("Source           arXiv:{}\n", about.source);
    }
    text += &format!("A device keeps   {}\n", about.kept);
    text += &format!("A server learns  {}\n", about.learns);
    if !method.takes_momentum() {
        text += "Momentum         none: where it is not given, it is 0 for all methods of the run\n";
    }
    if entry.settings.is_empty() {
        return text + "\nIt has no settings.\n";
    }
    let row = |setting: &Setting| {
        let value = setting.default.map_or("-".to_owned(), |value| value.to_string());
        vec![format!("--set {}.{}=", entry.name, setting.name), value, setting.help.to_owned()]
    };
    let rows: Vec<Vec<String>> = entry.settings.iter().map(row).collect();
    let columns = [("setting", Align::Left), ("default", Align::Right), ("what it is", Align::Left)];
    text + "\n" + &table(&columns, &rows)
}
