//! A round over a network: begun again until enough devices answer, in another run where the SuperLink has lost one.

use std::time::{Duration, Instant};

use fedper_flower::error::FlowerError;

use super::Server;
use super::attempt::{Attempt, Tried};
use crate::error::Error;
use crate::roster::Roster;
use fedper_run::campaign::{Federation, Hosts, Observer, Round};
use fedper_run::device::drops_out;
use fedper_run::rundir::OpenRound;

/// So many lost runs in one round are too many.
const LOST_RUNS: u32 = 20;

/// A round that fails so often in the same way fails the next time too: a device that trains again does what it did before.
const FAILURES: u32 = 4;

/// Before a round is begun again, the first time.
const PAUSE: Duration = Duration::from_secs(1);

impl Hosts for Server<'_> {
    type Error = Error;

    fn round(
        &mut self,
        federation: &mut Federation,
        _open: &mut OpenRound,
        observer: &mut dyn Observer,
    ) -> Result<Round, Error> {
        let (base, done) = (federation.base().clone(), federation.rounds_done());
        let (name, round) = (federation.name(), done + 1);
        let needed = self.needed(federation, round);
        if self.experiment.config.failure_rate > 0.0 {
            federation.go_back(&base, done, needed);
        }
        let (mut lost, mut failures) = (0, 0);
        let (mut start, mut tried) = (Instant::now(), Tried::default());
        let came = |outcome, ended, tried: &Tried, start: Instant| {
            let wire = Some((tried.down, tried.up));
            Ok(Round { outcome, ended, wire, seconds: start.elapsed().as_secs_f64() })
        };
        loop {
            if self.is_stopped() {
                return Err(self.interrupted());
            }
            let result =
                self.wait_for_devices().and_then(|()| self.attempt(federation, &mut tried, observer));
            match result {
                Ok(Attempt::Done(outcome)) => {
                    self.counted.note(name, &outcome, federation.plan.devices);
                    return came(*outcome, None, &tried, start);
                }
                Ok(Attempt::TooFew(answered)) => {
                    self.session.forget_round();
                    failures = if answered == 0 && tried.silent == 0 { failures + 1 } else { 0 };
                    if failures >= FAILURES
                        && let Some(reason) = &tried.reason
                    {
                        let reason = format!("no device came through round {round}: {reason}");
                        return came(federation.nobody(round), Some(reason), &tried, start);
                    }
                    (self.tell)(&format!(
                        "{name} round {round}: {answered} devices answered, {needed} are needed; it is begun again"
                    ));
                    self.pause(PAUSE * (1 << failures.saturating_sub(1).min(FAILURES)));
                    (start, tried) = (Instant::now(), Tried::default());
                }
                Ok(Attempt::TooFewTests(heard, needed)) => {
                    self.session.forget_round();
                    (self.tell)(&format!(
                        "{name} round {round}: {heard} devices were tested, {needed} are needed; the others are asked again"
                    ));
                    self.pause(PAUSE);
                }
                Err(Error::Flower(FlowerError::Interrupted)) => {}
                // The SuperLink has given the run up, or was started anew and does not know it: the round begins again in
                // another run, with the same base.
                Err(Error::Flower(error @ FlowerError::Status { .. })) if lost < LOST_RUNS => {
                    lost += 1;
                    (self.tell)(&format!("the run is lost ({error}); going on in another"));
                    self.pause(PAUSE / 2);
                    match self.session.restart() {
                        Ok(()) => self.note_run()?,
                        Err(FlowerError::Status { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                    self.roster = Roster::new(self.experiment.config.clients);
                    self.looked = None;
                    federation.go_back(&base, done, needed);
                    (start, tried) = (Instant::now(), Tried::default());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn interrupted(&self) -> Error {
        let said =
            format!("interrupted after a checkpoint; the same command goes on with {}", self.path.display());
        fedper_run::Error::Stopped(said).into()
    }
}

impl Server<'_> {
    /// How many devices have to answer in `round`: not those that are out for it by the configured failure rate, which would
    /// be out again however often they are asked.
    fn needed(&self, federation: &Federation, round: u32) -> u64 {
        let there = |&device: &_| !drops_out(&self.experiment.config, device, round);
        let there = federation.plan.participants(round).iter().filter(|device| there(device)).count();
        self.options.min_answers.min(there as u64)
    }

    /// Sleeps, but not when the run is to end.
    fn pause(&self, pause: Duration) {
        let start = Instant::now();
        while !self.is_stopped() && start.elapsed() < pause {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
