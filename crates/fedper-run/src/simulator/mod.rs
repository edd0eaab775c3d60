//! A federation on one machine: worker threads are its devices, one after another.

mod hosts;
mod newcomers;
mod pool;

use self::hosts::Workers;
use self::pool::Pool;
use crate::campaign::Campaign;
pub use crate::campaign::{Observer, PERSONAL_MEMORY, RunOptions};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::rundir::RunDir;
use crate::rundir::records::Summary;

/// Runs `experiment` to its end, or on from where `dir` left off, and writes the run directory.
///
/// Rounds are interleaved: round 1 of every algorithm, then round 2, so that a comparison grows as it runs.
///
/// An algorithm whose devices all diverge ends there, with the reason in its records and the summary; the others go on.
///
/// # Errors
/// If a file cannot be read or written, or [`RunOptions::stop`] is set. The run directory then holds the checkpoint of the
/// last round.
pub fn run(
    experiment: &Experiment,
    dir: &mut RunDir,
    options: &RunOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<Summary, Error> {
    let mut campaign = Campaign::restore(experiment, &experiment.plan(), dir, options)?;
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, experiment, options.workers, options.stop);
        let mut workers = Workers { pool, stop: options.stop, dir: dir.path().to_owned() };
        campaign.rounds(&mut workers, dir, observer)
    })?;
    campaign.write_weights(dir)?;
    if let Some(held) = experiment.config.new_clients {
        observer.new_devices(held);
        let records = newcomers::run(experiment, &campaign.federations, options, dir.path(), observer)?;
        dir.write_new_clients(&records)?;
    }
    campaign.finish(dir)
}
