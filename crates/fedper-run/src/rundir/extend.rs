//! Going on to another number of rounds than a run was begun for.
//!
//! What is done must be what a run of the new number would have done: then its end is that run's, bit for bit. A finished
//! run has no checkpoint any more; its final weights and records hold all of one.

use std::fs;
use std::path::Path;

use fedper_core::round::DeviceId;
use fedper_records::names::{CONFIG, DEVICES, ROUNDS};
use fedper_records::read_summary;

use super::RunDir;
use super::checkpoint::{self, Checkpoint, Progress};
use super::history::History;
use super::state::{read_kept, read_state};
use crate::config::{Config, LrSchedule};
use crate::error::Error;
use crate::experiment::Experiment;

/// Refuses a number of rounds that the run in `path`, begun as `began`, cannot go on to.
pub(super) fn check(path: &Path, began: &Config, now: &Config) -> Result<(), Error> {
    if began.rounds == now.rounds {
        return Ok(());
    }
    let another = |reason: String| {
        Err(Error::Config(format!(
            "{reason}; begin another run with --config {} --rounds {} --out DIR",
            path.join(CONFIG).display(),
            now.rounds
        )))
    };
    let histories = History::read(&path.join(ROUNDS))?;
    let done = histories.values().map(|history| history.done).max().unwrap_or(0);
    if now.rounds < done {
        return another(format!(
            "rounds is {}, but {done} are done in {}: ask for at least as many",
            now.rounds,
            path.display()
        ));
    }
    let untested = |h: &History| {
        h.ended.is_none()
            && h.done == now.rounds
            && h.accuracies.last().is_none_or(|&(round, _)| round < h.done)
    };
    if histories.values().any(untested) && !done.is_multiple_of(now.eval_every) {
        return another(format!(
            "rounds is {done}, but round {done} is done and was not evaluated (eval_every = {}): ask for {} or more",
            now.eval_every,
            done + 1
        ));
    }
    let rates = |config: &Config| -> Vec<f64> {
        let schedule = config.schedule();
        (1..=done).map(|round| schedule.rate_in(round)).collect()
    };
    if rates(began) != rates(now) {
        return another(format!(
            "the learning rate (lr_schedule = {}) of the {done} rounds that are done was that of a run of {} rounds: one \
             of {} would have had another",
            match now.lr_schedule {
                LrSchedule::Constant => "constant",
                LrSchedule::Cosine => "cosine",
                LrSchedule::Step => "step",
            },
            began.rounds,
            now.rounds
        ));
    }
    Ok(())
}

impl RunDir {
    /// Makes the checkpoint of the complete run in `path` again, from its final weights and records, so that it can go on to
    /// `experiment`'s number of rounds. Until [`RunDir::resume`] has taken it up, the run stays complete as it is.
    ///
    /// # Errors
    /// [`Error::Config`] if the number of rounds is not one to go on to; if a file is missing or broken.
    pub fn reopen(path: &Path, experiment: &Experiment) -> Result<(), Error> {
        let config = RunDir::settings(path)?;
        check(path, &Config::resolve(&config)?, &experiment.config)?;
        if path.join(checkpoint::FOLDER).exists() {
            // Left by one that was killed here; or another process is at work in it, which is an error.
            drop(Checkpoint::open(path)?);
            Self::remove_checkpoint(path)?;
        }
        let summary = read_summary(path)?;
        let text = |name: &str| {
            let path = path.join(name);
            fs::read_to_string(&path).map_err(Error::file("read", &path))
        };
        let len = |name: &str| {
            let path = path.join(name);
            fs::metadata(&path).map(|file| file.len()).map_err(Error::file("read", &path))
        };
        let progress = Progress {
            config: text(CONFIG)?,
            rounds_len: len(ROUNDS)?,
            devices_len: len(DEVICES)?,
            seconds: summary.seconds,
            init_sha256: summary.init_sha256,
        };
        let histories = History::read(&path.join(ROUNDS))?;
        Checkpoint::create_with(path, &progress, |made| {
            for (name, history) in &histories {
                fill(made, &path.join("weights").join(name), name, history.done, experiment, &progress)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Puts one algorithm's final weights into a checkpoint.
fn fill(
    made: &Checkpoint,
    weights: &Path,
    algorithm: &str,
    done: u32,
    experiment: &Experiment,
    progress: &Progress,
) -> Result<(), Error> {
    let Some(strategy) = experiment.method(algorithm) else { return Ok(()) };
    let parts = experiment.parts(&*strategy);
    let base = read_state(weights, &parts)?;
    let mut open = made.begin_round(strategy.name())?;
    for entry in fs::read_dir(weights).map_err(Error::file("read", weights))? {
        let path = entry.map_err(Error::file("read", weights))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("device-").and_then(|name| name.strip_suffix(".safetensors"));
        let device = number.and_then(|number| number.parse().ok()).map(DeviceId);
        if let Some(device) = device
            && let Some(kept) = read_kept(weights, &parts, device)?
        {
            open.keep(device, &kept)?;
        }
    }
    open.commit(progress, done, &base)
}
