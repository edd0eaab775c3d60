//! `fedper run`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fedper_nn::{InstructionSet, Network, Precision};

use super::seen::{self, Ended, Setting};
use super::settings::SettingsArgs;
use super::table::{Align, bytes, duration, percent, table};
use super::{interrupt, photos, progress, say};
use crate::config::{AUTO, Config, Settings, read_settings};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::rundir::records::Summary;
use crate::rundir::{RunDir, SampleTotals, read_summary};
use crate::simulator::{self, RunOptions};

/// Simulate a federation on this machine
///
/// Without arguments: FedPer against FedAvg and local-only training, on 10,000 real images that are part of the program.
/// Every flag is also a key of a configuration file (with _ for -); flags override the file.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Take the configuration from this TOML file; a run's own config.toml repeats the run bit for bit
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    config: Option<PathBuf>,
    /// Folder for everything about the run; must be new or empty [default: a new folder under runs/]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder where its last checkpoint left it; with --rounds to another number of rounds, a
    /// finished one too
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "config"], help_heading = "Run")]
    resume: Option<PathBuf>,
    /// Worker threads; results do not depend on them [default: one for each core]
    #[arg(long, value_name = "COUNT", help_heading = "Run")]
    workers: Option<usize>,
    /// Memory for devices' personal layers, such as 64MiB or 2GB; those that do not fit wait in the run's folder. Results
    /// do not depend on it [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Run")]
    personal_memory: Option<String>,
    /// Print no progress
    #[arg(long, help_heading = "Run")]
    quiet: bool,
    /// Print the summary as JSON on standard output, and nothing else there
    #[arg(long, help_heading = "Run")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  fedper run
  fedper run --algorithm fedper,fedavg,fedavg-ft,local --model cnn --clients 20 --classes-per-client 2
  fedper run --dataset cifar10 --data-dir ~/cifar --model resnet34 --personal-layers 1 --rounds 100 --out runs/cifar
  fedper run --clients 100000 --participation 0.001 --samples-per-client 50 --eval-devices 100 --model cnn
  fedper run --new-clients 2 --new-client-epochs 3
  fedper run --config runs/cifar/config.toml --seed 2 --out runs/cifar-2
  fedper run --resume runs/cifar
  fedper run --resume runs/cifar --rounds 200";

pub(super) fn main(args: Args) -> Result<(), Failure> {
    let workers = super::workers(args.workers)?;
    let personal_memory = super::size::memory(args.personal_memory.as_deref())?;
    let (experiment, mut dir) = match &args.resume {
        Some(path) => match resume(path, args.settings.0, args.quiet)? {
            Some(ready) => ready,
            None => {
                if !args.quiet {
                    say(format_args!(
                        "The run in {} is complete: there is nothing to go on with.",
                        path.display()
                    ));
                }
                return finish(path, &read_summary(path)?, args.json);
            }
        },
        None => {
            let settings = match &args.config {
                Some(file) => args.settings.0.over(read_settings(file)?),
                None => args.settings.0.over(Settings::default()),
            };
            let experiment = photos::prepare(&settings, args.quiet)?;
            // Before there is a folder that could not be gone on with either.
            Network::fits(&experiment.architecture, experiment.config.batch_size)?;
            let path = args.out.unwrap_or_else(|| free_folder(&experiment.config));
            let dir = RunDir::create(&path, &experiment)?;
            (experiment, dir)
        }
    };
    let stop = interrupt::watch()?;
    let options = RunOptions { workers, personal_memory, stop: &stop };
    let mut observer = progress::observer(&experiment, args.quiet);
    if !args.quiet {
        say(format_args!("{}", headline(&experiment, &dir, workers)));
    }
    let result = simulator::run(&experiment, &mut dir, &options, &mut *observer);
    drop(observer);
    let path = dir.path().to_owned();
    finish(&path, &result?, args.json)
}

