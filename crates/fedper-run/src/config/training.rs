//! What a run does beyond plain SGD for all its rounds: learning-rate schedule, clipping, early stop.

use fedper_core::plateau::Plateau;
use fedper_core::schedule::{Course, Schedule};

use super::methods::plain;
use super::{Config, LrSchedule, Own, Settings, wrong};
use crate::error::Error;

const DEFAULT_STEP_FACTOR: f64 = 0.1;

fn steps(settings: &Settings) -> bool {
    settings.lr_schedule == Some(LrSchedule::Step)
}

pub(super) fn step_rounds(settings: &Settings, default_rounds: u32) -> Option<u32> {
    let third = || settings.rounds.unwrap_or(default_rounds).div_ceil(3).max(1);
    steps(settings).then(|| settings.lr_step_rounds.unwrap_or_else(third))
}

pub(super) fn step_factor(settings: &Settings) -> Option<f64> {
    steps(settings).then(|| settings.lr_step_factor.unwrap_or(DEFAULT_STEP_FACTOR))
}

/// The momentum of the run: 0 by default where one of its methods cannot have any, so that all train alike.
pub(super) fn momentum(
    settings: &Settings,
    algorithms: &[String],
    own: &Own,
    default: f64,
) -> Result<f64, Error> {
    let plain = plain(algorithms, own);
    match (settings.momentum, &plain[..]) {
        (Some(momentum), [name, ..]) if momentum != 0.0 => wrong(format!(
            "momentum is {momentum}, and {name} counts on steps without it: give --momentum 0, or leave {name} out"
        )),
        (Some(momentum), _) => Ok(momentum),
        (None, []) => Ok(default),
        (None, _) => Ok(0.0),
    }
}

/// Refuses what has no effect without another key.
pub(super) fn check_pairs(settings: &Settings) -> Result<(), Error> {
    let pairs = [
        ("lr_step_rounds", settings.lr_step_rounds.is_some(), "lr_schedule = step", steps(settings)),
        ("lr_step_factor", settings.lr_step_factor.is_some(), "lr_schedule = step", steps(settings)),
        (
            "new_client_epochs",
            settings.new_client_epochs.is_some(),
            "new_clients",
            settings.new_clients.is_some(),
        ),
        (
            "new_client_layers",
            settings.new_client_layers.is_some(),
            "new_clients",
            settings.new_clients.is_some(),
        ),
        ("min_delta", settings.min_delta.is_some(), "patience", settings.patience.is_some()),
    ];
    for (key, given, needed, there) in pairs {
        if given && !there {
            return wrong(format!("{key} does nothing without {needed}: give both or neither"));
        }
    }
    Ok(())
}

impl Config {
    /// What is to be said of the momentum, if it is not the usual one for a method's sake.
    pub(crate) fn momentum_note(&self, settings: &Settings) -> Option<String> {
        let plain = plain(&self.algorithm, &self.own);
        (settings.momentum.is_none() && !plain.is_empty()).then(|| {
            format!(
                "momentum is 0 for all methods: {} cannot have any, and all train alike",
                plain.join(", ")
            )
        })
    }

    pub(super) fn check_training(&self) -> Result<(), Error> {
        if self.warmup_rounds >= self.rounds {
            return wrong(format!(
                "warmup_rounds is {}: it must be less than rounds ({})",
                self.warmup_rounds, self.rounds
            ));
        }
        Ok(())
    }

    /// The learning rate of every round.
    pub fn schedule(&self) -> Schedule {
        let course = match self.lr_schedule {
            LrSchedule::Constant => Course::Constant,
            LrSchedule::Cosine => Course::Cosine,
            LrSchedule::Step => Course::Step {
                rounds: self.lr_step_rounds.unwrap_or(self.rounds),
                factor: self.lr_step_factor.unwrap_or(DEFAULT_STEP_FACTOR),
            },
        };
        Schedule { rate: self.lr, course, warmup: self.warmup_rounds, rounds: self.rounds }
    }

    /// Devices that take part in training: all but those held out, which are the last ones.
    pub fn training_clients(&self) -> u64 {
        self.clients - self.new_clients.unwrap_or(0)
    }

    /// Checks the number of held-out devices, once that of all devices is known.
    pub(crate) fn check_new_clients(&self) -> Result<(), Error> {
        match self.new_clients {
            Some(held) if held >= self.clients => wrong(format!(
                "new_clients is {held}: it must be less than the {} devices there are, so that some train",
                self.clients
            )),
            _ => Ok(()),
        }
    }

    /// What ends an algorithm early, before its first round; `None` if nothing does.
    pub fn plateau(&self) -> Option<Plateau> {
        self.patience.map(|patience| Plateau::new(patience, self.min_delta.unwrap_or(0.0)))
    }
}
