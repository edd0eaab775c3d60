//! A linear layer over blocked activations of one or several positions. Its weights lie with inputs and outputs exchanged,
//! `[block of inputs][position][output][16]`, which [`crate::kernel::linear`] explains; with many samples they are
//! what matrix products read, as those of a convolution.

use super::conv::{Taps, walk_panel};
use super::geometry::{Walk, Window};
use super::way::{Way, Ways};
use super::weight::{Bias, Weight};
use super::{Backward, Extent, Forward, InputGradient, Layer, Scratch};
use crate::kernel::BLOCK;
use crate::kernel::gemm::{Kernel, OUTER_ROWS, Outer, Rows, Start, Stretch};
use crate::kernel::linear::{Inputs, Tile, backward, forward};
use crate::parameter::{Sink, parameters};

/// A linear layer with a bias.
pub(crate) struct Linear {
    weight: Weight,
    bias: Bias,
    inputs: Extent,
    outputs: Extent,
    forward: Walk,
    backward: Walk,
    /// All positions are read.
    alive: Vec<bool>,
    tiles: Vec<Tile>,
    ways: Ways,
    kernel: &'static Kernel,
}

parameters!(Linear: weight, bias);

impl Linear {
    /// # Shapes
    /// Input `channels[0]` at all positions of the window's input, output `channels[1]` at one position.
    pub(crate) fn new(
        name: &str,
        window: &Window,
        channels: [usize; 2],
        kernel: &'static Kernel,
        ways: Ways,
    ) -> Self {
        let input = window.input;
        let (inputs, outputs) = (Extent::new(channels[0], input), Extent::new(channels[1], [1, 1]));
        Self {
            weight: Weight::exchanged(format!("{name}.weight"), channels, window.taps()),
            bias: Bias::new(format!("{name}.bias"), channels[1]),
            tiles: Vec::with_capacity(inputs.blocks * inputs.positions),
            inputs,
            outputs,
            forward: window.forward(),
            backward: window.backward(),
            alive: vec![true; window.taps()],
            ways,
            kernel,
        }
    }

    /// Where the inputs and weights of each block at each position lie.
    fn tiles(&mut self, samples: usize) {
        let stride = self.inputs.stride(samples);
        self.tiles.clear();
        for panel in self.weight.panels() {
            let first = panel.first * stride;
            self.tiles.extend((0..self.weight.taps).map(|position| Tile {
                x: first + position * samples * BLOCK,
                w: panel.start + position * self.weight.rows * BLOCK,
            }));
        }
    }

    fn weight_gradient(
        &mut self,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: Sink<'_>,
    ) {
        let (x_plane, dy_plane) = (self.inputs.stride(samples), self.outputs.stride(samples));
        assert!(x.len() >= self.inputs.len(samples) && dy.len() >= self.outputs.len(samples));
        for panel in self.weight.panels() {
            for position in 0..self.weight.taps {
                let gradient = &mut scratch.gradient[..self.weight.rows * panel.width()];
                gradient.fill(0.0);
                for first in (0..samples).step_by(OUTER_ROWS) {
                    let stretches = [Stretch {
                        x: dy[first * BLOCK..].as_ptr(),
                        dy: x[panel.first * x_plane + (position * samples + first) * BLOCK..].as_ptr(),
                        rows: OUTER_ROWS.min(samples - first),
                    }];
                    let outer = Outer {
                        stretches: &stretches,
                        inputs: Rows::Blocked { blocks: self.outputs.blocks, plane: dy_plane },
                        dy_plane: x_plane,
                        dw: gradient.as_mut_ptr(),
                        add: true,
                    };
                    // SAFETY: the samples' rows are in every plane of `x` and `dy` (asserted above), and `gradient` is a row
                    // of the panel for each output.
                    unsafe { self.kernel.outer(&outer, panel.blocks) };
                }
                self.weight.take(panel, position..position + 1, gradient, &self.alive, sink);
            }
        }
    }
}

impl Layer for Linear {
    fn reserve(&self, scratch: &mut Scratch, _: usize, _: bool) {
        let turned = self.ways.largest(Way::Walk) * self.outputs.blocks * BLOCK;
        scratch.reserve(self.weight.panel_len(), self.weight.transposed_len().max(turned));
    }

    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, scratch, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        let stride = self.outputs.stride(samples);
        if self.ways.of(samples) == Way::Walk {
            self.tiles(samples);
            let inputs = Inputs { x, samples, tiles: &self.tiles, outputs: self.outputs.blocks * BLOCK };
            forward(&inputs, self.weight.values(), self.bias.refresh(), y, stride);
            return;
        }
        let bias = self.bias.refresh();
        for panel in self.weight.input_panels() {
            let transposed = &mut scratch.transposed[..];
            self.weight.transpose(panel, |_| true, transposed);
            let start = Start::Row(bias[panel.first * BLOCK..][..panel.width()].as_ptr());
            let sides = [self.inputs, self.outputs];
            let weights = Taps { values: transposed, stride: self.inputs.blocks * BLOCK * panel.width() };
            walk_panel(self.kernel, &self.forward, sides, x, y, samples, panel, weights, start);
            done(panel.range(), &mut y[panel.first * stride..][..panel.blocks * stride]);
        }
    }

    /// A step of SGD changes the weights of few samples right after they were read.
    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, dy, mut gradients, pass, scratch, sink, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        let mut stepped = false;
        match gradients.of(0) {
            Some(InputGradient { values: dx, add }) if self.ways.of(samples) == Way::Walk => {
                let sgd = match sink {
                    Sink::Step(sgd) if !self.weight.is_frozen() => Some(sgd),
                    _ => None,
                };
                stepped = matches!(sink, Sink::Step(_));
                self.tiles(samples);
                let turned = &mut scratch.transposed[..self.outputs.blocks * BLOCK * samples];
                let plane = self.outputs.stride(samples);
                for (o, to) in turned.chunks_exact_mut(samples).enumerate() {
                    let from = &dy[o / BLOCK * plane + o % BLOCK..];
                    to.iter_mut().zip(from.iter().step_by(BLOCK)).for_each(|(to, &value)| *to = value);
                }
                let inputs = Inputs { x, samples, tiles: &self.tiles, outputs: self.outputs.blocks * BLOCK };
                let (w, v) = self.weight.both();
                backward(&inputs, turned, dx, add, w, v, sgd);
            }
            Some(InputGradient { values: dx, add }) => {
                let stride = self.inputs.stride(samples);
                let start = if add { Start::Add } else { Start::Zero };
                for panel in self.weight.panels() {
                    let values = &self.weight.values()[panel.start..];
                    let weights = Taps { values, stride: self.weight.rows * panel.width() };
                    let sides = [self.outputs, self.inputs];
                    walk_panel(self.kernel, &self.backward, sides, dy, dx, samples, panel, weights, start);
                    done(panel.range(), &mut dx[panel.first * stride..][..panel.blocks * stride]);
                }
            }
            None => {}
        }
        if !stepped {
            self.weight_gradient(x, dy, samples, scratch, sink);
        }
        self.bias.backward(dy, self.outputs, samples, sink);
    }

    fn in_place(&self) -> Option<usize> {
        None
    }
}
