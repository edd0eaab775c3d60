//! The loop over devices that only pretend.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fedper_core::coordinator::{Action, Event};
use fedper_core::metrics::EvalMetrics;

use super::*;
use crate::config::Settings;
use crate::rundir::records::RoundRecord;

const CONFIG: &str = "model = 'mlp'\nclients = 2\nsamples_per_client = 20\nbatch_size = 10\nalgorithm = ['fedper', 'local']\n\
                      eval_every = 1\nrounds = 6\n";

/// What happens in an algorithm's round.
#[derive(Clone, Copy)]
enum Happens {
    /// Every device is tested, and so many of a hundred samples are right.
    Right(u64),
    Nothing,
}

/// Devices that answer by a script, round by round, and go on with its last line.
struct Scripted<'a> {
    script: BTreeMap<&'static str, &'a [Happens]>,
    /// Set after so many rounds.
    stop: Option<(usize, &'a AtomicBool)>,
    asked: Vec<(&'static str, u32)>,
}

impl Hosts for Scripted<'_> {
    type Error = Error;

    fn round(
        &mut self,
        federation: &mut Federation,
        _open: &mut OpenRound,
        observer: &mut dyn Observer,
    ) -> Result<Round, Error> {
        let (name, round) = (federation.name(), federation.rounds_done() + 1);
        self.asked.push((name, round));
        if let Some((rounds, stop)) = self.stop
            && self.asked.len() == rounds
        {
            stop.store(true, Ordering::Relaxed);
        }
        let script = self.script[name];
        let happens = script.get(round as usize - 1).or(script.last()).unwrap();
        let Happens::Right(correct) = *happens else {
            let (outcome, ended) = (federation.nobody(round), Some("it rained".to_owned()));
            return Ok(Round { outcome, ended, wire: Some((10, 0)), seconds: 1.0 });
        };
        let mut step = |event| federation.coordinator.step(Duration::ZERO, event);
        let mut actions = step(Event::Begin);
        while let Some(action) = actions.pop() {
            let event = match action {
                Action::Train(device, message) => Event::Failed { device, round: message.round },
                Action::Evaluate(device, message) => {
                    observer.evaluating(name, message.round, device);
                    let metrics = EvalMetrics { correct, loss_sum: 1.0, samples: 100 };
                    Event::Evaluated { device, round: message.round, metrics }
                }
                Action::RoundDone(outcome) => {
                    return Ok(Round { outcome, ended: None, wire: Some((10, 1)), seconds: 1.0 });
                }
                other => panic!("{other:?}"),
            };
            actions.extend(step(event));
        }
        panic!("the round has no end");
    }

    fn interrupted(&self) -> Error {
        Error::Stopped("go on like this".into())
    }
}

/// What a run said of ends.
#[derive(Default)]
struct Ends(Vec<String>);

impl Observer for Ends {
    fn plateau(&mut self, algorithm: &str, round: u32, fewer: u64) {
        self.0.push(format!("{algorithm} flat after {round}, {fewer} fewer"));
    }

    fn ended(&mut self, algorithm: &str, reason: &str, fewer: u64) {
        self.0.push(format!("{algorithm}: {reason}, {fewer} fewer"));
    }
}

/// Runs `config` in `path`, or on from what is there.
fn run(
    config: &str,
    path: &Path,
    hosts: &mut Scripted<'_>,
    stop: &AtomicBool,
) -> (Result<Summary, Error>, Vec<String>) {
    let settings: Settings = toml::from_str(config).unwrap();
    let experiment = Experiment::prepare(&settings).unwrap();
    let mut dir = match path.join("config.toml").is_file() {
        true => RunDir::resume(path, &experiment).unwrap(),
        false => RunDir::create(path, &experiment).unwrap(),
    };
    let options = RunOptions { workers: 1, personal_memory: 0, stop };
    let mut ends = Ends::default();
    let mut campaign = Campaign::restore(&experiment, &experiment.plan(), &dir, &options).unwrap();
    let result = campaign.rounds(hosts, &mut dir, &mut ends).and_then(|()| {
        campaign.write_weights(&dir)?;
        campaign.finish(&mut dir)
    });
    (result, ends.0)
}

fn scripted<'a>(fedper: &'a [Happens], local: &'a [Happens]) -> Scripted<'a> {
    Scripted { script: [("fedper", fedper), ("local", local)].into(), stop: None, asked: Vec::new() }
}

use Happens::{Nothing, Right};

#[test]
fn algorithms_take_turns_until_each_is_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut hosts = scripted(&[Right(50), Right(40), Right(40)], &[Right(10), Right(20), Nothing]);
    let config = format!("{CONFIG}patience = 2\n");
    let (result, said) = run(&config, &dir.path().join("run"), &mut hosts, &AtomicBool::new(false));
    let turns = [("fedper", 1), ("local", 1), ("fedper", 2), ("local", 2), ("fedper", 3), ("local", 3)];
    assert_eq!(hosts.asked, turns);
    assert_eq!(said, ["fedper flat after 3, 6 fewer", "local: it rained, 6 fewer"]);
    let summary = result.unwrap();
    let (fedper, local) = (&summary.algorithms["fedper"], &summary.algorithms["local"]);
    assert!(summary.complete && fedper.stopped_early && !local.stopped_early);
    assert_eq!((fedper.last, fedper.best, &fedper.ended), (Some(0.4), Some(0.5), &None));
    assert_eq!((local.rounds, local.last, local.ended.as_deref()), (3, Some(0.2), Some("it rained")));
    assert_eq!((fedper.wire_down, fedper.wire_up), (Some(30), Some(3)));
    assert_eq!((local.wire_down, local.wire_up), (Some(30), Some(2)));
    let rounds = std::fs::read_to_string(dir.path().join("run/rounds.jsonl")).unwrap();
    let last: RoundRecord = serde_json::from_str(rounds.lines().last().unwrap()).unwrap();
    assert_eq!((last.round, last.failed, last.failed_devices.as_slice()), (3, 2, &[0, 1][..]));
    assert_eq!((last.accuracy, last.devices, last.bytes_down), (None, 0, 0));
}

#[test]
fn a_run_that_was_stopped_knows_what_was_flat_and_what_had_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}patience = 2\n");
    let (fedper, local) = ([Right(50), Right(40), Right(40)], [Nothing]);
    let mut whole = scripted(&fedper, &local);
    let (at_once, _) = run(&config, &dir.path().join("whole"), &mut whole, &AtomicBool::new(false));
    // Stopped before each of its rounds but the first.
    for rounds in 1..4 {
        let path = dir.path().join(rounds.to_string());
        let stop = AtomicBool::new(false);
        let mut hosts = Scripted { stop: Some((rounds, &stop)), ..scripted(&fedper, &local) };
        let (result, _) = run(&config, &path, &mut hosts, &stop);
        let error = result.unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (130, "go on like this"));
        let mut rest = scripted(&fedper, &local);
        let (result, _) = run(&config, &path, &mut rest, &AtomicBool::new(false));
        assert_eq!([hosts.asked, rest.asked].concat(), whole.asked, "{rounds}");
        let (whole, parts) = (at_once.as_ref().unwrap(), result.unwrap());
        for (name, all) in &whole.algorithms {
            let part = &parts.algorithms[name];
            assert_eq!(
                (part.rounds, part.stopped_early, &part.ended),
                (all.rounds, all.stopped_early, &all.ended)
            );
        }
    }
}
