//! A linear layer over blocked activations of one or several positions. Its weights lie with inputs and outputs exchanged,
//! `[block of inputs][position][output][16]`, which [`crate::kernel::linear`] explains; with many samples they are
//! what matrix products read, as those of a convolution.

use fedper_core::params::Params;

use super::conv::{Taps, walk_panel};
use super::geometry::{Walk, Window};
use super::weight::{Bias, Weight};
use super::{Done, Extent, Scratch};
use crate::kernel::BLOCK;
use crate::kernel::gemm::{Kernel, OUTER_ROWS, Outer, Rows, Start, Stretch};
use crate::kernel::linear::{Inputs, Tile, backward, forward};
use crate::optim::{Array, Parameter, Sink};

/// Samples up to which the memory traffic of the weights counts more than arithmetic.
const FEW: usize = 32;

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
    kernel: &'static Kernel,
}

impl Linear {
    /// # Shapes
    /// Input `channels[0]` at the positions of `input`, output `channels[1]` at one position.
    pub(crate) fn new(name: &str, input: [usize; 2], channels: [usize; 2], kernel: &'static Kernel) -> Self {
        let window = Window { input, kernel: input, stride: 1, padding: 0 };
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
            kernel,
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch) {
        let turned = FEW * self.outputs.blocks * BLOCK;
        scratch.reserve(self.weight.panel_len(), self.weight.transposed_len().max(turned));
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

    pub(crate) fn forward(
        &mut self,
        x: &[f32],
        y: &mut [f32],
        samples: usize,
        scratch: &mut Scratch,
        mut done: impl Done,
    ) {
        let stride = self.outputs.stride(samples);
        if samples <= FEW {
            self.tiles(samples);
            let inputs = Inputs { x, samples, tiles: &self.tiles, outputs: self.outputs.blocks * BLOCK };
            forward(&inputs, self.weight.values(), self.bias.refresh(), y, stride);
            done(0..self.outputs.blocks, y);
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

    /// `dx (+)=` the gradient of the input; then that of weights and bias. A step of SGD changes weights of few samples right
    /// after they were read.
    #[allow(clippy::too_many_arguments, reason = "two passes in one")]
    pub(crate) fn backward(
        &mut self,
        x: &[f32],
        dy: &[f32],
        dx: Option<&mut [f32]>,
        samples: usize,
        add: bool,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
        mut done: impl Done,
    ) {
        let mut stepped = false;
        match dx {
            Some(dx) if samples <= FEW => {
                let sgd = match sink {
                    Sink::Step(sgd) if !self.weight.is_frozen() => Some(*sgd),
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
                done(0..self.inputs.blocks, dx);
            }
            Some(dx) => {
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

    fn weight_gradient(
        &mut self,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
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

    /// Hands every parameter that training changes to `visit`.
    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.weight.trainable(visit);
        self.bias.trainable(visit);
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.reset_velocity();
        self.bias.reset_velocity();
    }

    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        self.weight.load(params, array);
        self.bias.load(params, array);
    }

    pub(crate) fn store(&self, params: &mut Params) {
        self.weight.store(params);
        self.bias.store(params);
    }
}
