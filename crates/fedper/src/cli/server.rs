//! `fedper server`.

use std::path::{Path, PathBuf};

use fedper_flower::runtime::Runtime;

use super::interrupt;
use super::say::say;
use super::superlink::{self, seconds};
use crate::config::{Config, Settings, read_settings};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::network::answer::{Limits, MAX_SAMPLES};
use crate::network::server::{self, ServerOptions};
use crate::rundir::{RunDir, read_summary};

/// Drive a federation on a Flower SuperLink
///
/// The same experiment as `fedper run --config FILE`, on devices that are other machines (`fedper client`, or Python
/// ClientApps), through a `flower-superlink --isolation process`. Writes the same run directory and report. Killed and
/// started again with the same command, it goes on where it was.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    superlink: superlink::Args,
    /// The experiment: a TOML file as `fedper run --config` takes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Folder for everything about the run; new or empty, or that of the run to go on with
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Begin a round when so many devices are online [default: all of the experiment's, but for those that
    /// say they take no part]
    #[arg(long, value_name = "COUNT")]
    min_devices: Option<u64>,
    /// Count a round if so many devices answer; otherwise begin it again, or ask again for the tests that are missing
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    min_answers: u64,
    /// How long a round waits for answers to its training, and then to its evaluation, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    round_timeout: f64,
    /// Refuse updates whose distance from the base (2-norm over all values) is larger
    #[arg(long, value_name = "NORM")]
    max_update_norm: Option<f64>,
    /// Refuse answers of devices that say they hold more samples
    #[arg(long, value_name = "COUNT", default_value_t = MAX_SAMPLES)]
    max_samples: u64,
    /// How long to wait for a SuperLink that cannot be reached, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    patience: f64,
    /// Threads that average [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// The bundle with the app of Python nodes, if there are any; `flwr build` makes it
    #[arg(long, value_name = "FILE")]
    fab: Option<PathBuf>,
    /// Print no progress
    #[arg(long)]
    quiet: bool,
    /// Print the summary as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  flower-superlink --insecure --isolation process --host 127.0.0.1 --port 8000
  fedper server --superlink http://127.0.0.1:8000 --config exp.toml --out runs/deployed
  fedper server --superlink http://127.0.0.1:8000 --config exp.toml --out runs/deployed --min-devices 8 --min-answers 5";

const NEW_CLIENTS: &str = "new_clients is for `fedper run`: a server holds no devices out, because a new device needs a question of \
                           its own; leave new_clients out, and start such devices when the run has ended";

pub(super) fn main(args: Args) -> Result<(), Failure> {
    let stop = interrupt::watch()?;
    let settings = read_settings(&args.config)?;
    let experiment = Experiment::prepare(&settings)?;
    if experiment.config.new_clients.is_some() {
        return Err(Error::Config(NEW_CLIENTS.into()).into());
    }
    let clients = experiment.config.clients;
    let options = ServerOptions {
        min_devices: args.min_devices,
        names_dataset: settings.dataset.is_some(),
        min_answers: args.min_answers,
        round_timeout: seconds("round-timeout", args.round_timeout)?,
        limits: Limits { max_samples: args.max_samples, max_update_norm: args.max_update_norm },
        workers: super::workers(args.workers)?,
    };
    if options.min_devices.is_some_and(|count| count > clients) || options.min_answers > clients {
        return Err(Error::Config(format!(
            "the experiment has {clients} devices: more cannot be waited for"
        ))
        .into());
    }
    let Some(mut dir) = open(&args.out, &experiment)? else {
        return super::run::finish(&args.out, &read_summary(&args.out)?, args.json);
    };
    let patience = seconds("patience", args.patience)?;
    let read = |path: &PathBuf| std::fs::read(path).map_err(Error::file("read", path));
    let fab = args.fab.as_ref().map(read).transpose()?;
    let runtime = Runtime::new(args.superlink.link(patience, &stop, args.quiet)?, fab);
    let quiet = args.quiet;
    let tell = move |line: &str| {
        if !quiet {
            say(format_args!("{line}"));
        }
    };
    let mut observer = super::progress::lines(&experiment, quiet);
    let result = server::run(&runtime, &experiment, &mut dir, &options, &mut *observer, &stop, &tell);
    drop(observer);
    super::run::finish(&args.out, &result?, args.json)
}

/// The run directory: a new one, or one to go on with. `None` if its run is complete.
fn open(path: &Path, experiment: &Experiment) -> Result<Option<RunDir>, Error> {
    if !path.join("config.toml").is_file() {
        return RunDir::create(path, experiment).map(Some);
    }
    let stored: Settings = RunDir::settings(path)?;
    let stored = Experiment::prepare(&stored)?.config.to_toml();
    let changed = Config::differences(&experiment.config.to_toml(), &stored);
    if !changed.is_empty() {
        return Err(Error::Config(format!(
            "{} goes on as it began: {}; begin another run with another --out",
            path.display(),
            changed.join(", ")
        )));
    }
    if RunDir::is_complete(path) {
        RunDir::remove_checkpoint(path)?;
        return Ok(None);
    }
    RunDir::resume(path, experiment).map(Some)
}
