//! A convolution with the activation and the 2x2 max-pool that follow it, as one layer, for the sake of its backward pass:
//! at most one of four positions has a gradient, in each channel another one. Those are listed, and only they are
//! multiplied: a quarter of the work and less where the activation stops gradients.

use super::conv::Conv;
use super::geometry::Window;
use super::pooled_stem::is_2x2;
use super::weight::Panel;
use super::{Extent, Scratch, blocks};
use crate::arch::Op;
use crate::kernel::elementwise::Activation;
use crate::kernel::lists::{Lists, Places, Pooled, list_by_channel, list_by_position};
use crate::kernel::pool::max_of_four;
use crate::kernel::sparse::{Gather, Scatter, gather, is_known_width, scatter, take_rows};
use crate::kernel::transpose::transpose;
use crate::kernel::window::POSITIONS;
use crate::kernel::{BLOCK, rows, rows_mut};
use crate::optim::Sink;

/// Values of the input that should stay in the first-level cache while lists are walked.
const CACHED: usize = 10 << 10;
/// Weights with which lists still pay: their gradient is added to once for every few samples.
const MAX_WEIGHTS: usize = 256 << 10;

pub(crate) struct PooledConv {
    pub(crate) conv: Conv,
    pub(crate) activation: Activation,
    window: Window,
    pooled: Extent,
    /// Height and width of what is pooled to.
    side: [usize; 2],
    /// The position of its window that each output came from.
    winner: Vec<u8>,
    /// The number of the input where each window begins.
    corners: Vec<usize>,
    /// Samples whose gradients are listed at a time.
    group: usize,
    lists: Lists,
}

impl PooledConv {
    /// Whether a convolution with this window and the operation after its activation are such a layer, and lists pay.
    pub(crate) fn fits(window: &Window, channels: [usize; 2], groups: usize, pool: &Op) -> bool {
        let weights =
            channels.map(|channels| blocks(channels) * BLOCK).iter().product::<usize>() * window.taps();
        window.stride == 1
            && window.padding == 0
            && groups == 1
            && is_known_width(window.kernel[1])
            && window.input[0] * window.input[1] * BLOCK <= CACHED
            && weights <= MAX_WEIGHTS
            && window.output().into_iter().all(|extent| extent > 1)
            && is_2x2(pool)
    }

    pub(crate) fn new(
        conv: Conv,
        window: &Window,
        activation: Activation,
        channels: usize,
        max_batch: usize,
    ) -> Self {
        let side = window.output().map(|extent| extent / 2);
        let pooled = Extent::new(channels, side);
        let group = (CACHED / (conv.inputs.positions * BLOCK)).clamp(1, max_batch);
        let windows = group * pooled.positions;
        let mut lists = Lists::default();
        let channels = pooled.blocks * BLOCK;
        lists.reserve((windows * POSITIONS).max(channels), windows * channels);
        let corner = |i| i / side[1] * 2 * window.input[1] + i % side[1] * 2;
        Self {
            conv,
            activation,
            window: *window,
            pooled,
            side,
            winner: vec![0; pooled.capacity(max_batch)],
            corners: (0..pooled.positions).map(corner).collect(),
            group,
            lists,
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch, max_batch: usize) {
        let weights = self.conv.weight.values().len();
        self.conv.reserve(scratch, max_batch, false);
        scratch.reserve(weights, weights);
        scratch.reserve_pooled(self.conv.outputs.capacity(max_batch), self.conv.inputs.capacity(max_batch));
    }

    /// # Shapes
    /// `y` is what the pool leaves.
    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize, scratch: &mut Scratch) {
        let outputs = self.conv.outputs;
        let (row, width, range) = (samples * BLOCK, self.window.output()[1], self.activation.range());
        let (pooled, winner, side) = (self.pooled, &mut self.winner, self.side);
        let mut full = std::mem::take(&mut scratch.outputs);
        self.conv.forward(x, &mut full[..outputs.len(samples)], samples, scratch, |blocks, part| {
            for (i, block) in blocks.enumerate() {
                let from = &part[outputs.range(i, samples)];
                let at = pooled.range(block, samples);
                let to = y[at.clone()].chunks_exact_mut(row).zip(winner[at].chunks_exact_mut(row));
                for (position, (to, winner)) in to.enumerate() {
                    let corner = position / side[1] * 2 * width + position % side[1] * 2;
                    let four = [0, 1, width, width + 1].map(|step| &from[(corner + step) * row..][..row]);
                    max_of_four(four, to, winner, range);
                }
            }
        });
        scratch.outputs = full;
    }

    /// The backward pass of the last [`PooledConv::forward`]: `dx (+)=` the gradient of the input, then that of the
    /// weights.
    ///
    /// # Shapes
    /// `dy` is the gradient of what the pool left, already stopped by the activation.
    #[allow(clippy::too_many_arguments, reason = "what a layer's backward pass touches")]
    pub(crate) fn backward(
        &mut self,
        x: &[f32],
        dy: &[f32],
        dx: Option<&mut [f32]>,
        samples: usize,
        add: bool,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        // The weights change as soon as their gradient is known.
        if let Some(dx) = dx {
            self.input_gradient(dy, dx, samples, add, scratch);
        }
        self.weight_gradient(x, dy, samples, scratch, sink);
        if let Some(bias) = &mut self.conv.bias {
            bias.backward(dy, self.pooled, samples, sink);
        }
    }

