//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use fedper_core::round::DeviceId;
use indicatif::{ProgressBar, ProgressStyle};

use super::say;
use super::table::{duration, percent};
use crate::campaign::Observer;
use crate::experiment::Experiment;
use crate::rundir::records::RoundRecord;

/// How often plain lines tell of a round that takes long.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// What tells of a run: a bar on a terminal, lines elsewhere, or nothing.
pub(super) fn observer(experiment: &Experiment, quiet: bool) -> Box<dyn Observer> {
    if !quiet && std::io::stderr().is_terminal() {
        Box::new(Bar::new(Progress::new(experiment)))
    } else {
        lines(experiment, quiet)
    }
}

/// What tells of a run in lines, which other messages may stand between, or nothing.
pub(super) fn lines(experiment: &Experiment, quiet: bool) -> Box<dyn Observer> {
    struct Silent;
    impl Observer for Silent {}
    if quiet { Box::new(Silent) } else { Box::new(Lines::new(Progress::new(experiment))) }
}

/// What both kinds of progress know.
struct Progress {
    rounds: u32,
    algorithms: Vec<String>,
    accuracy: BTreeMap<String, f64>,
    trainings: u64,
    done: u64,
    done_before: u64,
    samples: u64,
    start: Instant,
}

impl Progress {
    fn new(experiment: &Experiment) -> Self {
        Self {
            rounds: experiment.config.rounds,
            algorithms: experiment.config.algorithm.clone(),
            accuracy: BTreeMap::new(),
            trainings: 0,
            done: 0,
            done_before: 0,
            samples: 0,
            start: Instant::now(),
        }
    }

    fn begin(&mut self, trainings: u64, done: u64) {
        (self.trainings, self.done, self.done_before, self.start) = (trainings, done, done, Instant::now());
    }

    fn trained(&mut self, samples: u64) {
        self.done += 1;
        self.samples += samples;
    }

    fn plateau(&mut self, fewer: u64) {
        self.trainings = self.trainings.saturating_sub(fewer);
    }

    /// Training images a second since the process began, evaluation and checkpoints included.
    fn images_per_second(&self) -> f64 {
        self.samples as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }

    /// At the pace of this process so far.
    fn seconds_left(&self) -> Option<f64> {
        let here = self.done - self.done_before;
        let pace = self.start.elapsed().as_secs_f64() / here as f64;
        (here > 0).then(|| pace * self.trainings.saturating_sub(self.done) as f64)
    }

    fn accuracies(&self) -> String {
        let known = self.algorithms.iter().filter_map(|name| Some((name, self.accuracy.get(name)?)));
        known.map(|(name, &accuracy)| format!("{name} {}", percent(accuracy))).collect::<Vec<_>>().join("  ")
    }

    fn left(&self) -> String {
        self.seconds_left().map_or_else(String::new, |seconds| format!(", {} left", duration(seconds)))
    }
}

fn flat(algorithm: &str, round: u32) -> String {
    format!("{algorithm} ends after round {round}: its accuracy has stopped rising (patience)")
}

fn over(algorithm: &str, reason: &str) -> String {
    format!("{algorithm} ends here: {reason}")
}

fn held(count: u64) -> String {
    format!("new devices: {count}, held out until now")
}

/// A line that is redrawn.
struct Bar {
    progress: Progress,
    bar: ProgressBar,
}

impl Bar {
    fn new(progress: Progress) -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:24} {msg}").expect("a valid template");
        bar.set_style(style.progress_chars("━╸ "));
        Self { progress, bar }
    }

    fn draw(&self, algorithm: &str, round: u32) {
        let p = &self.progress;
        self.bar.set_position(p.done);
        self.bar.set_message(format!(
            "round {round}/{} {algorithm} | {} | {:.0} images/s{}",
            p.rounds,
            p.accuracies(),
            p.images_per_second(),
            p.left()
        ));
    }
}

impl Observer for Bar {
    fn begin(&mut self, trainings: u64, done: u64) {
        self.progress.begin(trainings, done);
        self.bar.set_length(trainings);
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn trained(&mut self, algorithm: &str, round: u32, samples: u64) {
        self.progress.trained(samples);
        self.draw(algorithm, round);
    }

    fn failure(&mut self, algorithm: &str, round: u32, device: DeviceId, reason: &str) {
        self.bar.println(format!("round {round} of {algorithm}: device {device}: {reason}"));
    }

    fn plateau(&mut self, algorithm: &str, round: u32, fewer: u64) {
        self.progress.plateau(fewer);
        self.bar.set_length(self.progress.trainings);
        self.bar.println(flat(algorithm, round));
    }

    fn ended(&mut self, algorithm: &str, reason: &str, fewer: u64) {
        self.progress.plateau(fewer);
        self.bar.set_length(self.progress.trainings);
        self.bar.println(over(algorithm, reason));
    }

    fn new_devices(&mut self, count: u64) {
        self.bar.println(held(count));
    }

    fn round(&mut self, record: &RoundRecord) {
        if let Some(accuracy) = record.accuracy {
            self.progress.accuracy.insert(record.algorithm.clone(), accuracy.mean);
        }
        self.draw(&record.algorithm, record.round);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line a round, and one now and then in a round that takes long.
struct Lines {
    progress: Progress,
    last: Instant,
}

impl Lines {
    fn new(progress: Progress) -> Self {
        Self { progress, last: Instant::now() }
    }
}

impl Observer for Lines {
    fn begin(&mut self, trainings: u64, done: u64) {
        self.progress.begin(trainings, done);
        if done > 0 {
            say(format_args!("goes on after {done} of {trainings} trainings"));
        }
    }

    fn trained(&mut self, algorithm: &str, round: u32, samples: u64) {
        self.progress.trained(samples);
        if self.last.elapsed() >= PLAIN_INTERVAL {
            self.last = Instant::now();
            let p = &self.progress;
            say(format_args!(
                "round {round}/{} {algorithm}: {} of {} trainings done, {:.0} images/s{}",
                p.rounds,
                p.done,
                p.trainings,
                p.images_per_second(),
                p.left()
            ));
        }
    }

    fn failure(&mut self, algorithm: &str, round: u32, device: DeviceId, reason: &str) {
        say(format_args!("round {round} of {algorithm}: device {device}: {reason}"));
    }

    fn plateau(&mut self, algorithm: &str, round: u32, fewer: u64) {
        self.progress.plateau(fewer);
        say(format_args!("{}", flat(algorithm, round)));
    }

    fn ended(&mut self, algorithm: &str, reason: &str, fewer: u64) {
        self.progress.plateau(fewer);
        say(format_args!("{}", over(algorithm, reason)));
    }

    fn new_devices(&mut self, count: u64) {
        say(format_args!("{}", held(count)));
    }

    fn round(&mut self, record: &RoundRecord) {
        self.last = Instant::now();
        let p = &self.progress;
        let accuracy = record
            .accuracy
            .map_or_else(|| "not evaluated".to_owned(), |a| format!("accuracy {}", percent(a.mean)));
        let failed = match record.failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        say(format_args!(
            "round {}/{} {}: {accuracy}{failed}, {:.0} images/s{}",
            record.round,
            p.rounds,
            record.algorithm,
            p.images_per_second(),
            p.left()
        ));
    }
}
