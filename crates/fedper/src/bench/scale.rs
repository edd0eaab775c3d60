//! What a round costs as the federation grows: the same round, with the same number of participants, out of 1,000 devices
//! and out of 100,000.
//!
//! Each federation is a whole run (checkpoints, records, final weights, report) in a process of its own, so that each has
//! its own peak of memory. The processes run their rounds in turn, one round each, so that whatever else the machine does
//! meanwhile weighs on all alike.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fedper_report::RunData;
use serde::{Deserialize, Serialize};

use crate::config::{Samples, Settings};
use crate::error::Error;
use crate::experiment::Experiment;
use crate::failure::Failure;
use crate::rundir::records::RoundRecord;
use crate::rundir::{RunDir, peak_rss_bytes};
use crate::simulator::{self, Observer, RunOptions};

/// A federation to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many devices there are.
    pub devices: u64,
    /// How many of them train in a round; as many are evaluated.
    pub participants: u64,
    /// Training samples of each.
    pub samples: usize,
    /// Rounds that count; one more runs before them.
    pub rounds: u32,
    /// Worker threads.
    pub workers: usize,
    /// Memory for personal layers, in bytes.
    pub personal_memory: u64,
    /// The run directory, new or empty.
    pub dir: PathBuf,
}

/// What was measured of one federation.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// How many devices there are.
    pub devices: u64,
    /// From the start of the process to the start of its first round.
    pub startup_seconds: f64,
    /// Median over rounds, each with its evaluation and its checkpoint.
    pub seconds: f64,
    /// Every round.
    pub round_seconds: Vec<f64>,
    /// Training samples a second at the median, evaluation and checkpoint included.
    pub images_per_second: f64,
    /// Largest resident memory of the whole process, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// The run directory at its largest, looked at after each round and at the end.
    pub run_dir_bytes: u64,
}

/// What the measured process says, a line each.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// The first round can begin.
    Ready,
    Round {
        seconds: f64,
        samples: u64,
    },
    Done {
        peak_rss_bytes: Option<u64>,
    },
}

impl Options {
    fn settings(&self) -> Settings {
        Settings {
            model: Some("cnn".into()),
            algorithm: Some(vec!["fedper".into()]),
            personal_layers: Some(1),
            clients: Some(self.devices),
            samples_per_client: Some(Samples::Count(self.samples)),
            // The same work for each participant, however many devices there are.
            with_replacement: Some(true),
            participation: Some(self.participants as f64 / self.devices as f64),
            eval_devices: Some(self.participants),
            rounds: Some(self.rounds + 1),
            classes_per_client: Some(3),
            local_epochs: Some(1),
            batch_size: Some(20),
            lr: Some(0.01),
            momentum: Some(0.5),
            ..Settings::default()
        }
    }
}

/// Runs one federation in this process, in step with the process that reads its standard output.
///
/// # Errors
/// As [`simulator::run`], or if the report cannot be drawn.
pub fn serve(options: &Options) -> Result<(), Failure> {
    let experiment = Experiment::prepare(&options.settings())?;
    let mut dir = RunDir::create(&options.dir, &experiment)?;
    let run = RunOptions {
        workers: options.workers,
        personal_memory: options.personal_memory,
        stop: &AtomicBool::new(false),
    };
    let mut steps = Steps { left: options.rounds + 1, start: Instant::now() };
    let summary = simulator::run(&experiment, &mut dir, &run, &mut steps)?;
    if let Some(reason) = summary.failure() {
        return Err(Error::Training(reason).into());
    }
    fedper_report::write(&[RunData::read(&options.dir)?], &options.dir)?;
    say(&Line::Done { peak_rss_bytes: peak_rss_bytes() });
    Ok(())
}

fn say(line: &Line) {
    // Nobody there any more: the run goes on to its end, which is near.
    let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(line).expect("plain data"));
}

/// Waits for a line on standard input before each round.
struct Steps {
    left: u32,
    start: Instant,
}

impl Steps {
    fn wait(&mut self) {
        let mut line = String::new();
        // As in `say`.
        let _ = std::io::stdin().read_line(&mut line);
        self.start = Instant::now();
    }
}

impl Observer for Steps {
    fn begin(&mut self, _trainings: u64, _done: u64) {
        say(&Line::Ready);
        self.wait();
    }

