//! Data that take their time: progress while photos are decoded, and what was left out.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::say;
use crate::config::Settings;
use crate::error::Error;
use crate::experiment::Experiment;

/// How many photos that were left out are named before a run.
const NAMED: usize = 10;
/// How often a plain line tells how far it is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Prepares an experiment, with progress on standard error unless `quiet`; warns of what was left out of the data in any
/// case.
///
/// # Errors
/// As [`Experiment::prepare`].
pub(super) fn prepare(settings: &Settings, quiet: bool) -> Result<Experiment, Error> {
    let mut counter = Counter::new("photos decoded", quiet);
    let experiment =
        Experiment::prepare_watched(settings, &mut |done, total| counter.show(done, Some(total)));
    drop(counter);
    let experiment = experiment?;
    for line in experiment.dataset.left_out.warnings(NAMED) {
        say(format_args!("warning: {line}"));
    }
    Ok(experiment)
}

/// Who the devices are and what was left out, for people who inspect a dataset; empty if there is nothing to tell.
pub(super) fn inspection(experiment: &Experiment) -> String {
    let (dataset, mut text) = (&experiment.dataset, String::new());
    if let Some(devices) = &dataset.devices {
        text += "\nDevices:\n";
        for (number, device) in devices.iter().enumerate() {
            text += &format!("{number:>6}  {}\n", device.name);
        }
    }
    let left_out = &dataset.left_out;
    for line in left_out.warnings(usize::MAX) {
        text += &format!("{line}\n");
    }
    for (user, why) in &left_out.users {
        text += &format!("user {user} does not qualify: {why}\n");
    }
    for note in experiment.notes() {
        text += &format!("Note: {note}\n");
    }
    text
}

/// A count that goes up, on standard error: a bar on a terminal, a line now and then elsewhere.
pub(super) struct Counter {
    what: &'static str,
    quiet: bool,
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Counter {
    pub(super) fn new(what: &'static str, quiet: bool) -> Self {
        Self { what, quiet, bar: None, last: Instant::now() }
    }

    pub(super) fn show(&mut self, done: usize, total: Option<usize>) {
        if self.quiet {
            return;
        }
        let total = total.unwrap_or(done);
        if !std::io::stderr().is_terminal() {
            if self.last.elapsed() >= PLAIN_INTERVAL {
                self.last = Instant::now();
                say(format_args!("{done} of {total} {}", self.what));
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos} of {len} {msg}, {eta} left");
            let bar = ProgressBar::new(0).with_style(style.expect("a valid template").progress_chars("━╸ "));
            bar.set_message(self.what);
            bar
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
