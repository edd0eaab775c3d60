//! Depthwise convolution: every channel has its own kernel.

use fedper_core::params::Params;

use super::geometry::{Run, Walk, Window};
use super::weight::Bias;
use super::{Done, blocks};
use crate::kernel::buffer::Buffer;
use crate::kernel::depthwise::{MAX_TAPS, gradients, taps};
use crate::kernel::{BLOCK, Row, rows, rows_mut};
use crate::optim::{Parameter, Sink, of};

/// Rows of a weight gradient summed in one go.
const GRADIENT_ROWS: usize = 256;

pub(crate) struct Depthwise {
    /// `[block][tap][16]`.
    weight: Parameter,
    gradient: Buffer,
    bias: Option<Bias>,
    channels: usize,
    taps: usize,
    /// Input and output positions.
    positions: [usize; 2],
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
            positions: [window.input, window.output()].map(|[height, width]| height * width),
            forward: window.forward(),
            backward: window.backward(),
        }
    }

    /// Values of a plane of input and of output.
    fn planes(&self, samples: usize) -> [usize; 2] {
        self.positions.map(|positions| positions * samples * BLOCK)
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize, mut done: impl Done) {
        let [x_plane, y_plane] = self.planes(samples);
        let bias = self.bias.as_mut().map(Bias::refresh);
        let weights = rows(&self.weight.values).chunks_exact(self.taps);
        for (block, ((x, y), weights)) in
            x.chunks_exact(x_plane).zip(y.chunks_exact_mut(y_plane)).zip(weights).enumerate()
        {
            if let Some(bias) = bias {
                rows_mut(y).fill(rows(bias)[block]);
            }
            walk(&self.forward, rows(x), rows_mut(y), weights, samples, bias.is_some());
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
        let [x_plane, y_plane] = self.planes(samples);
        let weights = rows(&self.weight.values).chunks_exact(self.taps);
        for (block, ((dy, dx), weights)) in
            dy.chunks_exact(y_plane).zip(dx.chunks_exact_mut(x_plane)).zip(weights).enumerate()
        {
            walk(&self.backward, rows(dy), rows_mut(dx), weights, samples, add);
            done(block..block + 1, dx);
        }
    }

    pub(crate) fn weight_gradient(&mut self, x: &[f32], dy: &[f32], samples: usize, sink: &mut Sink<'_>) {
        let [x_plane, y_plane] = self.planes(samples);
        self.gradient.fill(0.0);
        let gradient = rows_mut(&mut self.gradient).chunks_exact_mut(self.taps);
        for ((x, dy), total) in x.chunks_exact(x_plane).zip(dy.chunks_exact(y_plane)).zip(gradient) {
            let (x, dy) = (rows(x), rows(dy));
            for run in &self.forward.runs {
                run_gradient(&self.forward, run, x, dy, total, samples);
            }
        }
        match sink {
            Sink::Step(sgd) => self.weight.step(sgd, 0, &self.gradient),
            Sink::Store(out) => {
                let out = of(out, &self.weight.name);
                each(self.channels, self.taps, |own, torch| out[torch] = self.gradient[own]);
            }
        }
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, sink);
        }
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.velocity.fill(0.0);
        self.bias.iter_mut().for_each(Bias::reset_velocity);
    }

    pub(crate) fn load(&mut self, params: &Params) {
        let from = params.get(&self.weight.name).expect("checked against the layout");
        let values = &mut self.weight.values;
        each(self.channels, self.taps, |own, torch| values[own] = from[torch]);
        self.bias.iter_mut().for_each(|bias| bias.load(params));
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
