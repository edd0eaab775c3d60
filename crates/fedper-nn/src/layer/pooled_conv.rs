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
use crate::kernel::pool::max_of_four;
use crate::kernel::sparse::{Entry, Gather, Scatter, gather, is_known_width, scatter, take_rows};
use crate::kernel::transpose::transpose;
use crate::kernel::{BLOCK, rows, rows_mut};
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

/// Lists of equal capacity, one after the other.
#[derive(Default)]
struct Lists {
    entries: Vec<Entry>,
    lens: Vec<usize>,
    capacity: usize,
}

impl Lists {
    /// Begins empty lists.
    fn begin(&mut self, count: usize, capacity: usize) {
        assert!(count * capacity <= self.entries.len());
        self.capacity = capacity;
        self.lens[..count].fill(0);
    }

    fn get(&self, list: usize) -> &[Entry] {
        &self.entries[list * self.capacity..][..self.lens[list]]
    }
}

/// Appends a value to a list unless it is 0. It is written in any case, as a branch would be mispredicted; that stays within
/// a list that has room for every value there is.
#[inline(always)]
fn append(entries: &mut [Entry], start: usize, len: &mut usize, at: usize, value: f32) {
    entries[start + *len] = Entry { at: at as u32, value };
    *len += usize::from(value != 0.0);
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

    /// The gradients of the outputs of one window in one sample and block, and which positions they belong to.
    #[inline(always)]
    fn outputs<'a>(
        &'a self,
        dy: &'a [f32],
        samples: usize,
        [window, sample, block]: [usize; 3],
    ) -> impl Iterator<Item = (f32, usize)> + use<'a> {
        let at = block * self.pooled.stride(samples) + (window * samples + sample) * BLOCK;
        let winners = self.winner[at..at + BLOCK].iter();
        // Every winner is one of four; so the compiler knows.
        dy[at..at + BLOCK]
            .iter()
            .zip(winners)
            .map(|(&value, &winner)| (value, usize::from(winner) % POSITIONS))
    }

    /// The input positions of the upper left tap for the positions of a window.
    fn corners(&self, window: usize) -> [usize; POSITIONS] {
        let (top, left, width) = (window / self.side[1] * 2, window % self.side[1] * 2, self.window.input[1]);
        [0, 1, width, width + 1].map(|step| top * width + left + step)
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
            lists.begin(self.pooled.positions * group.len() * POSITIONS, channels);
            let Lists { entries, lens, .. } = &mut lists;
            let (fours, _) = lens.as_chunks_mut::<POSITIONS>();
            let places =
                (0..self.pooled.positions).flat_map(|window| group.clone().map(move |n| (window, n)));
            let entries = entries.chunks_exact_mut(POSITIONS * channels);
            for (((window, sample), lens), entries) in places.zip(fours).zip(entries) {
                for block in 0..self.pooled.blocks {
                    let outputs = self.outputs(dy, samples, [window, sample, block]);
                    for (lane, (value, which)) in outputs.enumerate() {
                        let channel = block * BLOCK + lane;
                        append(entries, which * channels, &mut lens[which], channel, value);
                    }
                }
            }
            for panel in self.conv.weight.input_panels() {
                let weights = &scratch.transposed[transposed(panel)];
                for (kh, weights) in weights.chunks_exact(weights.len() / height).enumerate() {
                    let mut list = 0;
                    for window in 0..self.pooled.positions {
                        let corners = self.corners(window).map(|corner| corner + kh * self.window.input[1]);
                        for sample in group.clone() {
                            for corner in corners {
                                let entries = lists.get(list);
                                list += 1;
                                if entries.is_empty() {
                                    continue;
                                }
                                let dx = &mut dx[panel.first * plane + corner * row + sample * BLOCK..];
                                let (filter_width, blocks, step) = (width, panel.blocks, row);
                                let mut row =
                                    Scatter { entries, weights, filter_width, blocks, dx, step, plane };
                                scatter(&mut row);
                            }
                        }
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
            lists.begin(channels, group.len() * self.pooled.positions);
            let Lists { entries, lens, capacity } = &mut lists;
            for window in 0..self.pooled.positions {
                let corners = self.corners(window);
                for (i, sample) in group.clone().enumerate() {
                    let places = corners.map(|corner| i * image + corner * BLOCK);
                    for (block, lens) in lens[..channels].chunks_exact_mut(BLOCK).enumerate() {
                        let outputs = self.outputs(dy, samples, [window, sample, block]);
                        for (lane, ((value, which), len)) in outputs.zip(lens).enumerate() {
                            let start = (block * BLOCK + lane) * *capacity;
                            append(entries, start, len, places[which], value);
                        }
                    }
                }
            }
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
