//! The weights of a convolution in the order the matrix kernel reads them, and biases.

use std::ops::Range;

use fedper_core::params::Params;

use super::{Extent, blocks};
use crate::kernel::gemm::Kernel;
use crate::kernel::norm::column_sums;
use crate::kernel::transpose::transpose;
use crate::kernel::{BLOCK, rows};
use crate::optim::{Array, Parameter, Sink, of};

/// Weights as `[panel][tap][input][panel width]`: what a tile needs lies in a row. A panel is one block of output
/// channels or two, as the kernel has it, the last one perhaps narrower. Rows and columns beyond the channels there are,
/// and those that lead from one group to another, are zero and stay zero: their gradient is.
pub(crate) struct Weight {
    parameter: Parameter,
    groups: usize,
    /// Whether what are inputs here are PyTorch's outputs, and the other way round.
    exchanged: bool,
    pub(crate) taps: usize,
    /// Rows of a tap: input channels, filled up to whole blocks or not; of exchanged ones, one more.
    pub(crate) rows: usize,
    inputs: usize,
    outputs: usize,
    panel_blocks: usize,
}

/// A panel of output channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    /// Its first block.
    pub(crate) first: usize,
    pub(crate) blocks: usize,
    /// Where its weights begin.
    pub(crate) start: usize,
}

impl Panel {
    pub(crate) fn width(&self) -> usize {
        self.blocks * BLOCK
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.blocks
    }
}

