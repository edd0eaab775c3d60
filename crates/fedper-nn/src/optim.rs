//! SGD, and what becomes of a gradient.

use std::mem::take;

use fedper_core::params::Params;

use crate::kernel::buffer::Buffer;
pub use crate::kernel::elementwise::Sgd;
use crate::kernel::elementwise::{sgd, sgd_plain};

/// Sums that [`Parameter::squares`] takes side by side.
const LANES: usize = 16;

/// What a layer does with a gradient as soon as it has it, so that training never stores a whole network's gradient unless
/// it must.
pub(crate) enum Sink<'a> {
    /// Change the parameter.
    Step(&'a Sgd),
    /// Keep it with the parameter, for a step that needs to know all gradients first.
    Keep,
    /// Hand the gradient out, by name, in PyTorch's order.
    Store(&'a mut Params),
}

/// An array that a parameter has in the engine's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Array {
    Values,
    /// What a tilt pulls the values toward.
    Toward,
    /// What a tilt adds to the gradient.
    Add,
}

/// What is added to a gradient before the step that uses it. Its arrays have no memory until they are first needed.
#[derive(Default)]
struct Tilt {
    pull: f32,
    toward: Buffer,
    add: Buffer,
    /// Whether the arrays are in use.
    pulls: bool,
    adds: bool,
}

impl Tilt {
    /// `gradient += pull * (values - toward) + add`.
    fn correct(&self, values: &[f32], gradient: &mut [f32]) {
        if self.pulls {
            for ((g, w), toward) in gradient.iter_mut().zip(values).zip(&self.toward[..]) {
                *g += self.pull * (w - toward);
            }
        }
        if self.adds {
            gradient.iter_mut().zip(&self.add[..]).for_each(|(g, add)| *g += add);
        }
    }
}

/// A parameter in the engine's own order, with its velocity.
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) values: Buffer,
    pub(crate) velocity: Buffer,
    /// The kept gradient; without memory until one is kept.
    gradient: Buffer,
    tilt: Tilt,
    /// Whether no step changes it.
    pub(crate) frozen: bool,
}

impl Parameter {
    pub(crate) fn new(name: String, len: usize) -> Self {
        let (values, velocity) = (Buffer::zeros(len), Buffer::zeros(len));
        Self { name, values, velocity, gradient: Buffer::default(), tilt: Tilt::default(), frozen: false }
    }

    /// One SGD step on the values from `start` on.
    pub(crate) fn step(&mut self, optimizer: &Sgd, start: usize, gradient: &[f32]) {
        if self.frozen {
            return;
        }
        let range = start..start + gradient.len();
        let Sgd { lr, momentum, weight_decay } = *optimizer;
        let values = &mut self.values[range.clone()];
        match momentum == 0.0 {
            // The velocity would be neither read nor kept.
            true => sgd_plain(values, gradient, lr, weight_decay),
            false => sgd(values, &mut self.velocity[range], gradient, lr, momentum, weight_decay),
        }
    }

    /// Keeps a part of the gradient, from `start` on.
    pub(crate) fn keep(&mut self, start: usize, gradient: &[f32]) {
        if self.frozen {
            return;
        }
        if self.gradient.len() != self.values.len() {
            self.gradient = Buffer::zeros(self.values.len());
        }
        self.gradient[start..start + gradient.len()].copy_from_slice(gradient);
    }

    /// The sum of squares of the kept gradient; 0 if frozen.
    pub(crate) fn squares(&self) -> f64 {
        if self.frozen {
            return 0.0;
        }
        // Side by side, and in an order that no instruction set changes.
        let mut sums = [0.0; LANES];
        for values in self.gradient.chunks(LANES) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        sums.iter().sum()
    }

    /// One SGD step with the kept gradient times `factor`, tilted after that.
    pub(crate) fn step_kept(&mut self, optimizer: &Sgd, factor: f32) {
        if self.frozen {
            return;
        }
        let mut gradient = take(&mut self.gradient);
        if factor != 1.0 {
            gradient.iter_mut().for_each(|value| *value *= factor);
        }
        self.tilt.correct(&self.values, &mut gradient);
        self.step(optimizer, 0, &gradient);
        self.gradient = gradient;
    }

    /// For a parameter whose own order is PyTorch's.
    pub(crate) fn take(&mut self, gradient: &[f32], sink: &mut Sink<'_>) {
        match sink {
            Sink::Step(optimizer) => self.step(optimizer, 0, gradient),
            Sink::Keep => self.keep(0, gradient),
            Sink::Store(out) => of(out, &self.name).copy_from_slice(gradient),
        }
    }

    /// From now on steps are tilted by the arrays that are loaded after this call, and by nothing until then.
    pub(crate) fn tilt(&mut self, pull: f32) {
        (self.tilt.pull, self.tilt.pulls, self.tilt.adds) = (pull, false, false);
    }

    /// What `params` has for an array, and the array, taken out to be written; [`Parameter::put`] brings it back.
    /// Nothing if `params` leaves this parameter out, as it may for a tilt.
    pub(crate) fn take_array<'a>(&mut self, params: &'a Params, array: Array) -> Option<(&'a [f32], Buffer)> {
        let from = params.get(&self.name);
        let to = match array {
            Array::Values => {
                return Some((from.expect("checked against the layout"), take(&mut self.values)));
            }
            Array::Toward => &mut self.tilt.toward,
            Array::Add => &mut self.tilt.add,
        };
        let from = from?;
        if to.len() != self.values.len() {
            *to = Buffer::zeros(self.values.len());
        }
        Some((from, take(to)))
    }

    pub(crate) fn put(&mut self, array: Array, values: Buffer) {
        match array {
            Array::Values => self.values = values,
            Array::Toward => (self.tilt.toward, self.tilt.pulls) = (values, true),
            Array::Add => (self.tilt.add, self.tilt.adds) = (values, true),
        }
    }

    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        if let Some((from, mut to)) = self.take_array(params, array) {
            to.copy_from_slice(from);
            self.put(array, to);
        }
    }

    pub(crate) fn store(&self, params: &mut Params) {
        of(params, &self.name).copy_from_slice(&self.values);
    }
}

/// The values of a parameter that is known to be there.
pub(crate) fn of<'a>(params: &'a mut Params, name: &str) -> &'a mut [f32] {
    let position = params.layout().position(name).expect("checked against the layout");
    params.at_mut(position)
}