    fn round(&mut self, record: &RoundRecord) {
        say(&Line::Round { seconds: self.start.elapsed().as_secs_f64(), samples: record.samples_trained });
        self.left -= 1;
        if self.left > 0 {
            self.wait();
        }
    }
}

/// Measures every one of `federations`, each in the process that `command` starts for it, which must come to [`serve`].
/// `told` is called with what is happening.
///
/// # Errors
/// If a process cannot be started, or ends before its federation does, with what it said.
pub fn measure(
    federations: &[Options],
    command: impl Fn(&Options) -> Command,
    told: &mut dyn FnMut(&str),
) -> Result<Vec<Figures>, Error> {
    let mut running = Vec::new();
    for options in federations {
        told(&format!("{} devices: start-up", options.devices));
        running.push(Running::start(options, command(options))?);
    }
    let rounds = federations.iter().map(|options| options.rounds).max().unwrap_or(0);
    for round in 0..=rounds {
        if round > 0 {
            told(&format!("round {round} of {rounds}"));
        }
        // Another one goes first in each round.
        let first = round as usize % running.len().max(1);
        let (later, sooner) = running.split_at_mut(first);
        for federation in sooner.iter_mut().chain(later).filter(|federation| round <= federation.rounds) {
            federation.round()?;
        }
    }
    running.into_iter().map(Running::finish).collect()
}

/// A measured process. Dropping it ends it.
struct Running {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    dir: PathBuf,
    devices: u64,
    rounds: u32,
    startup_seconds: f64,
    /// The first one, which is not counted, included.
    timed: Vec<(f64, u64)>,
    run_dir_bytes: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(options: &Options, mut command: Command) -> Result<Self, Error> {
        let start = Instant::now();
        let program = PathBuf::from(command.get_program());
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().map_err(Error::file("start", &program))?;
        let to = child.stdin.take().expect("piped");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let mut running = Self {
            child,
            to,
            from,
            dir: options.dir.clone(),
            devices: options.devices,
            rounds: options.rounds,
            startup_seconds: 0.0,
            timed: Vec::new(),
            run_dir_bytes: 0,
        };
        match running.line()? {
            Line::Ready => running.startup_seconds = start.elapsed().as_secs_f64(),
            other => return Err(running.unexpected(&format!("{other:?}"))),
        }
        Ok(running)
    }

    fn round(&mut self) -> Result<(), Error> {
        if let Err(error) = writeln!(self.to, "go") {
            return Err(self.unexpected(&error.to_string()));
        }
        match self.line()? {
            Line::Round { seconds, samples } => self.timed.push((seconds, samples)),
            other => return Err(self.unexpected(&format!("{other:?}"))),
        }
        self.run_dir_bytes = self.run_dir_bytes.max(size(&self.dir));
        Ok(())
    }

    fn finish(mut self) -> Result<Figures, Error> {
        let Line::Done { peak_rss_bytes } = self.line()? else {
            return Err(self.unexpected("one round too many"));
        };
        let counted = &self.timed[1..];
        let round_seconds: Vec<f64> = counted.iter().map(|&(seconds, _)| seconds).collect();
        let seconds = median(&round_seconds);
        let samples = counted.iter().map(|&(_, samples)| samples).sum::<u64>() as f64 / counted.len() as f64;
        Ok(Figures {
            devices: self.devices,
            startup_seconds: self.startup_seconds,
            seconds,
            images_per_second: samples / seconds,
            round_seconds,
            peak_rss_bytes,
            run_dir_bytes: self.run_dir_bytes.max(size(&self.dir)),
        })
    }

    fn line(&mut self) -> Result<Line, Error> {
        let mut text = String::new();
        let read = self.from.read_line(&mut text);
        match read.ok().and_then(|_| serde_json::from_str(&text).ok()) {
            Some(line) => Ok(line),
            None => Err(self.unexpected(text.trim())),
        }
    }

    /// What the process said on standard error, if anything.
    fn unexpected(&mut self, what: &str) -> Error {
        let _ = self.child.kill();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = std::io::Read::read_to_string(&mut stderr, &mut said);
        }
        let said = if said.trim().is_empty() { what } else { said.trim().trim_start_matches("fedper: ") };
        Error::Training(format!("the federation of {} devices ended early: {said}", self.devices))
    }
}

/// Bytes of all files below `path`; what cannot be read, or is gone already, counts nothing.
fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (low + high) / 2.0
}
