//! What a federation does: how many rounds, who takes part, who is tested.

use std::time::Duration;

use crate::round::DeviceId;
use crate::seed::{self, Purpose, SERVER};

/// What a federation does, whatever the method.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// N: how many devices there are.
    pub devices: u64,
    /// Those among them that take no part, ascending: neither trained nor evaluated.
    pub left_out: Vec<u64>,
    /// How many rounds to run.
    pub rounds: u32,
    /// C: the fraction of devices that take part in a round, at least one.
    pub participation: f64,
    /// Where participants and evaluated devices are drawn from.
    pub seed: u64,
    /// Devices are evaluated every so many rounds and after the last.
    pub eval_every: u32,
    /// How many devices are evaluated (the same ones each time), or all.
    pub eval_devices: Option<u64>,
    /// How long a round waits for its devices; for ever if `None`.
    pub round_timeout: Option<Duration>,
    /// A round in which fewer devices answer changes nothing, and is begun again. An evaluation that fewer answer (or fewer
    /// than all of those asked) goes on with the devices that were not heard.
    pub min_answers: u64,
}

impl Plan {
    /// How many devices there are without those that are left out.
    pub fn taking_part(&self) -> u64 {
        self.devices - self.left_out.len() as u64
    }

    /// How many devices train in a round.
    pub fn participants_per_round(&self) -> u64 {
        let devices = self.taking_part();
        ((self.participation * devices as f64).round() as u64).clamp(1, devices)
    }

    /// Draws `count` devices of those that take part, in order.
    fn draw(&self, purpose: Purpose, round: u32, count: u64) -> Vec<DeviceId> {
        let mut rng = seed::derive(self.seed, purpose, SERVER, u64::from(round));
        let mut left_out = self.left_out.iter().peekable();
        let mut skipped = 0;
        let device = |nth: u64| {
            while left_out.next_if(|&&out| out <= nth + skipped).is_some() {
                skipped += 1;
            }
            DeviceId(nth + skipped)
        };
        seed::sample(&mut rng, self.taking_part(), count).into_iter().map(device).collect()
    }

    /// The devices that train in `round`, in order.
    pub fn participants(&self, round: u32) -> Vec<DeviceId> {
        self.draw(Purpose::Participation, round, self.participants_per_round())
    }

    /// How many devices are evaluated.
    pub fn evaluations(&self) -> u64 {
        self.eval_devices.unwrap_or(u64::MAX).min(self.taking_part())
    }

    /// The devices that are evaluated, in order.
    pub fn evaluated(&self) -> Vec<DeviceId> {
        self.draw(Purpose::Evaluation, 0, self.evaluations())
    }

    /// Whether `round` ends with an evaluation.
    pub fn evaluates(&self, round: u32) -> bool {
        round.is_multiple_of(self.eval_every.max(1)) || round == self.rounds
    }
}
