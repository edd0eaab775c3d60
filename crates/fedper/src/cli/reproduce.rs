//! `fedper reproduce`.

use std::path::{Path, PathBuf};

use fedper_report::experiment::ExperimentFigure;

use super::table::{Align, percent, table};
use super::{interrupt, photos, say};
use crate::config::Settings;
use crate::error::Error;
use crate::failure::Failure;
use crate::reproduce::{self, Figure, Plan, PlannedRun, Scale, State};
use crate::rundir::{RunDir, read_summary};
use crate::simulator::{self, PERSONAL_MEMORY, RunOptions};

/// Run the paper's experiments, by figure
///
/// Each figure is an experiment file that is part of the program and names every setting. A curve is a run directory for
/// each seed; runs that are finished are not run again, and an interrupted one goes on. What is there is drawn after every
/// run: each figure as SVG, PNG and CSV, and index.html with all of them.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// fig2 (CIFAR-10, k classes per device), fig3 (CIFAR-100), fig4 (how many layers are personal), fig7 (FLICKR-AES), or all
    #[arg(required = true, value_name = "FIGURE")]
    figures: Vec<String>,
    /// How much of it to run
    #[arg(long, value_enum, default_value = "small")]
    scale: Scale,
    /// Run each curve with seeds 1 to S
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Only panels whose names contain one of these, such as mobilenet-k4
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    panel: Vec<String>,
    /// Folder of the runs and figures [default: reproduced/<scale>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder with a dataset's files, such as cifar10=~/cifar [default: as for `fedper run`]
    #[arg(long, value_name = "DATASET=DIR")]
    data_dir: Vec<String>,
    /// List the runs and how far they are, and run nothing
    #[arg(long)]
    list: bool,
    /// Draw from the runs that are there, and run nothing
    #[arg(long, conflicts_with = "list")]
    draw: bool,
    /// Worker threads; results do not depend on them [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Print no progress
    #[arg(long)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  fedper reproduce all --scale smoke                        every figure, on small data, in minutes
  fedper reproduce fig2 --panel mobilenet-k4 --seeds 3      one panel, with its spread over three seeds
  fedper reproduce fig2 fig4 --data-dir cifar10=~/cifar     figures that share runs, from official files
  fedper reproduce fig4 --list                              what would be run, and what is done";

pub(super) fn main(args: &Args) -> Result<(), Failure> {
    let mut figures: Vec<Figure> = Vec::new();
    for name in &args.figures {
        for figure in Figure::named(name)? {
            if figures.iter().all(|known| known.name != figure.name) {
                figures.push(figure);
            }
        }
    }
    let out = args.out.clone().unwrap_or_else(|| Path::new("reproduced").join(args.scale.name()));
    let plan = Plan::new(&figures, args.scale, args.seeds, &args.panel, &out)?;
    let folders = data_dirs(&args.data_dir)?;
    if args.list {
        return Ok(list(&plan)?);
    }
    let workers = super::workers(args.workers)?;
    let stop = interrupt::watch()?;
    let options = RunOptions { workers, personal_memory: PERSONAL_MEMORY, stop: &stop };
    // Runs whose data cannot be had, and why, each reason once.
    let (mut left_out, mut reasons) = (0, Vec::<String>::new());
    // Runs that ended before their last round, and why.
    let mut ended = Vec::<String>::new();
    for (place, run) in plan.runs.iter().enumerate() {
        let complete = plan.state(run)? == State::Complete;
        if complete {
            ended.extend(failure(&plan, run)?);
        }
        if args.draw || complete {
            continue;
        }
        if !args.quiet {
            say(format_args!("Run {} of {}: {}", place + 1, plan.runs.len(), run.name));
        }
        match execute(&plan, run, &folders, &options, args.quiet) {
            // Without its data a figure cannot be made; the others can.
            Err(Error::Data(error)) => {
                left_out += 1;
                let reason = format!("{}: {error}", run.figure);
                if !reasons.contains(&reason) {
                    say(format_args!("fedper: {reason}"));
                    reasons.push(reason);
                }
            }
            result => {
                result?;
                if let Some(reason) = failure(&plan, run)? {
                    say(format_args!("fedper: {reason}"));
                    ended.push(reason);
                }
                reproduce::draw(&figures, args.scale, &out)?;
            }
        }
    }
    let drawn = reproduce::draw(&figures, args.scale, &out)?;
    let tables: Vec<String> = drawn.figures.iter().map(results).collect();
    super::print(&format!("{}\nFigures: {}\n", tables.join("\n"), drawn.page.display()))?;
    match reasons.first() {
        None if ended.is_empty() => Ok(()),
        None => Err(Error::Training(format!(
            "{} of {} runs ended before their last round: {}",
            ended.len(),
            plan.runs.len(),
            ended.join("; ")
        ))
        .into()),
        Some(reason) => Err(Error::Training(format!(
            "{left_out} of {} runs were not made, for want of their data: {reason}",
            plan.runs.len()
        ))
        .into()),
    }
}

