//! SGD, and what becomes of a gradient.

use fedper_core::params::Params;

use crate::kernel::buffer::Buffer;
use crate::kernel::elementwise::{sgd, sgd_plain};

/// Stochastic gradient descent with momentum (dampening 0) and L2 weight decay, as PyTorch's `torch.optim.SGD`:
/// `v = momentum * v + (g + weight_decay * p)`, `p -= lr * v`, `v` zero at first. Weight decay applies to every trainable
/// parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f32,
    /// How much of the last velocity stays.
    pub momentum: f32,
    /// How strongly weights are pulled to zero.
    pub weight_decay: f32,
}

/// What a layer does with a gradient as soon as it has it, so that training never stores a whole network's gradient.
pub(crate) enum Sink<'a> {
    /// Change the parameter.
    Step(&'a Sgd),
    /// Hand the gradient out, by name, in PyTorch's order.
    Store(&'a mut Params),
}

/// A parameter in the engine's own order, with its velocity.
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) values: Buffer,
    pub(crate) velocity: Buffer,
}

impl Parameter {
    pub(crate) fn new(name: String, len: usize) -> Self {
        Self { name, values: Buffer::zeros(len), velocity: Buffer::zeros(len) }
    }

    /// One SGD step on the values from `start` on.
    pub(crate) fn step(&mut self, optimizer: &Sgd, start: usize, gradient: &[f32]) {
        let range = start..start + gradient.len();
        let Sgd { lr, momentum, weight_decay } = *optimizer;
        let values = &mut self.values[range.clone()];
        match momentum == 0.0 {
            // The velocity would be neither read nor kept.
            true => sgd_plain(values, gradient, lr, weight_decay),
            false => sgd(values, &mut self.velocity[range], gradient, lr, momentum, weight_decay),
        }
    }

    /// For a parameter whose own order is PyTorch's.
    pub(crate) fn take(&mut self, gradient: &[f32], sink: &mut Sink<'_>) {
        match sink {
            Sink::Step(optimizer) => self.step(optimizer, 0, gradient),
            Sink::Store(out) => of(out, &self.name).copy_from_slice(gradient),
        }
    }

    pub(crate) fn load(&mut self, params: &Params) {
        self.values.copy_from_slice(params.get(&self.name).expect("checked against the layout"));
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
