//! Depthwise convolution: every channel has its own kernel.

use super::geometry::{Run, Walk, Window};
use super::weight::Bias;
use super::{Backward, Extent, Forward, InputGradient, Layer, Scratch};
use crate::kernel::buffer::Buffer;
use crate::kernel::depthwise::{MAX_TAPS, gradients, taps};
use crate::kernel::{BLOCK, Row, blocks, rows, rows_mut};
use crate::parameter::{Order, Parameter, parameters};

/// Rows of a weight gradient summed in one go.
const GRADIENT_ROWS: usize = 256;

pub(crate) struct Depthwise {
    /// `[block][tap][16]`.
    weight: Parameter,
    gradient: Buffer,
    bias: Option<Bias>,
    taps: usize,
    inputs: Extent,
    outputs: Extent,
    forward: Walk,
    backward: Walk,
}

parameters!(Depthwise: weight, bias);

impl Depthwise {
    /// # Shapes
    /// Input and output `channels`, at the window's input and output positions.
    pub(crate) fn new(name: &str, window: &Window, channels: usize, bias: bool) -> Self {
        let taps = window.taps();
        let len = blocks(channels) * taps * BLOCK;
        Self {
            weight: Parameter::new(format!("{name}.weight"), len, Order::Lanes { channels, taps }),
            gradient: Buffer::zeros(len),
            bias: bias.then(|| Bias::new(format!("{name}.bias"), channels)),
            taps,
            inputs: Extent::new(channels, window.input),
            outputs: Extent::new(channels, window.output()),
            forward: window.forward(),
            backward: window.backward(),
        }
    }
}

impl Layer for Depthwise {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
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

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, dy, mut gradients, pass, sink, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        if let Some(InputGradient { values: dx, add }) = gradients.of(0) {
            for (block, weights) in rows(&self.weight.values).chunks_exact(self.taps).enumerate() {
                let dy = rows(&dy[self.outputs.range(block, samples)]);
                let dx = &mut dx[self.inputs.range(block, samples)];
                walk(&self.backward, dy, rows_mut(dx), weights, samples, add);
                done(block..block + 1, dx);
            }
        }
        self.gradient.fill(0.0);
        for (block, total) in rows_mut(&mut self.gradient).chunks_exact_mut(self.taps).enumerate() {
            let x = rows(&x[self.inputs.range(block, samples)]);
            let dy = rows(&dy[self.outputs.range(block, samples)]);
            for run in &self.forward.runs {
                run_gradient(&self.forward, run, x, dy, total, samples);
            }
        }
        self.weight.take(0, &self.gradient, sink);
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, self.outputs, samples, sink);
        }
    }

    fn in_place(&self) -> Option<usize> {
        None
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
