//! The weights of a convolution or a linear layer in the order in which the matrix kernels read them, and biases.

use std::ops::Range;

use super::Extent;
use crate::kernel::gemm::Kernel;
use crate::kernel::norm::column_sums;
use crate::kernel::transpose::transpose;
use crate::kernel::{BLOCK, blocks, rows};
use crate::parameter::{Order, Panel, Panels, Parameter, Sink, parameters};

/// Weights in [`Panels`].
pub(crate) struct Weight {
    parameter: Parameter,
    panels: Panels,
    pub(crate) taps: usize,
    pub(crate) rows: usize,
}

parameters!(Weight: parameter);

impl Weight {
    /// # Shapes
    /// In PyTorch: `[outputs][inputs / groups][taps]`; `fill_up` makes the rows of a tap whole blocks.
    pub(crate) fn new(
        name: String,
        [inputs, outputs]: [usize; 2],
        groups: usize,
        taps: usize,
        fill_up: bool,
        kernel: &Kernel,
    ) -> Self {
        let rows = if fill_up { blocks(inputs) * BLOCK } else { inputs };
        Self::of(
            name,
            Panels { groups, exchanged: false, taps, rows, inputs, outputs, blocks: kernel.blocks },
        )
    }

    /// As [`Weight::new`], with inputs and outputs exchanged: `[block of inputs][tap][output][16]`. A panel is one block, so
    /// that a walk over one vector of inputs reads weights as they lie, and a tap has a row more than outputs, so that the
    /// same output of all taps does not lie in the same sets of a cache.
    pub(crate) fn exchanged(name: String, [inputs, outputs]: [usize; 2], taps: usize) -> Self {
        let rows = blocks(outputs) * BLOCK + 1;
        Self::of(
            name,
            Panels { groups: 1, exchanged: true, taps, rows, inputs: outputs, outputs: inputs, blocks: 1 },
        )
    }

    fn of(name: String, panels: Panels) -> Self {
        let parameter = Parameter::new(name, panels.len(), Order::Panels(panels));
        Self { parameter, taps: panels.taps, rows: panels.rows, panels }
    }

    pub(crate) fn panels(&self) -> impl DoubleEndedIterator<Item = Panel> + Clone + use<> {
        self.panels.panels()
    }

    /// How many pairs of a block of inputs and one of outputs there are.
    pub(crate) fn pairs(&self) -> usize {
        self.values().len() / self.taps / (BLOCK * BLOCK)
    }

    /// Values of a full panel.
    pub(crate) fn panel_len(&self) -> usize {
        self.taps * self.rows * self.panels.blocks * BLOCK
    }

    /// Blocks of a full panel.
    pub(crate) fn panel_blocks(&self) -> usize {
        self.panels.blocks
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.parameter.values
    }

    /// All weights and their velocities.
    pub(crate) fn both(&mut self) -> (&mut [f32], &mut [f32]) {
        (&mut self.parameter.values, &mut self.parameter.velocity)
    }

    /// Panels of input channels, for [`Weight::transpose`].
    pub(crate) fn input_panels(&self) -> impl Iterator<Item = Panel> + Clone + use<> {
        self.panels.input_panels()
    }

    /// Values that [`Weight::transpose`] writes.
    pub(crate) fn transposed_len(&self) -> usize {
        let Panels { outputs, blocks: panel, .. } = self.panels;
        self.taps * blocks(outputs) * BLOCK * panel.min(self.rows / BLOCK) * BLOCK
    }

    /// Writes the weights of one panel of inputs with inputs and outputs exchanged: `[tap][output][panel width]`.
    /// `alive` says which taps are wanted.
    pub(crate) fn transpose(&self, inputs: Panel, alive: impl Fn(usize) -> bool, to: &mut [f32]) {
        let (outputs, width) = (blocks(self.panels.outputs) * BLOCK, inputs.width());
        for panel in self.panels() {
            for tap in (0..self.taps).filter(|&tap| alive(tap)) {
                for (i, input) in inputs.range().enumerate() {
                    let from = panel.start + (tap * self.rows + input * BLOCK) * panel.width();
                    for (o, output) in panel.range().enumerate() {
                        let to = &mut to[(tap * outputs + output * BLOCK) * width + i * BLOCK..];
                        transpose(&self.values()[from + o * BLOCK..], panel.width(), to, width);
                    }
                }
            }
        }
    }

    /// Whether a tap's gradient, which is 0 unless it is `alive`, would change nothing.
    pub(crate) fn leaves(&self, alive: bool, sink: Sink<'_>) -> bool {
        // Velocities were zero, and no weight decay has changed that.
        !alive && matches!(sink, Sink::Step(sgd) if sgd.weight_decay == 0.0)
    }