    /// The gradient of what the pool left, with where it came from.
    fn pooled<'a>(&'a self, dy: &'a [f32], samples: usize) -> Pooled<'a> {
        let (plane, blocks) = (self.pooled.stride(samples), self.pooled.blocks);
        Pooled { dy, winner: &self.winner, plane, blocks, windows: self.pooled.positions, samples }
    }

    fn input_gradient(
        &mut self,
        dy: &[f32],
        dx: &mut [f32],
        samples: usize,
        add: bool,
        scratch: &mut Scratch,
    ) {
        let mut lists = std::mem::take(&mut self.lists);
        let inputs = self.conv.inputs;
        let plane = inputs.stride(samples);
        let (channels, row) = (self.pooled.blocks * BLOCK, samples * BLOCK);
        if !add {
            dx.fill(0.0);
        }
        let taps = self.window.taps();
        let transposed = |panel: Panel| {
            let start = panel.first * BLOCK * taps * channels;
            start..start + panel.width() * taps * channels
        };
        for panel in self.conv.weight.input_panels() {
            self.transpose_weights(panel, &mut scratch.transposed[transposed(panel)]);
        }
        for first in (0..samples).step_by(self.group) {
            let group = first..samples.min(first + self.group);
            list_by_position(&self.pooled(dy, samples), group.clone(), &mut lists);
            for panel in self.conv.weight.input_panels() {
                scatter(&mut Scatter {
                    lists: &lists,
                    corners: &self.corners,
                    samples: group.len(),
                    weights: &scratch.transposed[transposed(panel)],
                    filter: self.window.kernel,
                    outputs: channels,
                    blocks: panel.blocks,
                    dx: &mut dx[panel.first * plane + first * BLOCK..],
                    line: self.window.input[1],
                    step: row,
                    plane,
                });
            }
        }
        self.lists = lists;
    }

    /// The weights of a panel of inputs as [`Scatter`] reads them: `[filter height][output][filter width][panel width]`.
    fn transpose_weights(&self, inputs: Panel, to: &mut [f32]) {
        let weight = &self.conv.weight;
        let ([_, kw], channels, width) = (self.window.kernel, self.pooled.blocks * BLOCK, inputs.width());
        for panel in weight.panels() {
            for tap in 0..weight.taps {
                for (i, input) in inputs.range().enumerate() {
                    for (o, output) in panel.range().enumerate() {
                        let from =
                            panel.start + (tap * weight.rows + input * BLOCK) * panel.width() + o * BLOCK;
                        let at = ((tap / kw * channels + output * BLOCK) * kw + tap % kw) * width + i * BLOCK;
                        transpose(&weight.values()[from..], panel.width(), &mut to[at..], kw * width);
                    }
                }
            }
        }
    }

    fn weight_gradient(
        &mut self,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        let mut lists = std::mem::take(&mut self.lists);
        let (inputs, taps) = (self.conv.inputs, self.window.taps());
        let image = inputs.positions * BLOCK;
        let channels = self.pooled.blocks * BLOCK;
        let Scratch { gradient, transposed, inputs: images, .. } = scratch;
        // Every sample's own image, so that neighbouring inputs are neighbours.
        for block in 0..inputs.blocks {
            let from = rows(&x[inputs.range(block, samples)]);
            let to = &mut images[block * samples * image..][..samples * image];
            for (sample, to) in to.chunks_exact_mut(image).enumerate() {
                take_rows(&from[sample..], samples, rows_mut(to));
            }
        }
        // By output channel, then block of inputs, then tap.
        let len = taps * BLOCK;
        let by_channel = &mut transposed[..channels * inputs.blocks * len];
        for first in (0..samples).step_by(self.group) {
            let group = first..samples.min(first + self.group);
            let places = Places { corners: &self.corners, line: self.window.input[1], image };
            list_by_channel(&self.pooled(dy, samples), group.clone(), places, &mut lists);
            for block in 0..inputs.blocks {
                let x = &images[(block * samples + first) * image..][..group.len() * image];
                for channel in 0..channels {
                    let dw = &mut by_channel[(channel * inputs.blocks + block) * len..][..len];
                    let (line, filter) = (self.window.input[1] * BLOCK, self.window.kernel);
                    let entries = lists.get(channel);
                    gather(&mut Gather { entries, x, line, filter, dw }, first > 0);
                }
            }
        }
        self.lists = lists;
        let weight = &mut self.conv.weight;
        for panel in weight.panels() {
            let gradient = &mut gradient[..taps * weight.rows * panel.width()];
            for (o, output) in panel.range().enumerate() {
                for input in 0..inputs.blocks {
                    for tap in 0..taps {
                        let from = (output * BLOCK * inputs.blocks + input) * len + tap * BLOCK;
                        let to = (tap * weight.rows + input * BLOCK) * panel.width() + o * BLOCK;
                        let stride = inputs.blocks * len;
                        transpose(&by_channel[from..], stride, &mut gradient[to..], panel.width());
                    }
                }
            }
            weight.take(panel, 0..taps, gradient, &self.conv.alive, sink);
        }
    }
}
