//! Federated methods: one file each, written like its paper.
//!
//! A method says what is sent and kept ([`Strategy::parts`]), what a device does with what it receives
//! ([`Strategy::train`]), which network it gives a device ([`Strategy::network`]), and what the server makes of what
//! arrives ([`Strategy::server`]). All of these have FedPer's answer by default. A new method is a new file, and a line each for
//! its module and its entry in [`METHODS`].

mod device;
pub mod ditto;
mod fedavg;
mod fedavg_ft;
mod fedper;
pub mod fedrep;
mod local;
pub mod registry;
pub mod scaffold;
mod server;

pub use self::device::{LearnError, Learner, LocalRound, Pass, Tilt, Trained};
pub use self::fedavg::FedAvg;
pub use self::fedavg_ft::FedAvgFineTuned;
pub use self::fedper::FedPer;
pub use self::local::Local;
pub use self::registry::{Entry, Setting, Values};
pub use self::server::{Folded, ServerRound};
use crate::parts::Parts;
use crate::split::{Kept, Shared, Split};

/// Every method, in the order in which they are listed.
pub static METHODS: &[&Entry] = &[
    &FedPer::ENTRY,
    &FedAvg::ENTRY,
    &Local::ENTRY,
    // One a line, for who adds one.
    &FedAvgFineTuned::ENTRY,
    &fedrep::FedRep::ENTRY,
    &ditto::Ditto::ENTRY,
    &scaffold::Scaffold::ENTRY,
];

/// What a method is, for those who choose one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// One line on what it does.
    pub line: &'static str,
    /// Where it is from: an arXiv number, or empty.
    pub source: &'static str,
    /// What a device keeps between rounds.
    pub kept: &'static str,
    /// What the server can learn from what it receives.
    pub learns: &'static str,
}

/// A federated method. It has settings, and no state: what lasts from round to round are the slots of its [`Parts`].
pub trait Strategy: Send + Sync {
    /// The name that users type.
    fn name(&self) -> &'static str;

    /// What it is.
    fn about(&self) -> About;

    /// What is sent and kept, given the cut that the configuration asks for.
    fn parts(&self, cut: &Split) -> Parts {
        Parts::of(cut.clone())
    }

    /// A device's part of a round: from what it `received` and what it keeps of its `own` to new ones.
    ///
    /// # Errors
    /// If the device cannot train, or its training diverged.
    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<Trained, LearnError> {
        device.load(&round.assemble(received, own))?;
        let metrics = device.train(&round.pass())?;
        round.answer_with_model(device, metrics)
    }

    /// Puts *the* network that this method gives the device into it: what is tested, exported and predicted with.
    ///
    /// # Errors
    /// If the device cannot make it.
    fn network(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<(), LearnError> {
        device.load(&round.parts.join(received, own))?;
        round.settle(device)
    }

    /// Whether [`Strategy::network`] trains, so that it can be made only where the device's samples are.
    fn network_trains(&self) -> bool {
        false
    }

    /// What lasts on the server after a round, from what lasted before it and what devices sent. Whatever it is, it is
    /// rounded to `f32` and goes on so.
    fn server(&self, state: &Shared, folded: Folded, round: &ServerRound) -> Shared {
        folded.over(state, round.parts)
    }

    /// The weight of a device that holds `samples` training samples; FedAvg's n_j unless a method says otherwise.
    fn weight(&self, samples: u64) -> f64 {
        samples as f64
    }

    /// How many epochs of the whole network a device's part of a round of `epochs` takes, about: for telling how long a run
    /// takes before it begins.
    fn work(&self, epochs: u32) -> f64 {
        epochs.into()
    }

    /// Whether devices may train with momentum. Where a method's formula counts on plain steps they may not.
    fn takes_momentum(&self) -> bool {
        true
    }

    /// How it is set, in words such as `mu = 0.1`; empty if there is nothing to set. A method that a program brings along is told
    /// by it from another one of the same name, so that a run goes on as it began. One of [`METHODS`] need not say it: what is
    /// set of it stands in the configuration.
    fn settings(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests;