/// `count` blocks in panels of up to `panel_blocks`; a panel's weights are `rows` rows.
fn panels(count: usize, panel_blocks: usize, rows: usize) -> impl DoubleEndedIterator<Item = Panel> + Clone {
    (0..count).step_by(panel_blocks).map(move |first| Panel {
        first,
        blocks: panel_blocks.min(count - first),
        start: first * BLOCK * rows,
    })
}

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
        Self {
            parameter: Parameter::new(name, blocks(outputs) * BLOCK * taps * rows),
            groups,
            exchanged: false,
            taps,
            rows,
            inputs,
            outputs,
            panel_blocks: kernel.blocks,
        }
    }

    /// As [`Weight::new`], with inputs and outputs exchanged: `[block of inputs][tap][output][16]`. A panel is one block, so
    /// that a walk over one vector of inputs reads weights as they lie, and a tap has a row more than outputs, so that the
    /// same output of all taps does not lie in the same sets of a cache.
    pub(crate) fn exchanged(name: String, [inputs, outputs]: [usize; 2], taps: usize) -> Self {
        let rows = blocks(outputs) * BLOCK + 1;
        Self {
            parameter: Parameter::new(name, blocks(inputs) * BLOCK * taps * rows),
            groups: 1,
            exchanged: true,
            taps,
            rows,
            inputs: outputs,
            outputs: inputs,
            panel_blocks: 1,
        }
    }

    pub(crate) fn panels(&self) -> impl DoubleEndedIterator<Item = Panel> + Clone + use<> {
        panels(blocks(self.outputs), self.panel_blocks, self.taps * self.rows)
    }

    /// How many pairs of a block of inputs and one of outputs there are.
    pub(crate) fn pairs(&self) -> usize {
        self.values().len() / self.taps / (BLOCK * BLOCK)
    }

    /// Values of a full panel.
    pub(crate) fn panel_len(&self) -> usize {
        self.taps * self.rows * self.panel_blocks * BLOCK
    }

    /// Blocks of a full panel.
    pub(crate) fn panel_blocks(&self) -> usize {
        self.panel_blocks
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
        panels(self.rows / BLOCK, self.panel_blocks, 0)
    }

    /// Values that [`Weight::transpose`] writes.
    pub(crate) fn transposed_len(&self) -> usize {
        self.taps * blocks(self.outputs) * BLOCK * self.panel_blocks.min(self.rows / BLOCK) * BLOCK
    }

    /// Writes the weights of one panel of inputs with inputs and outputs exchanged: `[tap][output][panel width]`.
    /// `alive` says which taps are wanted.
    pub(crate) fn transpose(&self, inputs: Panel, alive: impl Fn(usize) -> bool, to: &mut [f32]) {
        let (outputs, width) = (blocks(self.outputs) * BLOCK, inputs.width());
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
    pub(crate) fn leaves(&self, alive: bool, sink: &Sink<'_>) -> bool {
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
        sink: &mut Sink<'_>,
    ) {
        let tap_len = self.rows * panel.width();
        let start = panel.start + taps.start * tap_len;
        if self.groups > 1 {
            self.mask_groups(panel, gradient);
        }
        match sink {
            Sink::Step(_) => {
                let mut tap = 0;
                for run in alive[taps].chunk_by(|a, b| a == b) {
                    let range = tap * tap_len..(tap + run.len()) * tap_len;
                    if let (false, Sink::Step(sgd)) = (self.leaves(run[0], sink), &*sink) {
                        self.parameter.step(sgd, start + range.start, &gradient[range]);
                    }
                    tap += run.len();
                }
            }
            Sink::Keep => self.parameter.keep(start, gradient),
            Sink::Store(out) => {
                let out = of(out, &self.parameter.name);
                let first = taps.start * tap_len;
                self.in_panel(panel, taps, |own, torch| out[torch] = gradient[own - first]);
            }
        }
    }

    /// Zero between groups.
    fn mask_groups(&self, panel: Panel, gradient: &mut [f32]) {
        let (ins, outs) = (self.inputs / self.groups, self.outputs / self.groups);
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

    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(&mut self.parameter);
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.parameter.velocity.fill(0.0);
    }

    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        let Some((from, mut to)) = self.parameter.take_array(params, array) else { return };
        for panel in self.panels() {
            self.in_panel(panel, 0..self.taps, |own, torch| to[panel.start + own] = from[torch]);
        }
        self.parameter.put(array, to);
    }

    pub(crate) fn store(&self, params: &mut Params) {
        let to = of(params, &self.parameter.name);
        for panel in self.panels() {
            let values = &self.values()[panel.start..];
            self.in_panel(panel, 0..self.taps, |own, torch| to[torch] = values[own]);
        }
    }

    /// Calls `visit` with the place in the panel and in PyTorch's order of each value of some taps.
    fn in_panel(&self, panel: Panel, taps: Range<usize>, mut visit: impl FnMut(usize, usize)) {
        let (ins, outs) = (self.inputs / self.groups, self.outputs / self.groups);
        let width = panel.width();
        for output in panel.first * BLOCK..self.outputs.min(panel.range().end * BLOCK) {
            let group = output / outs;
            for input in 0..ins {
                let own = (group * ins + input) * width + output - panel.first * BLOCK;
                let torch = match self.exchanged {
                    false => output * ins + input,
                    true => input * outs + output,
                } * self.taps;
                for tap in taps.clone() {
                    visit(tap * self.rows * width + own, torch + tap);
                }
            }
        }
    }
}

/// The bias of a convolution.
pub(crate) struct Bias {
    parameter: Parameter,
    gradient: Vec<f32>,
    /// Filled up to whole blocks.
    padded: Vec<f32>,
}

impl Bias {
    pub(crate) fn new(name: String, outputs: usize) -> Self {
        Self {
            parameter: Parameter::new(name, outputs),
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

    pub(crate) fn backward(&mut self, dy: &[f32], extent: Extent, samples: usize, sink: &mut Sink<'_>) {
        for (block, gradient) in self.gradient.chunks_mut(BLOCK).enumerate() {
            let mut sums = [0.0; BLOCK];
            column_sums(rows(&dy[extent.range(block, samples)]), &mut sums);
            for (g, s) in gradient.iter_mut().zip(sums) {
                *g = s as f32;
            }
        }
        self.parameter.take(&self.gradient, sink);
    }

    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(&mut self.parameter);
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.parameter.velocity.fill(0.0);
    }

    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        self.parameter.load(params, array);
    }

    pub(crate) fn store(&self, params: &mut Params) {
        self.parameter.store(params);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use fedper_core::params::{Layout, Spec};

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
                weight.load(&params, Array::Values);
                let mut back = Params::zeros(layout);
                weight.store(&mut back);
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