    /// Uses up the gradient of some taps of one panel, in the panel's order. Where a tap is not `alive` it is 0.
    pub(crate) fn take(
        &mut self,
        panel: Panel,
        taps: Range<usize>,
        gradient: &mut [f32],
        alive: &[bool],
        sink: Sink<'_>,
    ) {
        let tap_len = self.rows * panel.width();
        let start = panel.start + taps.start * tap_len;
        if self.panels.groups > 1 {
            self.mask_groups(panel, gradient);
        }
        let mut tap = 0;
        for run in alive[taps].chunk_by(|a, b| a == b) {
            let range = tap * tap_len..(tap + run.len()) * tap_len;
            if !self.leaves(run[0], sink) {
                self.parameter.take(start + range.start, &gradient[range], sink);
            }
            tap += run.len();
        }
    }

    /// Zero between groups.
    fn mask_groups(&self, panel: Panel, gradient: &mut [f32]) {
        let Panels { groups, inputs, outputs, .. } = self.panels;
        let (ins, outs) = (inputs / groups, outputs / groups);
        for (i, row) in gradient.chunks_exact_mut(panel.width()).enumerate() {
            for (column, value) in row.iter_mut().enumerate() {
                if i % self.rows / ins != (panel.first * BLOCK + column) / outs {
                    *value = 0.0;
                }
            }
        }
    }

    /// Whether no step changes it.
    pub(crate) fn is_frozen(&self) -> bool {
        self.parameter.frozen
    }
}

/// The bias of a convolution or a linear layer.
pub(crate) struct Bias {
    parameter: Parameter,
    gradient: Vec<f32>,
    /// Filled up to whole blocks.
    padded: Vec<f32>,
}

impl Bias {
    pub(crate) fn new(name: String, outputs: usize) -> Self {
        Self {
            parameter: Parameter::new(name, outputs, Order::Torch),
            gradient: vec![0.0; outputs],
            padded: vec![0.0; blocks(outputs) * BLOCK],
        }
    }

    /// The padded values, after the parameter may have changed.
    pub(crate) fn refresh(&mut self) -> &[f32] {
        self.padded[..self.gradient.len()].copy_from_slice(&self.parameter.values);
        &self.padded
    }

    /// What [`Bias::refresh`] last returned.
    pub(crate) fn padded(&self) -> &[f32] {
        &self.padded
    }

    pub(crate) fn backward(&mut self, dy: &[f32], extent: Extent, samples: usize, sink: Sink<'_>) {
        for (block, gradient) in self.gradient.chunks_mut(BLOCK).enumerate() {
            let mut sums = [0.0; BLOCK];
            column_sums(rows(&dy[extent.range(block, samples)]), &mut sums);
            for (g, s) in gradient.iter_mut().zip(sums) {
                *g = s as f32;
            }
        }
        self.parameter.take(0, &self.gradient, sink);
    }
}

parameters!(Bias: parameter);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameter::{Array, Parameters};
    use crate::testing::noise;
    use fedper_core::params::{Layout, Params, Spec};

    #[test]
    fn weights_survive_load_store_and_transpose() {
        for kernel in Kernel::available() {
            for (inputs, outputs, groups, taps) in [
                (3, 5, 1, 9),
                (8, 12, 2, 1),
                (1, 1, 1, 1),
                (6, 9, 3, 4),
                (17, 33, 1, 2),
                (64, 32, 1, 1),
                (40, 80, 4, 2),
            ] {
                let layout =
                    Layout::new(vec![Spec::trainable("w", [outputs, inputs / groups, taps])]).unwrap();
                let params = Params::from_values(layout.clone(), noise(layout.numel(), 1)).unwrap();
                let mut weight = Weight::new("w".into(), [inputs, outputs], groups, taps, true, kernel);
                weight.parameters_mut(&mut |parameter| parameter.load(&params, Array::Values));
                let mut back = Params::zeros(layout);
                weight.parameters(&mut |parameter| parameter.store(&mut back));
                assert_eq!(back, params);

                let padded = blocks(outputs) * BLOCK;
                for panel in weight.input_panels() {
                    let mut transposed = vec![f32::NAN; weight.transposed_len()];
                    weight.transpose(panel, |_| true, &mut transposed);
                    let width = panel.width();
                    for (i, value) in transposed[..taps * padded * width].iter().enumerate() {
                        let (tap, output) = (i / width / padded, i / width % padded);
                        let input = panel.first * BLOCK + i % width;
                        let (ins, outs) = (inputs / groups, outputs / groups);
                        let connected = input < inputs && output < outputs && input / ins == output / outs;
                        let expected = match connected {
                            true => params.values()[(output * ins + input % ins) * taps + tap],
                            false => 0.0,
                        };
                        assert_eq!(*value, expected);
                    }
                }
            }
        }
    }
}
