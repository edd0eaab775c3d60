//! Devices that were held out of training.

use std::fmt::Write as _;

use super::series::Comparison;
use super::tables::{NONE, Table, maybe};
use super::text::{counted, escape, percent};
use fedper_records::NewClients;

/// How many devices get a column of their own.
const SHOWN: usize = 10;

/// A section with a table for each run that has held devices out; nothing if none has.
pub(super) fn section(out: &mut String, of: &Comparison<'_>) {
    let found: Vec<(&String, &NewClients)> = of
        .runs
        .iter()
        .zip(&of.names)
        .filter_map(|(run, name)| Some((name, run.summary.as_ref()?.new_clients.as_ref()?)))
        .collect();
    if found.is_empty() {
        return;
    }
    out.push_str("<section id=\"new-devices\">\n<h2>New devices</h2>\n");
    for (name, new) in found {
        let caption = if of.runs.len() > 1 { escape(name) } else { String::new() };
        out.push_str(&table(new, caption));
    }
    let _ = writeln!(
        out,
        "<p class=\"note\">Devices that were held out of training. After it each got what the row names, fresh personal \
         layers, and its epochs on its own samples; where only personal layers train, the base stays as it is, batch-norm \
         statistics included. Accuracy in percent on each device's own test samples, the mean over devices unweighted.</p>\n\
         </section>"
    );
}

fn table(new: &NewClients, caption: String) -> String {
    let shown = &new.devices[..new.devices.len().min(SHOWN)];
    let mut columns =
        ["Begins with", "Trains", "Epochs", "Accuracy", "By epoch, from 0"].map(str::to_owned).to_vec();
    columns.extend(shown.iter().map(|device| format!("Device {device}")));
    let rows = new
        .algorithms
        .iter()
        .map(|(name, a)| {
            let curve: Vec<String> = a.by_epoch.iter().map(|&accuracy| percent(accuracy)).collect();
            let mut row = vec![
                escape(&new.begins_with(name)),
                new.trains(name).to_owned(),
                a.epochs.to_string(),
                maybe(a.accuracy.map(|accuracy| accuracy.mean), |v| {
                    format!("<strong>{}</strong>", percent(v))
                }),
                if curve.is_empty() { NONE.to_owned() } else { curve.join(" · ") },
            ];
            row.extend(shown.iter().map(|device| maybe(a.devices.get(device).copied(), percent)));
            (if name == "fedper" { "main" } else { "" }, row)
        })
        .collect();
    let mut text = Table { class: "results", caption, columns, heads: 1, rows }.html();
    if new.devices.len() > SHOWN {
        let _ = writeln!(
            text,
            "<p class=\"note\">The first {SHOWN} of {}.</p>",
            counted(new.devices.len(), "device")
        );
    }
    text
}