/// Why a complete run ended before its last round, if it did.
fn failure(plan: &Plan, run: &PlannedRun) -> Result<Option<String>, Error> {
    let reason = read_summary(&plan.folder(run))?.failure();
    Ok(reason.map(|reason| format!("{}: {reason}", run.name)))
}

/// `--data-dir DATASET=DIR`, parsed.
fn data_dirs(given: &[String]) -> Result<Vec<(String, PathBuf)>, Error> {
    let parse = |text: &String| {
        let (dataset, folder) = text.split_once('=').ok_or_else(|| {
            Error::Config(format!("--data-dir {text}: say which dataset it holds, such as cifar10={text}"))
        })?;
        Ok((dataset.to_owned(), PathBuf::from(folder)))
    };
    given.iter().map(parse).collect()
}

/// Runs `run` to its end, from where it is.
fn execute(
    plan: &Plan,
    run: &PlannedRun,
    folders: &[(String, PathBuf)],
    options: &RunOptions<'_>,
    quiet: bool,
) -> Result<(), Error> {
    let folder = plan.folder(run);
    let dataset = run.settings.dataset.as_deref().unwrap_or_default();
    let mut data_dir = folders.iter().find(|(name, _)| name == dataset).map(|(_, folder)| folder.clone());
    if let (None, Some(made)) = (&data_dir, &run.made) {
        let folder = plan.made_folder(dataset);
        made.ensure(&folder)?;
        data_dir = Some(folder);
    }
    let (experiment, mut dir) = match plan.state(run)? {
        State::New => {
            let experiment = photos::prepare(&Settings { data_dir, ..run.settings.clone() }, quiet)?;
            let dir = RunDir::create(&folder, &experiment)?;
            (experiment, dir)
        }
        State::Begun => {
            let experiment = photos::prepare(&RunDir::settings(&folder)?, quiet)?;
            let dir = RunDir::resume(&folder, &experiment)?;
            (experiment, dir)
        }
        State::Complete => return Ok(()),
    };
    let mut observer = super::progress::observer(&experiment, quiet);
    simulator::run(&experiment, &mut dir, options, &mut *observer).map_err(|error| match error {
        Error::Interrupted(_) => {
            Error::Stopped("interrupted after a checkpoint; the same command goes on".into())
        }
        other => other,
    })?;
    Ok(())
}

fn list(plan: &Plan) -> Result<(), Error> {
    let columns = [("run", Align::Left), ("figure", Align::Left), ("state", Align::Left)];
    let mut rows = Vec::new();
    for run in &plan.runs {
        let state = match plan.state(run)? {
            State::New => "to do",
            State::Begun => "begun",
            State::Complete if failure(plan, run)?.is_some() => "ended early",
            State::Complete => "done",
        };
        rows.push(vec![run.name.clone(), run.figure.clone(), state.to_owned()]);
    }
    super::print(&table(&columns, &rows))
}

/// A figure's table for the terminal.
fn results(figure: &ExperimentFigure) -> String {
    let columns = [
        ("plot", Align::Left),
        ("method", Align::Left),
        ("accuracy", Align::Right),
        ("± seeds", Align::Right),
        ("± devices", Align::Right),
        ("published", Align::Right),
        ("seeds", Align::Right),
        ("rounds", Align::Right),
        ("time", Align::Right),
    ];
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), percent);
    let rows: Vec<Vec<String>> = figure
        .rows()
        .into_iter()
        .map(|row| {
            let time = row.time();
            vec![
                row.panel,
                row.curve,
                show(row.accuracy),
                show(row.over_seeds),
                show(row.over_devices),
                show(row.published),
                row.seeds.to_string(),
                row.round.to_string(),
                time,
            ]
        })
        .collect();
    let mut text = format!("{}: {}\n", figure.name, figure.title);
    for note in figure.notes() {
        text += &format!("Note: {note}\n");
    }
    if !figure.changes.is_empty() {
        text += &format!("Not at the paper's scale: {}.\n", figure.changes.join("; "));
    }
    format!("{text}\n{}", table(&columns, &rows))
}
