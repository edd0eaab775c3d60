//! What works on each value by itself: an activation where no layer before it applies it, and a sum.

use super::{Backward, Forward, Layer, Scratch};
use crate::kernel::elementwise::{Activation, activate_into, add_activate};
use crate::parameter::parameters;

/// The activation is the node's own, as that of every layer is.
pub(crate) struct Elementwise(pub(crate) Activation);

parameters!(Elementwise:);

impl Layer for Elementwise {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        activate_into(pass.inputs.of(0), pass.y, self.0.range());
    }

    fn backward(&mut self, _: Backward<'_>) {}

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }
}

/// The sum of two inputs with the activation after it.
pub(crate) struct Add(pub(crate) Activation);

parameters!(Add:);

impl Layer for Add {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        add_activate(pass.inputs.of(0), pass.inputs.of(1), pass.y, self.0.range());
    }

    fn backward(&mut self, mut pass: Backward<'_>) {
        if let Some(dx) = pass.gradients.of(0) {
            dx.values.copy_from_slice(pass.dy);
        }
    }

    fn in_place(&self) -> Option<usize> {
        Some(1)
    }
}
