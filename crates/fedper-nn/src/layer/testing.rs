//! Convolutions by plain loops, for the tests of those that are not, and passes of a layer outside a network.

use std::sync::Arc;

use fedper_core::params::{Layout, Params, Spec};

use super::geometry::Window;
use super::{Backward, Done, Extent, Forward, InputGradients, Inputs, Mode, Pass, Scratch, Slot, Target};
use crate::kernel::BLOCK;
use crate::kernel::buffer::Buffer;
use crate::parameter::{Array, Parameters, Sink};
use crate::testing::noise;

/// A train-mode forward pass from `x`, by whatever `run` calls.
pub(super) fn forward(
    x: (&[f32], Extent),
    y: &mut [f32],
    samples: usize,
    scratch: &mut Scratch,
    done: Done<'_>,
    run: impl FnOnce(Forward<'_>),
) {
    let reads = [Slot { number: Slot::INPUT, extent: x.1 }];
    let inputs = Inputs { images: x.0, slots: &[], reads: &reads, samples };
    run(Forward { inputs, y, pass: Pass { samples, mode: Mode::Train }, scratch, done });
}

/// The backward pass after that, which keeps the parameters' gradients. If `dx` is asked for, the gradient of `x` is added to
/// what is there.
pub(super) fn backward(
    x: (&[f32], Extent),
    dy: &[f32],
    dx: Option<&mut Vec<f32>>,
    samples: usize,
    scratch: &mut Scratch,
    run: impl FnOnce(Backward<'_>),
) {
    let reads = [Slot { number: Slot::INPUT, extent: x.1 }];
    let written = [Slot { number: 1, extent: x.1 }];
    let mut buffers = [Buffer::zeros(x.1.len(samples))];
    let target = Target { buffer: dx.is_some().then_some(0), add: true, then: None };
    if let Some(dx) = &dx {
        buffers[0].copy_from_slice(dx);
    }
    run(Backward {
        inputs: Inputs { images: x.0, slots: &[], reads: &reads, samples },
        z: &[],
        dy: &mut dy.to_vec(),
        gradients: InputGradients {
            reads: &written,
            targets: &[target],
            buffers: &mut buffers,
            unread: 0,
            samples,
        },
        pass: Pass { samples, mode: Mode::Train },
        scratch,
        sink: Sink::Keep,
        done: &mut |_, _| {},
    });
    if let Some(dx) = dx {
        dx.copy_from_slice(&buffers[0]);
    }
}

/// Loads what a layer or a part of one has.
pub(super) fn load(into: &mut impl Parameters, params: &Params) {
    into.parameters_mut(&mut |parameter| parameter.load(params, Array::Values));
}

/// The gradients that it has kept; what they do not reach is noise.
pub(super) fn gradients(of: &impl Parameters, layout: &Arc<Layout>) -> Params {
    let mut out = Params::from_values(layout.clone(), noise(layout.numel(), 7)).unwrap();
    of.parameters(&mut |parameter| parameter.store_gradient(&mut out));
    out
}

/// A convolution of one size and what it computes.
pub(super) struct Case {
    pub(super) window: Window,
    pub(super) channels: [usize; 2],
    pub(super) samples: usize,
    pub(super) sides: [Extent; 2],
    pub(super) x: Vec<f32>,
    pub(super) dy: Vec<f32>,
    /// Weight `w.weight` and bias `w.bias`.
    pub(super) params: Params,
    /// What the input's gradient is added to.
    pub(super) before: Vec<f32>,
    /// Output, the input's gradient, and those of weight and bias, as in `params`.
    pub(super) expected: [Vec<f64>; 3],
}

impl Case {
    /// With operands rounded by `round`.
    pub(super) fn new(
        window: Window,
        channels: [usize; 2],
        groups: usize,
        samples: usize,
        round: impl Fn(f32) -> f32,
    ) -> Self {
        let sides = [Extent::new(channels[0], window.input), Extent::new(channels[1], window.output())];
        let layout = Layout::new(vec![
            Spec::trainable("w.weight", [channels[1], channels[0] / groups, window.taps()]),
            Spec::trainable("w.bias", [channels[1]]),
        ])
        .unwrap();
        let params = Params::from_values(layout.clone(), noise(layout.numel(), 3)).unwrap();
        let mut case = Self {
            window,
            channels,
            samples,
            sides,
            x: activations(sides[0], channels[0], samples, 1),
            dy: activations(sides[1], channels[1], samples, 2),
            before: activations(sides[0], channels[0], samples, 5),
            expected: [vec![0.0; sides[1].len(samples)], vec![], vec![0.0; layout.numel()]],
            params,
        };
        let (weight, bias) = (case.params.at(0), case.params.at(1));
        let [mut y, _, mut gradients] = std::mem::take(&mut case.expected);
        let mut dx: Vec<f64> = case.before.iter().map(|&value| value.into()).collect();
        for (channel, &bias) in bias.iter().enumerate() {
            for at in case.channel(sides[1], channel) {
                y[at] = bias.into();
                gradients[weight.len() + channel] += f64::from(case.dy[at]);
            }
        }
        case.products(groups, |x_at, w_at, y_at| {
            let [x, w, dy] = [case.x[x_at], weight[w_at], case.dy[y_at]].map(|value| f64::from(round(value)));
            y[y_at] += x * w;
            dx[x_at] += dy * w;
            gradients[w_at] += x * dy;
        });
        case.expected = [y, dx, gradients];
        case
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        self.params.layout()
    }

    /// Where the values of a channel lie.
    fn channel(&self, side: Extent, channel: usize) -> impl Iterator<Item = usize> + use<> {
        side.range(channel / BLOCK, self.samples).skip(channel % BLOCK).step_by(BLOCK)
    }

    /// Calls `visit` with where each product's input, weight (as in PyTorch) and output lie.
    fn products(&self, groups: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let at = |side: Extent, channel: usize, position: usize, sample: usize| {
            let row = position * self.samples + sample;
            channel / BLOCK * side.stride(self.samples) + row * BLOCK + channel % BLOCK
        };
        let [ins, outs] = self.channels.map(|channels| channels / groups);
        let walk = self.window.forward();
        for run in &walk.runs {
            for (i, tap) in (0..run.len).flat_map(|i| walk.taps[run.taps.clone()].iter().map(move |t| (i, t)))
            {
                for sample in 0..self.samples {
                    for (o, c) in (0..self.channels[1]).flat_map(|o| (0..ins).map(move |c| (o, c))) {
                        let w = (o * ins + c) * self.window.taps() + tap.tap;
                        let input = at(self.sides[0], o / outs * ins + c, tap.from + i, sample);
                        visit(input, w, at(self.sides[1], o, run.to + i, sample));
                    }
                }
            }
        }
    }

    /// Compares an output.
    pub(super) fn check_output(&self, found: &[f32], tolerance: f64, what: &str) {
        self.check(self.sides[1], found, &self.expected[0], tolerance, &format!("{what}: output"));
    }

    /// Compares an input's gradient, added to [`Case::before`].
    pub(super) fn check_input_gradient(&self, found: &[f32], tolerance: f64, what: &str) {
        self.check(self.sides[0], found, &self.expected[1], tolerance, &format!("{what}: input gradient"));
    }

    /// Compares the gradients of weight and bias.
    pub(super) fn check_gradients(&self, found: &Params, tolerance: f64, what: &str) {
        let mut expected = &self.expected[2][..];
        for (position, spec) in self.layout().specs().iter().enumerate() {
            let (these, rest) = expected.split_at(found.at(position).len());
            close(found.at(position), these, tolerance, &format!("{what}: {}", spec.name));
            expected = rest;
        }
    }

    fn check(&self, side: Extent, found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
        let (mut values, mut exact) = (Vec::new(), Vec::new());
        for block in 0..side.blocks {
            let plane = side.range(block, self.samples);
            values.extend_from_slice(&found[plane.clone()]);
            exact.extend_from_slice(&expected[plane]);
        }
        close(&values, &exact, tolerance, what);
    }
}

/// What fills up the last block is zero.
fn activations(side: Extent, channels: usize, samples: usize, seed: u64) -> Vec<f32> {
    let mut values = noise(side.len(samples), seed);
    for channel in channels..side.blocks * BLOCK {
        let plane = side.range(channel / BLOCK, samples);
        values[plane].iter_mut().skip(channel % BLOCK).step_by(BLOCK).for_each(|v| *v = 0.0);
    }
    values
}

fn close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let scale = expected.iter().fold(1e-3f64, |max, value| max.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (f64::from(*found) - expected).abs() < tolerance * scale,
            "{what}: {found} is not {expected}"
        );
    }
}
