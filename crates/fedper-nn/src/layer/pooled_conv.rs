//! A convolution with the activation and the 2x2 max-pool that follow it, as one layer, for the sake of its backward pass:
//! at most one of four positions has a gradient, in each channel another one. Those are listed, and only they are
//! multiplied: a quarter of the work and less where the activation stops gradients.

use std::ops::Range;

use super::conv::Conv;
use super::geometry::Window;
use super::pooled_stem::is_2x2;
use super::weight::Panel;
use super::{Extent, Scratch, blocks};
use crate::arch::Op;
use crate::kernel::elementwise::Activation;
use crate::kernel::pool::max_of_four;
use crate::kernel::sparse::{Entry, Gather, Scatter, gather, is_known_width, scatter};
use crate::kernel::transpose::transpose;
use crate::kernel::{BLOCK, rows};
use crate::optim::Sink;

/// Values of the input that should stay in the first-level cache while lists are walked.
const CACHED: usize = 10 << 10;
/// Weights with which lists still pay: their gradient is added to once for every few samples.
const MAX_WEIGHTS: usize = 256 << 10;
/// Positions of a window.
const POSITIONS: usize = 4;

pub(crate) struct PooledConv {
    pub(crate) conv: Conv,
    pub(crate) activation: Activation,
    window: Window,
    pooled: Extent,
    /// Height and width of what is pooled to.
    side: [usize; 2],
    /// The position of its window that each output came from.
    winner: Vec<u8>,
    /// Samples whose gradients are listed at a time.
    group: usize,
    lists: Lists,
}

/// Lists of equal capacity.
#[derive(Default)]
struct Lists {
    entries: Vec<Entry>,
    lens: Vec<usize>,
    capacity: usize,
}

impl Lists {
    /// Begins `count` empty lists.
    fn begin(&mut self, count: usize, capacity: usize) {
        assert!(count * capacity <= self.entries.len());
        self.capacity = capacity;
        self.lens[..count].fill(0);
    }

    /// Appends a value unless it is 0.
    #[inline(always)]
    fn push(&mut self, list: usize, at: usize, value: f32) {
        let len = &mut self.lens[list];
        // Written in any case: a branch would be mispredicted. A list is never longer than what is appended to it.
        self.entries[list * self.capacity + *len] = Entry { at: at as u32, value };
        *len += usize::from(value != 0.0);
    }

    fn get(&self, list: usize) -> &[Entry] {
        &self.entries[list * self.capacity..][..self.lens[list]]
    }
}

impl PooledConv {
    /// Whether a convolution with this window and the operation after its activation are such a layer, and lists pay.
    pub(crate) fn fits(window: &Window, channels: [usize; 2], groups: usize, pool: &Op) -> bool {
        let weights = channels.map(|channels| blocks(channels) * BLOCK).iter().product::<usize>() * window.taps();
        window.stride == 1
            && window.padding == 0
            && groups == 1
            && is_known_width(window.kernel[1])
            && window.input[0] * window.input[1] * BLOCK <= CACHED
            && weights <= MAX_WEIGHTS
            && window.output().into_iter().all(|extent| extent > 1)
            && is_2x2(pool)
    }

