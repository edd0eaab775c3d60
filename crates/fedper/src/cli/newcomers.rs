//! What a run prints of devices that were held out.

use super::table::{Align, percent, table};
use crate::rundir::records::NewClients;

/// How many devices get a column of their own.
const SHOWN: usize = 6;

pub(super) fn text(new: &NewClients) -> String {
    let mut columns = vec![
        ("begins with".to_owned(), Align::Left),
        ("epochs".to_owned(), Align::Right),
        ("trains".to_owned(), Align::Left),
    ];
    columns.push(("accuracy".to_owned(), Align::Right));
    let shown = &new.devices[..new.devices.len().min(SHOWN)];
    columns.extend(shown.iter().map(|device| (format!("device {device}"), Align::Right)));
    let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), percent);
    let rows: Vec<Vec<String>> = new
        .algorithms
        .iter()
        .map(|(name, a)| {
            let mut row = vec![new.begins_with(name), a.epochs.to_string(), new.trains(name).to_owned()];
            row.push(or_dash(a.accuracy.map(|accuracy| accuracy.mean)));
            row.extend(shown.iter().map(|device| or_dash(a.devices.get(device).copied())));
            row
        })
        .collect();
    let columns: Vec<(&str, Align)> = columns.iter().map(|(title, align)| (title.as_str(), *align)).collect();
    let count = new.devices.len();
    let were = if count == 1 { "device that was" } else { "devices that were" };
    format!("{count} {were} held out of training, afterwards:\n\n{}", table(&columns, &rows))
}
