//! Depthwise convolution: every channel has its own kernel.

use fedper_core::params::Params;

use super::geometry::{Run, Walk, Window};
use super::weight::Bias;
use super::{Done, Extent, blocks};
use crate::kernel::buffer::Buffer;
use crate::kernel::depthwise::{MAX_TAPS, gradients, taps};
use crate::kernel::{BLOCK, Row, rows, rows_mut};
use crate::optim::{Array, Parameter, Sink, of};

/// Rows of a weight gradient summed in one go.
const GRADIENT_ROWS: usize = 256;

pub(crate) struct Depthwise {
    /// `[block][tap][16]`.
    weight: Parameter,
    gradient: Buffer,
    bias: Option<Bias>,
    channels: usize,
    taps: usize,
    inputs: Extent,
    outputs: Extent,
    forward: Walk,
    backward: Walk,
}

impl Depthwise {
    /// # Shapes
    /// Input and output `channels`, at the window's input and output positions.
    pub(crate) fn new(name: &str, window: &Window, channels: usize, bias: bool) -> Self {
        let len = blocks(channels) * window.taps() * BLOCK;
        Self {
            weight: Parameter::new(format!("{name}.weight"), len),
            gradient: Buffer::zeros(len),
            bias: bias.then(|| Bias::new(format!("{name}.bias"), channels)),
            channels,
            taps: window.taps(),
            inputs: Extent::new(channels, window.input),
            outputs: Extent::new(channels, window.output()),
            forward: window.forward(),
            backward: window.backward(),
        }
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize, mut done: impl Done) {
        let bias = self.bias.as_mut().map(Bias::refresh);
        for (block, weights) in rows(&self.weight.values).chunks_exact(self.taps).enumerate() {
            let x = rows(&x[self.inputs.range(block, samples)]);
            let y = &mut y[self.outputs.range(block, samples)];
            if let Some(bias) = bias {
                rows_mut(y).fill(rows(bias)[block]);
            }
            walk(&self.forward, x, rows_mut(y), weights, samples, bias.is_some());
            done(block..block + 1, y);
        }
    }

    /// `dx (+)=` the gradient of the input.
    pub(crate) fn input_gradient(
        &self,
        dy: &[f32],
        dx: &mut [f32],
        samples: usize,
        add: bool,
        mut done: impl Done,
    ) {
        for (block, weights) in rows(&self.weight.values).chunks_exact(self.taps).enumerate() {
            let dy = rows(&dy[self.outputs.range(block, samples)]);
            let dx = &mut dx[self.inputs.range(block, samples)];
            walk(&self.backward, dy, rows_mut(dx), weights, samples, add);
            done(block..block + 1, dx);
        }
    }

    pub(crate) fn weight_gradient(&mut self, x: &[f32], dy: &[f32], samples: usize, sink: &mut Sink<'_>) {
        self.gradient.fill(0.0);
        for (block, total) in rows_mut(&mut self.gradient).chunks_exact_mut(self.taps).enumerate() {
            let x = rows(&x[self.inputs.range(block, samples)]);
            let dy = rows(&dy[self.outputs.range(block, samples)]);
            for run in &self.forward.runs {
                run_gradient(&self.forward, run, x, dy, total, samples);
            }
        }
        match sink {
            Sink::Step(sgd) => self.weight.step(sgd, 0, &self.gradient),
            Sink::Keep => self.weight.keep(0, &self.gradient),
            Sink::Store(out) => {
                let out = of(out, &self.weight.name);
                each(self.channels, self.taps, |own, torch| out[torch] = self.gradient[own]);
            }
        }
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, self.outputs, samples, sink);
        }
    }

    /// Hands every parameter that training changes to `visit`.
    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(&mut self.weight);
        self.bias.iter_mut().for_each(|bias| bias.trainable(visit));
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.velocity.fill(0.0);
        self.bias.iter_mut().for_each(Bias::reset_velocity);
    }

    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        if let Some((from, mut to)) = self.weight.take_array(params, array) {
            each(self.channels, self.taps, |own, torch| to[own] = from[torch]);
            self.weight.put(array, to);
        }
        self.bias.iter_mut().for_each(|bias| bias.load(params, array));
    }

    pub(crate) fn store(&self, params: &mut Params) {
        let to = of(params, &self.weight.name);
        each(self.channels, self.taps, |own, torch| to[torch] = self.weight.values[own]);
        self.bias.iter().for_each(|bias| bias.store(params));
    }
}

/// Calls `visit` with each weight's place here and in PyTorch's order, `[channel][tap]`.
fn each(channels: usize, taps: usize, mut visit: impl FnMut(usize, usize)) {
    for channel in 0..channels {
        for tap in 0..taps {
            visit((channel / BLOCK * taps + tap) * BLOCK + channel % BLOCK, channel * taps + tap);
        }
    }
}

/// Computes one plane from another.
fn walk(walk: &Walk, from: &[Row], to: &mut [Row], weights: &[Row], samples: usize, add: bool) {
    for run in &walk.runs {
        let count = run.len * samples;
        let to = &mut to[run.to * samples..][..count];
        let mut add = add;
        if run.taps.is_empty() && !add {
            to.fill([0.0; BLOCK]);
        }
        for list in walk.taps[run.taps.clone()].chunks(MAX_TAPS) {
            let (mut sources, mut factors) = ([from; MAX_TAPS], [[0.0; BLOCK]; MAX_TAPS]);
            for ((source, factor), tap) in sources.iter_mut().zip(&mut factors).zip(list) {
                *source = &from[tap.from * samples..][..count];
                *factor = weights[tap.tap];
            }
            taps(&sources[..list.len()], &factors[..list.len()], to, add);
            add = true;
        }
    }
}

/// Adds one run's part of the weight gradient of one block.
fn run_gradient(walk: &Walk, run: &Run, x: &[Row], dy: &[Row], total: &mut [Row], samples: usize) {
    let count = run.len * samples;
    let dy = &dy[run.to * samples..][..count];
    for list in walk.taps[run.taps.clone()].chunks(MAX_TAPS) {
        for first in (0..count).step_by(GRADIENT_ROWS) {
            let dy = &dy[first..count.min(first + GRADIENT_ROWS)];
            let (mut sources, mut sums) = ([x; MAX_TAPS], [[0.0; BLOCK]; MAX_TAPS]);
            for (source, tap) in sources.iter_mut().zip(list) {
                *source = &x[tap.from * samples + first..][..dy.len()];
            }
            gradients(&sources[..list.len()], dy, &mut sums[..list.len()]);
            for (tap, sum) in list.iter().zip(sums) {
                for (total, sum) in total[tap.tap].iter_mut().zip(sum) {
                    *total += sum;
                }
            }
        }
    }
}
