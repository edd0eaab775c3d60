//! Federated methods: one file each, written like its paper.
//!
//! A method says which parameters the server averages ([`Strategy::split`]), what a device does with what it receives
//! ([`Strategy::train`]), with what network it is judged ([`Strategy::evaluate`]), and what the server does with what
//! arrives ([`Strategy::weight`], [`Strategy::apply`]). A new method is a new file and a line in [`ALL`].

mod fedavg;
mod fedavg_ft;
mod fedper;
mod local;

use std::error::Error;

use thiserror::Error;

pub use self::fedavg::FedAvg;
pub use self::fedavg_ft::FedAvgFineTuned;
pub use self::fedper::FedPer;
pub use self::local::Local;
use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::params::{Kind, Params, ParamsError};
use crate::seed::Purpose;
use crate::split::{BaseParams, PersonalParams, Split};

/// Every method, by the name that users type.
pub static ALL: &[&dyn Strategy] = &[&FedPer, &FedAvg, &Local, &FedAvgFineTuned];

/// The method called `name`.
pub fn by_name(name: &str) -> Option<&'static dyn Strategy> {
    ALL.iter().copied().find(|strategy| strategy.name() == name)
}

/// A federated method. Without state of its own: what lasts from round to round is the server's base and each device's
/// personal parameters.
pub trait Strategy: Send + Sync {
    /// The name that users type.
    fn name(&self) -> &'static str;

    /// One line on what it does, with its source.
    fn about(&self) -> &'static str;

    /// Which parameters are averaged, given the cut that the configuration asks for.
    fn split(&self, requested: &Split) -> Split;

    /// A device's part of a round: from the base it `received` and its `own` personal parameters to new ones.
    ///
    /// # Errors
    /// If the device cannot train, or its training diverged.
    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &BaseParams,
        own: &PersonalParams,
    ) -> Result<Trained, LearnError>;

    /// Tests the network that this method gives the device, on the device's own test samples.
    ///
    /// # Errors
    /// If the device cannot be tested.
    fn evaluate(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &BaseParams,
        own: &PersonalParams,
    ) -> Result<EvalMetrics, LearnError> {
        device.load(&round.split.join(received, own))?;
        round.settle(device)?;
        device.test()
    }

    /// The weight of a device that holds `samples` training samples; FedAvg's n_j unless a method says otherwise.
    fn weight(&self, samples: u64) -> f64 {
        samples as f64
    }

    /// The server's new base, from its previous one and the devices' weighted mean; the mean unless a method says
    /// otherwise.
    fn apply(&self, _previous: &BaseParams, mean: BaseParams) -> BaseParams {
        mean
    }
}

/// What a strategy tells the device it runs on to do. Implemented by the simulator and by deployed devices.
pub trait Learner {
    /// Puts weights into the device's network.
    ///
    /// # Errors
    /// If they belong to another network.
    fn load(&mut self, params: &Params) -> Result<(), LearnError>;

    /// The weights of the device's network.
    ///
    /// # Errors
    /// If the network cannot give them.
    fn params(&mut self) -> Result<Params, LearnError>;

    /// Mini-batch SGD on all layers over the device's own samples for `epochs`, momentum starting at zero. The order of
    /// the samples is drawn for `purpose`.
    ///
    /// # Errors
    /// [`LearnError::Diverged`] if the loss is no longer finite.
    fn train(&mut self, epochs: u32, purpose: Purpose) -> Result<TrainMetrics, LearnError>;

    /// Measures the network's batch-norm statistics afresh on (a sample of) the device's own training samples. No weight
    /// changes.
    ///
    /// # Errors
    /// If the samples cannot be read.
    fn measure_statistics(&mut self) -> Result<(), LearnError>;

    /// Tests the network on the device's own test samples, in eval mode.
    ///
    /// # Errors
    /// If the test cannot be made.
    fn test(&mut self) -> Result<EvalMetrics, LearnError>;
}

/// What a round asks of a device.
#[derive(Clone, Copy, Debug)]
pub struct LocalRound<'a> {
    /// The method's cut of the network.
    pub split: &'a Split,
    /// Epochs of local training.
    pub epochs: u32,
    /// Epochs of fine-tuning before an evaluation, for methods that do so.
    pub finetune_epochs: u32,
    /// Whether a device starts a round from fresh batch-norm statistics in its base instead of the received ones.
    pub reset_statistics: bool,
    /// Whether a device measures batch-norm statistics afresh before its network is tested.
    pub measure_statistics: bool,
}

impl LocalRound<'_> {
    /// Has a device measure its batch-norm statistics afresh, if the round asks for it and a base with such was received:
    /// averaged ones belong to no device's data and to none of the networks that were averaged.
    ///
    /// # Errors
    /// As [`Learner::measure_statistics`].
    pub fn settle(&self, device: &mut dyn Learner) -> Result<(), LearnError> {
        if self.measures() { device.measure_statistics() } else { Ok(()) }
    }

    /// Whether [`LocalRound::settle`] has statistics measured.
    pub fn measures(&self) -> bool {
        self.measure_statistics && self.split.base().specs().iter().any(|spec| spec.kind == Kind::Buffer)
    }

    /// The network that a device trains: the received base under its own personal layers.
    pub fn assemble(&self, received: &BaseParams, own: &PersonalParams) -> Params {
        let mut params = self.split.join(received, own);
        if self.reset_statistics {
            for spec in received.params().layout().specs().iter().filter(|spec| spec.kind == Kind::Buffer) {
                let position =
                    params.layout().position(&spec.name).expect("the base is a part of the network");
                params.at_mut(position).fill(if spec.name.ends_with("running_var") { 1.0 } else { 0.0 });
            }
        }
        params
    }
}

/// What a device has after its local training.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// What it sends.
    pub base: BaseParams,
    /// What it keeps.
    pub personal: PersonalParams,
    /// What it measured.
    pub metrics: TrainMetrics,
}

/// Why a device did not answer.
#[derive(Debug, Error)]
pub enum LearnError {
    /// The loss or a weight is no longer finite.
    #[error("training diverged ({0}): lower the learning rate (--lr)")]
    Diverged(String),
    /// The device is out for this round.
    #[error("the device failed in this round")]
    Dropped,
    /// Parameters of another network.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Anything else that the device reports.
    #[error(transparent)]
    Device(#[from] Box<dyn Error + Send + Sync>),
}

/// Joint SGD on all layers, then the cut: what all of the methods here do on a device.
fn train_jointly(
    device: &mut dyn Learner,
    round: &LocalRound,
    received: &BaseParams,
    own: &PersonalParams,
) -> Result<Trained, LearnError> {
    device.load(&round.assemble(received, own))?;
    let metrics = device.train(round.epochs, Purpose::Shuffle)?;
    let trained = device.params()?;
    if let Some(name) = trained.first_non_finite() {
        return Err(LearnError::Diverged(format!("`{name}` is no longer finite")));
    }
    let (base, personal) = round.split.cut(&trained);
    Ok(Trained { base, personal, metrics })
}

#[cfg(test)]
mod tests;
