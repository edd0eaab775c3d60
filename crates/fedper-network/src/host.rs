//! The devices of one process: what they do when a server asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use fedper_core::folding::Folding;
use fedper_core::metrics::EvalMetrics;
use fedper_core::round::{Answer, DeviceId, Download, Upload};
use fedper_core::split::{Kept, Shared};
use fedper_core::strategy::LearnError;
use fedper_flower::message::Incoming;
use fedper_flower::records::{ArrayRecord, Content, Values};

use super::Tell;
use super::answer::{self, Failure};
use super::question::{Question, own};
use super::settings::{ALGORITHM, COUNTED, DEVICES, FEDERATION, Own, ROUND, TEST_LOCALLY, for_devices};
use super::store::Store;
use fedper_run::config::Settings;
use fedper_run::cores;
use fedper_run::device::{Bench, Job, Task, Work, attempt};
use fedper_run::error::Error;
use fedper_run::experiment::Experiment;
use fedper_run::kept::{About, Deployed};
use fedper_run::settled::Given;

/// How many images that were left out are named.
const NAMED: usize = 10;

/// What comes back of a question.
pub(super) enum Reply {
    Content(Content),
    /// Why it is not done.
    Refusal(String),
    /// This node takes no part: what the server is told, and why.
    NoPart(Content, String),
}

/// Data that were refused are read again after this time, in case somebody has put them right.
const REREAD: Duration = Duration::from_secs(300);

/// In bytes; names are random, and short.
const LONGEST_NAME: usize = 200;

/// The devices of one process.
pub(super) struct Host<'a> {
    pub(super) own: &'a Own,
    pub(super) store: &'a Store,
    stop: &'a AtomicBool,
    workers: usize,
    tell: Tell<'a>,
    pub(super) prepared: Option<Prepared>,
    /// The settings that could not be prepared last, why, and when: data are not read anew for each question.
    refused: Option<(Settings, String, Instant)>,
    /// What the one device of this process was last tested with, until it is written.
    tested: Option<Deployed>,
}

/// The experiment that was asked for last, and the workers' networks for it.
pub(super) struct Prepared {
    settings: Settings,
    pub(super) experiment: Experiment,
    benches: Vec<Option<Bench>>,
}

impl<'a> Host<'a> {
    pub(super) fn new(
        own: &'a Own,
        store: &'a Store,
        workers: usize,
        stop: &'a AtomicBool,
        tell: Tell<'a>,
    ) -> Self {
        Self { own, store, stop, workers, tell, prepared: None, refused: None, tested: None }
    }

    /// Does what is asked. What devices keep is on the disk before this returns.
    ///
    /// # Errors
    /// If it cannot be kept, or the process is to end.
    pub(super) fn answer(&mut self, message: &Incoming, content: &Content) -> Result<Reply, Error> {
        let empty = Values::default();
        let config = content.config.as_ref().unwrap_or(&empty);
        let kind = message.metadata.message_type.split('.').next().unwrap_or_default();
        let prepared = self.prepare(config);
        if kind == "query" {
            return self.present(config, prepared);
        }
        if let Err(reason) = prepared {
            return Ok(Reply::Refusal(reason));
        }
        let question = match self.understand(message, content, config) {
            Ok(question) => question,
            Err(reason) => return Ok(Reply::Refusal(reason)),
        };
        if let Some(reason) = self.unknown(&question)? {
            return Ok(Reply::Refusal(reason));
        }
        match kind {
            "train" => self.train(&question),
            "evaluate" => self.evaluate(&question),
            other => Ok(Reply::Refusal(format!("nothing is known here of messages of type `{other}`"))),
        }
    }

