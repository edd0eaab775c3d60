//! One slot: which parameters it has, how it begins, how it is folded.

use crate::params::{Kind, Spec};
use crate::split::Split;

/// Which parameters a slot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// Those of the whole network.
    Whole,
    /// Those that the optimizer changes: no running statistics.
    Trainable,
    /// The base side of the cut.
    Base,
    /// The personal side of the cut.
    Personal,
    /// So many values under the slot's own name.
    Values(usize),
}

/// What a slot holds before anything was trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Begin {
    /// Initial weights, drawn for its owner: the server, or each device its own.
    Drawn,
    /// The initial weights that the server draws, alike on all devices.
    Common,
    /// On a device: the network that it received first, under its own personal layers if there are such.
    Received,
    /// All zero.
    Zero,
    /// All of this value.
    Value(f32),
}

/// How the server makes one slot of those that devices sent. Sums are f64, in the order of devices, divided once, rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The mean, weighted by [`crate::strategy::Strategy::weight`].
    Weighted,
    /// The mean in which each device counts the same.
    Uniform,
    /// The sum.
    Sum,
}

/// A set of parameters with a common prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// Empty for the model's own, or ending in `/`; of [`Like::Values`] it is the parameter's whole name.
    pub prefix: &'static str,
    /// Which parameters it has.
    pub of: Like,
    /// What it begins with.
    pub begin: Begin,
    /// Whether nothing that follows from it alone may leave the device: a test looks for its values in all traffic.
    pub private: bool,
}

impl Slot {
    /// A slot that begins with zeros, and from which something may be sent.
    pub const fn new(prefix: &'static str, of: Like) -> Self {
        Self { prefix, of, begin: Begin::Zero, private: false }
    }

    /// The same with another beginning.
    #[must_use]
    pub const fn begins(self, begin: Begin) -> Self {
        Self { begin, ..self }
    }

    /// The same, of which nothing leaves the device.
    #[must_use]
    pub const fn private(self) -> Self {
        Self { private: true, ..self }
    }

    pub(super) fn specs(&self, split: &Split) -> Vec<Spec> {
        let all = split.whole().specs();
        match self.of {
            Like::Whole => all.to_vec(),
            Like::Trainable => all.iter().filter(|spec| spec.kind == Kind::Trainable).cloned().collect(),
            Like::Base => split.base().specs().to_vec(),
            Like::Personal => split.personal().specs().to_vec(),
            Like::Values(count) => vec![Spec::trainable(self.prefix, [count])],
        }
    }

    /// The name that a parameter of this slot has in a bundle.
    pub(super) fn named(&self, spec: &Spec) -> Spec {
        match self.of {
            Like::Values(_) => spec.clone(),
            _ => Spec { name: format!("{}{}", self.prefix, spec.name), ..spec.clone() },
        }
    }
}