/// The run in `path`, unless it is complete.
fn resume(path: &Path, flags: Settings, quiet: bool) -> Result<Option<(Experiment, RunDir)>, Error> {
    // What the run has is what `auto` was resolved to.
    let flags = Settings { stem: flags.stem.filter(|stem| stem != AUTO), ..flags };
    let mut settings = RunDir::settings(path)?;
    let complete = RunDir::is_complete(path);
    let mut longer = false;
    if !flags.is_empty() {
        let stored = Config::resolve(&settings)?;
        let keeps_steps = flags.lr_step_rounds.is_some();
        settings = flags.over(settings);
        let asked = Config::resolve(&settings)?;
        longer = asked.rounds != stored.rounds;
        let as_long = Config { rounds: stored.rounds, ..asked.clone() };
        let changed = Config::differences(&as_long.to_toml(), &stored.to_toml());
        if !changed.is_empty() {
            return Err(Error::Config(format!(
                "{} goes on as it began: {}; leave the flag out, or begin another run with --config {}",
                path.display(),
                changed.join(", "),
                path.join("config.toml").display()
            )));
        }
        // Unless somebody said so, these steps are a third of the rounds the run was begun for.
        let third = stored.rounds.div_ceil(3).max(1);
        if longer && !keeps_steps && stored.lr_step_rounds == Some(third) {
            return Err(Error::Config(format!(
                "the learning rate steps every {0} rounds, a third of {1}: a run of {2} rounds would step every {3}; to go on \
                 with steps of {0}, say so with --lr-step-rounds {0}",
                third,
                stored.rounds,
                asked.rounds,
                asked.rounds.div_ceil(3)
            )));
        }
    }
    if complete && !longer {
        RunDir::remove_checkpoint(path)?;
        return Ok(None);
    }
    let experiment = photos::prepare(&settings, quiet)?;
    if complete {
        RunDir::reopen(path, &experiment)?;
    }
    match RunDir::resume(path, &experiment) {
        Ok(dir) => Ok(Some((experiment, dir))),
        Err(error) => {
            // It stays as it was: complete.
            if complete && RunDir::is_complete(path) {
                RunDir::remove_checkpoint(path)?;
            }
            Err(error)
        }
    }
}

/// The first `runs/NNN-<dataset>-<model>` that is not taken.
fn free_folder(config: &Config) -> PathBuf {
    let taken = std::fs::read_dir("runs").into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.split('-').next()?.parse::<u32>().ok()
    });
    let number = taken.max().unwrap_or(0) + 1;
    PathBuf::from(format!("runs/{number:03}-{}-{}", config.dataset, config.model))
}

fn headline(experiment: &Experiment, dir: &RunDir, workers: usize) -> String {
    let config = &experiment.config;
    let SampleTotals { train, test } = dir.samples();
    let kernels = InstructionSet::current();
    let (precision, slow) = match config.precision {
        Precision::Fp32 => (String::new(), String::new()),
        Precision::Bf16 if kernels.multiplies_bf16() => (format!(" in bf16 ({kernels})"), String::new()),
        Precision::Bf16 => (" in bf16".to_owned(), format!("\n{}", super::NO_BF16)),
    };
    let held = config.new_clients.map_or_else(String::new, |count| format!(" ({count} held out)"));
    let notes: String = experiment.notes().iter().map(|note| format!("\nNote: {note}")).collect();
    format!(
        "{}{precision} on {}: {} devices{held}, {train} training and {test} test images{}, {}\n\
         {} rounds of {} on {workers} worker{}, into {}{slow}{notes}",
        config.model,
        experiment.dataset.name,
        config.clients,
        if experiment.partition.shares_samples() { " drawn with replacement" } else { "" },
        dealt(config) + if config.own_labels { ", labels in an order of its own on each device" } else { "" },
        config.rounds,
        config.algorithm.join(", "),
        if workers == 1 { "" } else { "s" },
        dir.path().display()
    )
}

/// How the samples are dealt, in words.
fn dealt(config: &Config) -> String {
    match (config.classes_per_client, config.dirichlet) {
        (Some(1), _) => "1 class each".to_owned(),
        (Some(k), _) => format!("{k} classes each"),
        (_, Some(alpha)) => format!("classes by Dirichlet({alpha})"),
        _ if config.by_folder && config.min_photos.is_some() => "a user each".to_owned(),
        _ if config.by_folder => "a folder each".to_owned(),
        _ => "dealt at random".to_owned(),
    }
}

/// Draws the report and prints where the run ended.
pub(super) fn finish(path: &Path, summary: &Summary, json: bool) -> Result<(), Failure> {
    let report = super::report::draw(&[path.to_owned()], path)?;
    if json {
        let mut text = serde_json::to_string_pretty(summary).expect("a summary is plain data");
        text.push('\n');
        super::print(&text)?;
        return Ok(came_through(summary)?);
    }
    let mut text = results(path, summary)?;
    if let Some(seen) = what_was_seen(path, summary)? {
        text += &format!("\n{seen}");
    }
    if let Some(new) = &summary.new_clients {
        text += &format!("\n{}", super::newcomers::text(new));
    }
    text += &format!("\nReport: {}\n", report.display());
    super::print(&text)?;
    Ok(came_through(summary)?)
}