    fn prepare(&mut self, config: &Values) -> Result<(), String> {
        let settings = self.own.settings(config)?;
        if let Some((refused, reason, at)) = &self.refused
            && *refused == settings
            && at.elapsed() < REREAD
        {
            return Err(reason.clone());
        }
        if self.prepared.as_ref().is_none_or(|prepared| prepared.settings != settings) {
            (self.prepared, self.refused) = (None, None);
            let experiment = Experiment::prepare(&settings).map_err(|error| self.reason(&error));
            let experiment = experiment
                .and_then(|experiment| self.own.limits.check_experiment(&experiment).map(|()| experiment));
            match experiment {
                Ok(experiment) => {
                    for line in experiment.dataset.left_out.warnings(NAMED) {
                        (self.tell)(&format!("warning: {line}"));
                    }
                    let benches = (0..self.workers).map(|_| None).collect();
                    self.prepared = Some(Prepared { settings, experiment, benches });
                }
                Err(reason) => {
                    self.refused = Some((settings, reason.clone(), Instant::now()));
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    /// Why an experiment cannot be prepared here.
    fn reason(&self, error: &Error) -> String {
        let text = error.to_string();
        match text.strip_prefix("device 0 ") {
            // It is the only one that its own images were dealt to.
            Some(rest) if self.own.own_data => {
                format!("this device {rest}; the settings are the server's, the images are the device's")
            }
            _ => text,
        }
    }

    /// The most bytes that a message may have.
    pub(super) fn most_bytes(&self) -> u64 {
        let parameters = self.prepared.as_ref().map(|prepared| prepared.experiment.layout.numel());
        self.own.limits.message_bytes(parameters)
    }

    fn understand(&self, message: &Incoming, content: &Content, config: &Values) -> Result<Question, String> {
        let experiment = &self.prepared.as_ref().expect("prepared before").experiment;
        let name = config.text(ALGORITHM).unwrap_or("fedper");
        let strategy =
            experiment.method(name).ok_or_else(|| format!("there is no algorithm `{name}` here"))?;
        let round = match config.int(ROUND) {
            Some(round) => u32::try_from(round).ok(),
            None => message.metadata.group_id.parse().ok(),
        };
        let round = round
            .filter(|&round| round > 0)
            .ok_or_else(|| format!("the question does not say which round it is (`{ROUND}`)"))?;
        let parts = Arc::new(experiment.parts(&*strategy));
        let arrays = content.arrays.as_ref().ok_or("the question has no arrays")?;
        let params = arrays.to_params(parts.down.layout()).map_err(|error| {
            format!(
                "the server's base is not this device's: {error}; model, cut and classes must be the same"
            )
        })?;
        if let Some(name) = params.first_non_finite() {
            return Err(format!("the server's base holds a value that is not finite, in `{name}`"));
        }
        let base = parts.adopt_received(params).map_err(|error| error.to_string())?;
        let federation = match config.text(FEDERATION) {
            Some(name) if name.len() > LONGEST_NAME => {
                return Err(format!("the federation's name is longer than {LONGEST_NAME} bytes"));
            }
            Some(name) => name.to_owned(),
            // Each run of a server that says nothing is a federation of its own.
            None => format!("run-{:x}", message.metadata.run_id),
        };
        let devices = self.own.asked(config, experiment.config.clients)?;
        let counted = config
            .ints(COUNTED)
            .map(|rounds| rounds.into_iter().map(|round| u32::try_from(round).unwrap_or(0)));
        let counted: Option<BTreeMap<DeviceId, u32>> =
            counted.map(|rounds| devices.iter().copied().zip(rounds).collect());
        Ok(Question {
            strategy,
            parts,
            federation,
            counted: counted.filter(|counted| counted.len() == devices.len()),
            devices,
            detailed: config.ints(DEVICES).is_some(),
            flat: arrays.is_flat(),
            message: Download {
                round,
                test_locally: config.bool(TEST_LOCALLY).unwrap_or(false),
                base: Arc::new(base),
            },
        })
    }

    fn train(&mut self, question: &Question) -> Result<Reply, Error> {
        let mut folding =
            Folding::new(question.parts.clone(), &question.devices).on(cores::lend(self.workers));
        let mut only: Option<Shared> = None;
        let mut answers: Vec<Answer> = Vec::new();
        let mut kept: Vec<(DeviceId, Kept)> = Vec::new();
        let mut failed: Vec<Failure> = Vec::new();
        let one = question.devices.len() == 1;
        self.each(question, Task::Train, |device, result| match result {
            Ok(Work::Trained(Upload { samples, train, test, base, .. }, personal)) => {
                answers.push(Answer { device, samples, train, test });
                kept.push((device, personal));
                // One base is sent as it is; of several, one is in memory at a time.
                if one {
                    only = Some(base);
                } else {
                    let weight = question.strategy.weight(samples);
                    folding.add(device, base, weight, 1).expect("a method sends what it says");
                }
            }
            Ok(Work::Evaluated(_)) => unreachable!("asked to train"),
            Err(error) => {
                folding.skip(device);
                failed.push((device, error.to_string()));
            }
        })?;
        answers.sort_by_key(|answer| answer.device);
        failed.sort();
        if answers.is_empty() {
            return Ok(Reply::Refusal(reasons(&failed)));
        }
        if !question.parts.kept.is_empty() {
            let counted = |device| question.counted.as_ref().map(|counted| counted[&device]);
            let states = kept.iter().map(|(device, personal)| (*device, counted(*device), personal));
            self.store.keep(question.message.round, question.scope(), states)?;
        }
        let base = only.or_else(|| folding.together()).expect("a device answered");
        Ok(Reply::Content(Content {
            arrays: Some(if question.flat { ArrayRecord::flat(&base) } else { ArrayRecord::of(&base) }),
            metrics: Some(answer::trained(&answers, question.detailed)),
            config: answer::failures(&failed).filter(|_| question.detailed),
        }))
    }

    fn evaluate(&mut self, question: &Question) -> Result<Reply, Error> {
        let mut tests: Vec<(DeviceId, EvalMetrics)> = Vec::new();
        let mut failed: Vec<Failure> = Vec::new();
        self.each(question, Task::Evaluate, |device, result| match result {
            Ok(Work::Evaluated(test)) => tests.push((device, test)),
            Ok(Work::Trained(..)) => unreachable!("asked to evaluate"),
            Err(error) => failed.push((device, error.to_string())),
        })?;
        tests.sort_by_key(|(device, _)| *device);
        failed.sort();
        if tests.is_empty() {
            return Ok(Reply::Refusal(reasons(&failed)));
        }
        let hosts_one = self.own.devices.as_ref().is_none_or(|devices| devices.start() == devices.end());
        if let ([device], true) = (&question.devices[..], hosts_one) {
            self.tested = Some(self.network(question, *device)?);
        }
        Ok(Reply::Content(Content {
            arrays: None,
            metrics: Some(answer::evaluated(&tests, question.detailed)),
            config: answer::failures(&failed).filter(|_| question.detailed),
        }))
    }

    /// The network that `device` was tested with.
    fn network(&mut self, question: &Question, device: DeviceId) -> Result<Deployed, Error> {
        let Prepared { experiment, benches, .. } = self.prepared.as_mut().expect("prepared before");
        let Question { parts, strategy, message, .. } = question;
        let kept = own(self.store, question, Task::Evaluate, device)?
            .unwrap_or_else(|| experiment.initial_kept(parts, device, &message.base));
        let own = !parts.kept.is_empty() || strategy.network_trains();
        let place = self.own.place(device);
        let given = Given {
            strategy: &**strategy,
            parts,
            received: &message.base,
            kept: &kept,
            round: message.round,
        };
        let params = given
            .network(experiment, &mut benches[0], (device, place), self.stop)
            .map_err(|error| Error::Training(format!("device {device}: {error}")))?;
        let config = for_devices(&experiment.config);
        let about =
            About::new(experiment, config, device, question.strategy.name(), question.message.round, own);
        Ok(Deployed { params, about })
    }

    /// Writes the network that was last tested, if it is not written yet, for the device's own use.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn keep_network(&mut self, state: &Path) -> Result<(), Error> {
        self.tested.take().map_or(Ok(()), |network| network.write(state))
    }

    /// Has each device work, on all workers; `done` is called as they get ready.
    fn each(
        &mut self,
        question: &Question,
        task: Task,
        mut done: impl FnMut(DeviceId, Result<Work, LearnError>),
    ) -> Result<(), Error> {
        let Prepared { experiment, benches, .. } = self.prepared.as_mut().expect("prepared before");
        let (store, stop, experiment, host) = (self.store, self.stop, &*experiment, self.own);
        let queue = Mutex::new(question.devices.iter().copied());
        let (results, ready) = mpsc::channel();
        std::thread::scope(|scope| {
            for bench in benches.iter_mut().take(question.devices.len()) {
                let (results, queue) = (results.clone(), &queue);
                scope.spawn(move || {
                    // The guard is dropped before the work begins.
                    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
                    while let Some(device) = next() {
                        let result = own(store, question, task, device).map(|personal| {
                            let job = Job {
                                strategy: question.strategy.clone(),
                                parts: question.parts.clone(),
                                device,
                                place: host.place(device),
                                message: question.message.clone(),
                                personal: personal.map(Arc::new),
                                task,
                            };
                            attempt(experiment, bench, job, stop)
                        });
                        if results.send((device, result)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(results);
            for (device, result) in ready {
                done(device, result?);
            }
            Ok::<(), Error>(())
        })?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped(
                "interrupted; started again, this device goes on where it was".into(),
            ));
        }
        Ok(())
    }
}

fn reasons(failed: &[Failure]) -> String {
    let each: Vec<String> =
        failed.iter().map(|(device, reason)| format!("device {device}: {reason}")).collect();
    each.join("; ")
}