    pub(crate) fn new(conv: Conv, window: &Window, activation: Activation, channels: usize, max_batch: usize) -> Self {
        let side = window.output().map(|extent| extent / 2);
        let pooled = Extent::new(channels, side);
        let group = (CACHED / (conv.inputs.positions * BLOCK)).clamp(1, max_batch);
        let windows = group * pooled.positions;
        let entry = Entry::default();
        Self {
            conv,
            activation,
            window: *window,
            pooled,
            side,
            winner: vec![0; pooled.capacity(max_batch)],
            group,
            lists: Lists {
                entries: vec![entry; windows * POSITIONS * pooled.blocks * BLOCK],
                lens: vec![0; (windows * POSITIONS).max(pooled.blocks * BLOCK)],
                capacity: 0,
            },
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch, max_batch: usize) {
        let weights = self.conv.weight.values().len();
        scratch.reserve(weights, weights);
        scratch.reserve_pooled(self.conv.outputs.capacity(max_batch), self.conv.inputs.capacity(max_batch));
    }

    /// # Shapes
    /// `y` is what the pool leaves.
    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize, scratch: &mut Scratch) {
        let outputs = self.conv.outputs;
        let (row, width, range) = (samples * BLOCK, self.window.output()[1], self.activation.range());
        let (pooled, winner, side) = (self.pooled, &mut self.winner, self.side);
        let full = &mut scratch.outputs[..outputs.len(samples)];
        self.conv.forward(x, full, samples, |blocks, part| {
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

    /// Calls `visit` with the window, its sample in the group, the channel, the position and the gradient of each output
    /// of some samples, in a fixed order.
    #[inline(always)]
    fn visit(
        &self,
        dy: &[f32],
        samples: usize,
        group: Range<usize>,
        mut visit: impl FnMut(usize, usize, usize, usize, f32),
    ) {
        for window in 0..self.pooled.positions {
            for (i, sample) in group.clone().enumerate() {
                for block in 0..self.pooled.blocks {
                    let at = self.pooled.range(block, samples).start + (window * samples + sample) * BLOCK;
                    let outputs = dy[at..at + BLOCK].iter().zip(&self.winner[at..at + BLOCK]);
                    for (lane, (&value, &winner)) in outputs.enumerate() {
                        visit(window, i, block * BLOCK + lane, usize::from(winner), value);
                    }
                }
            }
        }
    }

    /// The input position of the upper left tap for the position `which` of a window.
    fn corner(&self, window: usize, which: usize) -> usize {
        let (top, left) = (window / self.side[1] * 2 + which / 2, window % self.side[1] * 2 + which % 2);
        top * self.window.input[1] + left
    }

    fn input_gradient(&mut self, dy: &[f32], dx: &mut [f32], samples: usize, add: bool, scratch: &mut Scratch) {
        let mut lists = std::mem::take(&mut self.lists);
        let inputs = self.conv.inputs;
        let ([height, width], plane) = (self.window.kernel, inputs.stride(samples));
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
            let len = group.len();
            lists.begin(self.pooled.positions * len * POSITIONS, channels);
            self.visit(dy, samples, group.clone(), |window, i, channel, which, value| {
                lists.push((window * len + i) * POSITIONS + which, channel, value);
            });
            for panel in self.conv.weight.input_panels() {
                let weights = &scratch.transposed[transposed(panel)];
                for (kh, weights) in weights.chunks_exact(weights.len() / height).enumerate() {
                    for list in 0..self.pooled.positions * len * POSITIONS {
                        let (window, sample) = (list / POSITIONS / len, first + list / POSITIONS % len);
                        let entries = lists.get(list);
                        if entries.is_empty() {
                            continue;
                        }
                        let position = self.corner(window, list % POSITIONS) + kh * self.window.input[1];
                        let at = panel.first * plane + position * row + sample * BLOCK;
                        let (step, blocks) = (row, panel.blocks);
                        let dx = &mut dx[at..];
                        scatter(&mut Scatter { entries, weights, filter_width: width, blocks, dx, step, plane });
                    }
                }
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
                        let from = panel.start + (tap * weight.rows + input * BLOCK) * panel.width() + o * BLOCK;
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
                for (to, from) in to.chunks_exact_mut(BLOCK).zip(from[sample..].iter().step_by(samples)) {
                    to.copy_from_slice(from);
                }
            }
        }
        // By output channel, then block of inputs, then tap.
        let len = taps * BLOCK;
        let by_channel = &mut transposed[..channels * inputs.blocks * len];
        for first in (0..samples).step_by(self.group) {
            let group = first..samples.min(first + self.group);
            lists.begin(channels, group.len() * self.pooled.positions);
            self.visit(dy, samples, group.clone(), |window, i, channel, which, value| {
                lists.push(channel, i * image + self.corner(window, which) * BLOCK, value);
            });
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