/// # Errors
/// If no algorithm came through, with the reason of each.
fn came_through(summary: &Summary) -> Result<(), Error> {
    match summary.failure() {
        Some(reasons) => Err(Error::Training(format!("no algorithm came through: {reasons}"))),
        None => Ok(()),
    }
}

fn what_was_seen(path: &Path, summary: &Summary) -> Result<Option<String>, Error> {
    let config = Config::resolve(&RunDir::settings(path)?)?;
    let mut curves: BTreeMap<String, Vec<(u32, f64)>> = BTreeMap::new();
    for record in RunDir::rounds(path)? {
        if let Some(accuracy) = record.accuracy {
            curves.entry(record.algorithm).or_default().push((record.round, accuracy.mean));
        }
    }
    let ended = config.algorithm.iter().filter_map(|name| {
        let algorithm = summary.algorithms.get(name)?;
        let curve = curves.get(name)?;
        let rising = seen::rising(curve, algorithm.rounds) && !algorithm.stopped_early;
        Some(Ended { name, accuracy: algorithm.last?, devices: &algorithm.devices, rising })
    });
    let run = path.display().to_string();
    let setting = Setting { personal_layers: config.personal_layers, rounds: config.rounds, run: &run };
    Ok(seen::seen(ended.collect(), &setting))
}

fn results(path: &Path, summary: &Summary) -> Result<String, Error> {
    let columns = [
        ("algorithm", Align::Left),
        ("accuracy", Align::Right),
        ("± devices", Align::Right),
        ("worst tenth", Align::Right),
        ("best (round)", Align::Right),
        ("sent in all", Align::Right),
        ("images/s", Align::Right),
        ("time", Align::Right),
    ];
    // In the order of the configuration.
    let order = Config::resolve(&RunDir::settings(path)?)?.algorithm;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = order
        .iter()
        .filter_map(|name| Some((name, summary.algorithms.get(name)?)))
        .map(|(name, a)| {
            vec![
                name.clone(),
                or_dash(a.last.map(percent)),
                or_dash(a.accuracy.map(|spread| percent(spread.std))),
                or_dash(a.accuracy.map(|spread| percent(spread.worst_decile))),
                or_dash(a.best.zip(a.best_round).map(|(best, round)| format!("{} ({round})", percent(best)))),
                bytes(a.bytes_down + a.bytes_up),
                format!("{:.0}", a.images_per_second),
                duration(a.seconds),
            ]
        })
        .collect();
    let memory = summary.peak_rss_bytes.map(|rss| format!(", {} of memory at most", bytes(rss)));
    let early: Vec<String> = order
        .iter()
        .filter_map(|name| Some((name, summary.algorithms.get(name).filter(|a| a.stopped_early)?)))
        .map(|(name, a)| format!("{name} ended after round {}", a.rounds))
        .collect();
    let early = match early.is_empty() {
        true => String::new(),
        false => format!("Stopped on a plateau of the test accuracy: {}\n", early.join(", ")),
    };
    let mut ended = String::new();
    for (name, a) in order.iter().filter_map(|name| Some((name, summary.algorithms.get(name)?))) {
        if let Some(reason) = &a.ended {
            ended += &format!("{name} ended before its time: {reason}\n");
        }
    }
    let untested = order.iter().filter_map(|name| Some(summary.algorithms.get(name)?.untested)).max();
    let untested = match untested.unwrap_or(0) {
        0 => String::new(),
        1 => "Note: 1 device has no test images and is in none of the means\n".to_owned(),
        count => format!("Note: {count} devices have no test images and are in none of the means\n"),
    };
    let notes: String = summary.all_notes().iter().map(|note| format!("Note: {note}\n")).collect();
    Ok(format!(
        "Mean accuracy over devices, each on its own test images with its own network:\n\n{}\n{} in all{}\n{early}{ended}{untested}{}",
        table(&columns, &rows),
        duration(summary.seconds),
        memory.unwrap_or_default(),
        notes
    ))
}
