//! The devices of a simulated round: whose turn it is gets a worker.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fedper_core::coordinator::{Action, Event, Outcome};
use fedper_core::round::{DeviceId, Download};
use fedper_core::strategy::LearnError;

use super::pool::{Done, Pool};
use crate::campaign::{Federation, Hosts, Observer, Round};
use crate::device::{Job, Panicked, Task};
use crate::error::Error;
use crate::rundir::OpenRound;

/// Worker threads, which are one device after another.
pub(super) struct Workers<'a> {
    pub(super) pool: Pool,
    pub(super) stop: &'a AtomicBool,
    /// The run directory.
    pub(super) dir: PathBuf,
}

impl Hosts for Workers<'_> {
    type Error = Error;

    /// A round that comes to nothing, for a reason of this algorithm's own, is its last one. What is in `open` is then void.
    fn round(
        &mut self,
        federation: &mut Federation,
        open: &mut OpenRound,
        observer: &mut dyn Observer,
    ) -> Result<Round, Error> {
        let start = Instant::now();
        let mut waiting = 0usize;
        let mut diverged = None;
        let (name, pool) = (federation.name(), &self.pool);
        let came =
            |outcome, ended| Round { outcome, ended, wire: None, seconds: start.elapsed().as_secs_f64() };
        // A simulated round has no deadline, so the coordinator's clock stands still.
        let mut actions = VecDeque::from(federation.coordinator.step(Duration::ZERO, Event::Begin));
        loop {
            // Not all at once: what a device keeps is in memory from here until it has answered.
            while waiting < pool.room()
                && let Some(action) = actions.pop_front()
            {
                match action {
                    Action::Train(device, message) => {
                        pool.submit(job(federation, device, message, Task::Train, open)?);
                        waiting += 1;
                    }
                    Action::Evaluate(device, message) => {
                        observer.evaluating(name, message.round, device);
                        pool.submit(job(federation, device, message, Task::Evaluate, open)?);
                        waiting += 1;
                    }
                    Action::RoundDone(outcome) => {
                        let nobody = diverged.filter(|_| outcome.answered == 0);
                        let ended = nobody.map(|reason: String| {
                            format!("no device came through round {}: {reason}", outcome.round)
                        });
                        return Ok(came(outcome, ended));
                    }
                    Action::TooFew { .. } | Action::TooFewTests { .. } => {
                        unreachable!("a simulated round may be answered by nobody")
                    }
                    Action::Finished => unreachable!("a round is begun only if there is one"),
                }
            }
            assert!(waiting > 0, "the coordinator waits for devices that nobody asked");
            let Done { device, round, result } = pool.next();
            waiting -= 1;
            let event = match result {
                Ok(work) => {
                    let (event, personal) = work.into_event(device, round);
                    if let Event::Trained(upload) = &event {
                        observer.trained(name, round, upload.train.samples);
                    }
                    if let Some(personal) = personal {
                        federation.personal.put(device, personal, open)?;
                    }
                    event
                }
                Err(error) => {
                    if self.stop.load(Ordering::Relaxed) {
                        while waiting > 0 {
                            pool.next();
                            waiting -= 1;
                        }
                        return Err(self.interrupted());
                    }
                    match error {
                        LearnError::Dropped => {}
                        LearnError::Diverged(_) => {
                            observer.failure(name, round, device, &error.to_string());
                            diverged = Some(error.to_string());
                        }
                        other => {
                            (0..waiting).for_each(|_| drop(pool.next()));
                            let reason = format!("device {device}: {other}");
                            if !is_own(&other) {
                                return Err(Error::Training(reason));
                            }
                            let reason = format!("round {round} failed: {reason}");
                            return Ok(came(Outcome::nothing(round), Some(reason)));
                        }
                    }
                    observer.trained(name, round, 0);
                    Event::Failed { device, round }
                }
            };
            actions.extend(federation.coordinator.step(Duration::ZERO, event));
        }
    }

    fn interrupted(&self) -> Error {
        Error::Interrupted(self.dir.clone())
    }
}

fn job(
    federation: &mut Federation,
    device: DeviceId,
    message: Download,
    task: Task,
    open: &OpenRound,
) -> Result<Job, Error> {
    let personal = federation.personal.get(device, open)?;
    let (strategy, parts) = (federation.strategy.clone(), federation.parts.clone());
    Ok(Job { strategy, parts, device, place: device.0 as usize, message, personal, task })
}

/// Whether an error of a device's is a matter of its algorithm alone, and would be the same at another attempt. Others, such
/// as images that cannot be read or memory that is not there, are every algorithm's, and may be gone when the run goes on.
fn is_own(error: &LearnError) -> bool {
    match error {
        LearnError::Diverged(_) | LearnError::Params(_) => true,
        LearnError::Dropped => false,
        LearnError::Device(error) => error.is::<Panicked>(),
    }
}

#[cfg(test)]
mod tests {
    use fedper_core::params::ParamsError;

    use super::*;

    #[test]
    fn what_ends_one_algorithm_and_what_ends_the_run() {
        let device = |error: Box<dyn std::error::Error + Send + Sync>| LearnError::Device(error);
        assert!(is_own(&LearnError::Diverged("the loss became NaN".into())));
        assert!(is_own(&LearnError::Params(ParamsError::Missing("fc.bias".into()))));
        assert!(is_own(&device(Box::new(Panicked("index out of bounds".into())))));
        assert!(!is_own(&device("no memory".into())));
        assert!(!is_own(&device(Box::new(std::io::Error::other("a disk that is gone")))));
    }
}
