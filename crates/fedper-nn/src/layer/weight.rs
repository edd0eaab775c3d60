//! The weights of a convolution in the order the matrix kernel reads them.

use fedper_core::params::Params;

use crate::kernel::elementwise::sgd;
use crate::optim::{Parameter, Sink, of};

/// Weights as `[group][panel][tap][in / groups][panel width]`: what a tile needs lies in a row. The last panel is
/// filled up with zeros, which stay zero: their gradient is.
pub(crate) struct Weight {
    parameter: Parameter,
    pub(crate) groups: usize,
    pub(crate) taps: usize,
    /// Input channels of a group.
    pub(crate) inputs: usize,
    /// Output channels of a group.
    pub(crate) outputs: usize,
    /// Width of a panel.
    pub(crate) width: usize,
}

impl Weight {
    /// # Shapes
    /// In PyTorch: `[outputs][inputs / groups][taps]`.
    pub(crate) fn new(
        name: String,
        inputs: usize,
        outputs: usize,
        groups: usize,
        taps: usize,
        width: usize,
    ) -> Self {
        let (inputs, outputs) = (inputs / groups, outputs / groups);
        let len = groups * outputs.div_ceil(width) * taps * inputs * width;
        Self { parameter: Parameter::new(name, len), groups, taps, inputs, outputs, width }
    }

    /// Panels of a group.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// Values of a panel.
    pub(crate) fn panel_len(&self) -> usize {
        self.taps * self.inputs * self.width
    }

    /// Columns of a panel that are no filling.
    pub(crate) fn columns(&self, panel: usize) -> usize {
        self.width.min(self.outputs - panel * self.width)
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.parameter.values
    }

    /// Values that [`Weight::transpose`] writes.
    pub(crate) fn transposed_len(&self) -> usize {
        self.groups * self.inputs.div_ceil(self.width) * self.taps * self.outputs * self.width
    }

    /// Writes the weights with input and output channels exchanged:
    /// `[group][panel of inputs][tap][outputs][panel width]`. `alive` says which taps are wanted.
    pub(crate) fn transpose(&self, alive: &[bool], to: &mut [f32]) {
        let width = self.width;
        let back_panels = self.inputs.div_ceil(width);
        let back_len = self.taps * self.outputs * width;
        for group in 0..self.groups {
            for panel in 0..self.panels() {
                let from = &self.values()[(group * self.panels() + panel) * self.panel_len()..];
                let columns = self.columns(panel);
                for back in 0..back_panels {
                    let to = &mut to[(group * back_panels + back) * back_len..][..back_len];
                    let first = back * width;
                    let rows = width.min(self.inputs - first);
                    for tap in (0..self.taps).filter(|&tap| alive[tap]) {
                        let from = &from[(tap * self.inputs + first) * width..][..rows * width];
                        let to = &mut to[(tap * self.outputs + panel * width) * width..][..columns * width];
                        crate::kernel::transpose::transpose(from, to, width, rows, columns);
                    }
                }
            }
        }
    }

    /// Uses up the gradient of one panel, in the panel's order.
    pub(crate) fn take(&mut self, group: usize, panel: usize, gradient: &[f32], sink: &mut Sink<'_>) {
        let start = (group * self.panels() + panel) * self.panel_len();
        match sink {
            Sink::Step(o) => {
                let range = start..start + gradient.len();
                let Parameter { values, velocity, .. } = &mut self.parameter;
                let (values, velocity) = (&mut values[range.clone()], &mut velocity[range]);
                sgd(values, velocity, gradient, o.lr, o.momentum, o.weight_decay);
            }
            Sink::Store(out) => {
                let out = of(out, &self.parameter.name);
                self.in_panel(group, panel, |own, torch| out[torch] = gradient[own]);
            }
        }
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.parameter.velocity.fill(0.0);
    }

    pub(crate) fn load(&mut self, params: &Params) {
        let from = params.get(&self.parameter.name).expect("checked against the layout");
        let mut values = std::mem::take(&mut self.parameter.values);
        for (i, values) in values.chunks_exact_mut(self.panel_len()).enumerate() {
            self.in_panel(i / self.panels(), i % self.panels(), |own, torch| values[own] = from[torch]);
        }
        self.parameter.values = values;
    }

    pub(crate) fn store(&self, params: &mut Params) {
        let to = of(params, &self.parameter.name);
        for (i, values) in self.values().chunks_exact(self.panel_len()).enumerate() {
            self.in_panel(i / self.panels(), i % self.panels(), |own, torch| to[torch] = values[own]);
        }
    }

    /// Calls `visit` with each value's place in the panel and in PyTorch's order.
    fn in_panel(&self, group: usize, panel: usize, mut visit: impl FnMut(usize, usize)) {
        for column in 0..self.columns(panel) {
            let output = group * self.outputs + panel * self.width + column;
            for input in 0..self.inputs {
                for tap in 0..self.taps {
                    let own = (tap * self.inputs + input) * self.width + column;
                    visit(own, (output * self.inputs + input) * self.taps + tap);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use fedper_core::params::{Layout, Spec};

    #[test]
    fn weights_survive_load_store_and_transpose() {
        for (inputs, outputs, groups, taps, width) in
            [(3, 5, 1, 9, 4), (8, 12, 2, 1, 4), (1, 1, 1, 1, 8), (6, 9, 3, 4, 2)]
        {
            let layout = Layout::new(vec![Spec::trainable("w", [outputs, inputs / groups, taps])]).unwrap();
            let params = Params::from_values(layout.clone(), noise(layout.numel(), 1)).unwrap();
            let mut weight = Weight::new("w".into(), inputs, outputs, groups, taps, width);
            weight.load(&params);
            let mut back = Params::zeros(layout);
            weight.store(&mut back);
            assert_eq!(back, params);

            let mut transposed = vec![f32::NAN; weight.transposed_len()];
            weight.transpose(&vec![true; taps], &mut transposed);
            let (ig, og) = (inputs / groups, outputs / groups);
            for (i, &value) in params.values().iter().enumerate() {
                let (output, input, tap) = (i / taps / ig, i / taps % ig, i % taps);
                let (group, output) = (output / og, output % og);
                let panel = group * ig.div_ceil(width) + input / width;
                assert_eq!(transposed[((panel * taps + tap) * og + output) * width + input % width], value);
            }
        }
    }
}
