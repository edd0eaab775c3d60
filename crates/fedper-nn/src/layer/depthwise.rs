//! Depthwise convolution: every channel has its own kernel.

use fedper_core::params::Params;

use super::Scratch;
use super::conv::Bias;
use super::geometry::{Link, Walk, Window};
use super::weight::Weight;
use crate::kernel::depthwise::{Tap, tap_gradient, taps};
use crate::optim::Sink;

/// Taps that one pass adds up.
const MAX_TAPS: usize = 32;
/// Rows of a weight gradient summed in f32 before the sum is added to the total.
const GRADIENT_ROWS: usize = 512;

pub(crate) struct Depthwise {
    /// `[tap][channel]`: one group with one input channel and one panel as wide as there are channels.
    weight: Weight,
    bias: Option<Bias>,
    channels: usize,
    forward: Walk,
    backward: Walk,
    links: Vec<Link>,
}

impl Depthwise {
    /// # Shapes
    /// Input `[positions][batch][channels]`, output `[positions'][batch][channels]`.
    pub(crate) fn new(name: &str, window: &Window, channels: usize, bias: bool) -> Self {
        let weight = Weight::new(format!("{name}.weight"), 1, channels, 1, window.taps(), channels);
        Self {
            bias: bias.then(|| Bias::new(format!("{name}.bias"), &weight)),
            weight,
            channels,
            forward: window.forward(),
            backward: window.backward(),
            links: window.links(),
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch) {
        scratch.reserve(self.weight.panel_len(), 0, 0);
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize) {
        if let Some(bias) = &mut self.bias {
            let bias = bias.refresh(&self.weight);
            for row in y.chunks_exact_mut(self.channels) {
                row.copy_from_slice(bias);
            }
        }
        walk(&self.forward, x, y, self.weight.values(), self.channels, samples, self.bias.is_some());
    }

    /// `dx (+)=` the gradient of the input.
    pub(crate) fn input_gradient(&self, dy: &[f32], dx: &mut [f32], samples: usize, add: bool) {
        walk(&self.backward, dy, dx, self.weight.values(), self.channels, samples, add);
    }

    pub(crate) fn weight_gradient(
        &mut self,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        let row = samples * self.channels;
        let gradient = &mut scratch.gradient[..self.weight.panel_len()];
        gradient.fill(0.0);
        for link in &self.links {
            let x = &x[link.x * row..][..link.len * row];
            let dy = &dy[link.y * row..][..link.len * row];
            let gradient = &mut gradient[link.tap * self.channels..][..self.channels];
            let step = GRADIENT_ROWS * self.channels;
            for (x, dy) in x.chunks(step).zip(dy.chunks(step)) {
                tap_gradient(x, dy, gradient);
            }
        }
        self.weight.take(0, 0, gradient, sink);
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, sink);
        }
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.reset_velocity();
        self.bias.iter_mut().for_each(Bias::reset_velocity);
    }

    pub(crate) fn load(&mut self, params: &Params) {
        self.weight.load(params);
        self.bias.iter_mut().for_each(|bias| bias.load(params));
    }

    pub(crate) fn store(&self, params: &mut Params) {
        self.weight.store(params);
        self.bias.iter().for_each(|bias| bias.store(params));
    }
}

fn walk(
    walk: &Walk,
    from: &[f32],
    to: &mut [f32],
    weights: &[f32],
    channels: usize,
    samples: usize,
    add: bool,
) {
    let position = samples * channels;
    let mut list = [Tap { from: 0, weight: 0 }; MAX_TAPS];
    for run in &walk.runs {
        let to = &mut to[run.to * position..][..run.len * position];
        let mut rest = &walk.taps[run.taps.clone()];
        let mut add = add;
        loop {
            let (now, later) = rest.split_at(rest.len().min(MAX_TAPS));
            for (to, tap) in list.iter_mut().zip(now) {
                *to = Tap { from: tap.from * position, weight: tap.tap };
            }
            taps(from, weights, channels, &list[..now.len()], to, add);
            if later.is_empty() {
                break;
            }
            (rest, add) = (later, true);
        }
    }
}
