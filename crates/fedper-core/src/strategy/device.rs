//! A device's side of a method: what it is asked to do, with what, and what it answers.

use std::error::Error;

use thiserror::Error;

use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::params::{Kind, Layout, Params, ParamsError};
use crate::parts::Parts;
use crate::seed::Purpose;
use crate::split::{Kept, Shared};

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

    /// Mini-batch SGD over the device's own samples, velocities starting at zero.
    ///
    /// # Errors
    /// [`LearnError::Diverged`] if the loss is no longer finite.
    fn train(&mut self, pass: &Pass<'_>) -> Result<TrainMetrics, LearnError>;

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

/// Some epochs of SGD.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// How many.
    pub epochs: u32,
    /// What the order of the samples is drawn for.
    pub purpose: Purpose,
    /// The name of a sequence of its own for that; empty for the purpose's plain one.
    pub stream: &'static str,
    /// The parameters that train; `None` for all. A batch norm that does not train is in eval mode, and its running
    /// statistics stay.
    pub only: Option<&'a Layout>,
    /// What is added to the gradient.
    pub tilt: Option<Tilt<'a>>,
}

impl<'a> Pass<'a> {
    /// The same for the parameters of `part` alone.
    #[must_use]
    pub fn only(self, part: &'a Layout) -> Self {
        Self { only: Some(part), ..self }
    }

    /// The same with a sequence of its own for the order of the samples.
    #[must_use]
    pub fn stream(self, name: &'static str) -> Self {
        Self { stream: name, ..self }
    }

    /// The same with a correction of the gradient.
    #[must_use]
    pub fn tilted(self, tilt: Tilt<'a>) -> Self {
        Self { tilt: Some(tilt), ..self }
    }
}

/// A correction of the gradient: `gradient += pull * (w - toward) + add`, after clipping, before weight decay and momentum.
/// Only what the optimizer changes is corrected.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tilt<'a> {
    /// How strongly weights are pulled.
    pub pull: f64,
    /// Where to.
    pub toward: Option<&'a Params>,
    /// What is added beside that.
    pub add: Option<&'a Params>,
}

impl<'a> Tilt<'a> {
    /// `pull * (w - toward)`: the gradient of `pull / 2 * |w - toward|^2`.
    pub fn toward(pull: f64, toward: &'a Params) -> Self {
        Self { pull, toward: Some(toward), add: None }
    }

    /// The same in every step.
    pub fn adding(add: &'a Params) -> Self {
        Self { pull: 0.0, toward: None, add: Some(add) }
    }
}

/// What a round asks of a device.
#[derive(Clone, Copy, Debug)]
pub struct LocalRound<'a> {
    /// What the method sends and keeps.
    pub parts: &'a Parts,
    /// 1 for the first.
    pub round: u32,
    /// Epochs of local training.
    pub epochs: u32,
    /// Epochs of fine-tuning before an evaluation, for methods that do so.
    pub finetune_epochs: u32,
    /// The learning rate of this round.
    pub rate: f64,
    /// Whether a device starts a round from fresh batch-norm statistics in its base instead of the received ones.
    pub reset_statistics: bool,
    /// Whether a device measures batch-norm statistics afresh before its network is tested.
    pub measure_statistics: bool,
}

impl<'a> LocalRound<'a> {
    /// The round's local training: all epochs, all layers.
    pub fn pass(&self) -> Pass<'a> {
        Pass { epochs: self.epochs, purpose: Purpose::Shuffle, stream: "", only: None, tilt: None }
    }

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
        let base = self.parts.split.base();
        self.measure_statistics && base.specs().iter().any(|spec| spec.kind == Kind::Buffer)
    }

    /// The network that a device trains: the received base under its own personal layers.
    pub fn assemble(&self, received: &Shared, own: &Kept) -> Params {
        let mut params = self.parts.join(received, own);
        if self.reset_statistics {
            for spec in self.parts.split.base().specs().iter().filter(|spec| spec.kind == Kind::Buffer) {
                let position =
                    params.layout().position(&spec.name).expect("the base is a part of the network");
                params.at_mut(position).fill(if spec.name.ends_with("running_var") { 1.0 } else { 0.0 });
            }
        }
        params
    }

    /// A slot of what was received, under bare names.
    pub fn received(&self, received: &Shared, slot: &str) -> Params {
        self.parts.down.take(received.params(), slot)
    }

    /// A slot of what the device keeps, under bare names.
    pub fn own(&self, own: &Kept, slot: &str) -> Params {
        self.parts.kept.take(own.params(), slot)
    }

    /// The model's own parts of a network: what is sent, what is kept.
    pub fn cut(&self, params: &Params) -> (Params, Params) {
        let (base, personal) = self.parts.split.cut(params);
        (base.into_params(), personal.into_params())
    }

    /// The answer of a method that sends the base and keeps the personal layers of the network that it has trained.
    ///
    /// # Errors
    /// [`LearnError::Diverged`] if a weight is no longer finite.
    pub fn answer_with_model(
        &self,
        device: &mut dyn Learner,
        metrics: TrainMetrics,
    ) -> Result<Trained, LearnError> {
        let trained = device.params()?;
        finite(&trained)?;
        let (sent, kept) = self.parts.split.cut(&trained);
        Ok(Trained { sent, kept, metrics })
    }

    /// An answer of several slots: what is sent, what is kept. The model's own need not be named where they are empty.
    ///
    /// # Errors
    /// [`LearnError::Diverged`] if a value is not finite, [`LearnError::Params`] if a slot is not the method's.
    pub fn answer(
        &self,
        sent: Vec<(&str, Params)>,
        kept: Vec<(&str, Params)>,
        metrics: TrainMetrics,
    ) -> Result<Trained, LearnError> {
        let (sent, kept) = (self.parts.up.pack(sent)?, self.parts.kept.pack(kept)?);
        finite(&sent)?;
        finite(&kept)?;
        if kept.layout() != self.parts.kept.layout() {
            return Err(ParamsError::Length {
                expected: self.parts.kept.layout().numel(),
                found: kept.layout().numel(),
            }
            .into());
        }
        Ok(Trained { sent: Shared::new(sent), kept: Kept::new(kept), metrics })
    }
}

fn finite(params: &Params) -> Result<(), LearnError> {
    match params.first_non_finite() {
        Some(name) => Err(LearnError::Diverged(format!("`{name}` is no longer finite"))),
        None => Ok(()),
    }
}

/// What a device has after its local training.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// What it sends.
    pub sent: Shared,
    /// What it keeps.
    pub kept: Kept,
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
