//! A convolution in bf16: operands are packed into tiles of [`crate::kernel::bf16`] before they are multiplied, rounded, or
//! in three parts whose products are as exact as f32's.
//!
//! Forward, and for the input's gradient, a row of a left matrix is a position of a sample, and its depth the channels of
//! what is read through each tap. For the weights' gradient the depth is all positions of all samples: *lines* of
//! positions, one channel after the other, with zeros where a window reaches over the edge. Tap by tap, the same line is
//! read from another position on.

mod lines;
pub(crate) mod stem;

use super::conv::Conv;
use super::geometry::{Walk, Window};
use super::weight::{Bias, Weight};
use super::{Backward, Extent, Forward, InputGradient, Scratch};
use crate::kernel::bf16::{DEPTH, Half, Kernel, Left, Outcome, Product, Right, Segment, TILE};
use crate::kernel::gemm::Start;
use crate::kernel::{BLOCK, rows};
use crate::parameter::{Panel, Sink};
use lines::{Lines, Operands};

/// What a convolution needs to multiply in bf16.
#[derive(Clone, Copy)]
pub(super) struct Bf16 {
    kernel: &'static Kernel,
    lines: Lines,
}

/// Rows that are packed at a time: whole steps.
const AT_ONCE: usize = 16 * DEPTH;

/// Terms of a sum that are listed at a time.
const MAX_SEGMENTS: usize = 64;

/// How many steps so many blocks are deep.
fn steps(blocks: usize) -> usize {
    blocks.div_ceil(DEPTH / BLOCK)
}

/// Packed activations: from one step of channels to the next. A row is [`DEPTH`] channels, part by part.
fn step_len(kernel: &Kernel, side: Extent, samples: usize) -> usize {
    // The last tile of rows may reach beyond the positions.
    kernel.parts * (side.positions * samples * DEPTH + TILE)
}

fn pack_activations(kernel: &Kernel, side: Extent, x: &[f32], samples: usize, to: &mut [Half]) {
    let plane = kernel.parts * side.positions * samples * DEPTH;
    let to = to.chunks_exact_mut(step_len(kernel, side, samples));
    for (step, to) in to.take(steps(side.blocks)).enumerate() {
        let block = |block| (block < side.blocks).then(|| rows(&x[side.range(block, samples)]));
        let low = block(2 * step).expect("a step has a block");
        kernel.rows(low, block(2 * step + 1), &mut to[..plane]);
    }
}

impl Bf16 {
    pub(super) fn new(kernel: &'static Kernel, window: &Window) -> Self {
        Self { kernel, lines: Lines::new(window, kernel.parts) }
    }

    /// Values of a packed tile.
    fn tile(&self) -> usize {
        self.kernel.parts * TILE
    }

    pub(super) fn reserve(
        &self,
        scratch: &mut Scratch,
        weight: &Weight,
        [inputs, outputs]: [Extent; 2],
        max_batch: usize,
    ) {
        let [left, right] =
            [inputs, outputs].map(|side| steps(side.blocks) * step_len(self.kernel, side, max_batch));
        let layout = self.lines.largest(max_batch);
        let lines = inputs.blocks * self.lines.count() * layout.line;
        let pairs = outputs.blocks * self.lines.output[0] * layout.steps * self.tile();
        let panel = steps(inputs.blocks).max(steps(outputs.blocks))
            * weight.taps
            * weight.panel_blocks()
            * self.tile();
        scratch.reserve_halves([left.max(right).max(lines), panel, pairs]);
        let gradient = match self.lines.parts(layout, inputs, outputs).whole() {
            Some(_) => weight.panel_len() / weight.taps,
            None => weight.values().len(),
        };
        scratch.reserve(gradient, 0);
    }

    /// The weights of one panel of outputs as right tiles, `[tap][step][block][tile]`.
    fn pack_weights(&self, weight: &Weight, panel: Panel, alive: &[bool], to: &mut [Half]) {
        let (deep, width) = (steps(weight.rows / BLOCK), panel.width());
        for tap in (0..weight.taps).filter(|&tap| alive[tap]) {
            for step in 0..deep {
                let count = DEPTH.min(weight.rows - step * DEPTH);
                let from = panel.start + (tap * weight.rows + step * DEPTH) * width;
                for block in 0..panel.blocks {
                    let at = ((tap * deep + step) * panel.blocks + block) * self.tile();
                    let to = &mut to[at..][..self.tile()];
                    self.kernel.pairs(&weight.values()[from + block * BLOCK..], width, count, to);
                }
            }
        }
    }

    /// The same for one panel of inputs.
    fn pack_turned(&self, weight: &Weight, inputs: Panel, alive: &[bool], to: &mut [Half]) {
        let panels = || weight.panels().flat_map(|panel| panel.range().map(move |block| (panel, block)));
        let deep = steps(panels().count());
        let mut blocks = panels();
        for step in 0..deep {
            let (low, high) = (blocks.next().expect("a step has a block"), blocks.next());
            for tap in (0..weight.taps).filter(|&tap| alive[tap]) {
                for (i, input) in inputs.range().enumerate() {
                    let from = |(panel, block): (Panel, usize)| {
                        let row = (tap * weight.rows + input * BLOCK) * panel.width();
                        &weight.values()[panel.start + row + (block - panel.first) * BLOCK..]
                    };
                    let at = ((tap * deep + step) * inputs.blocks + i) * self.tile();
                    let to = &mut to[at..][..self.tile()];
                    // The same of the next tap.
                    let ahead = weight.rows * low.0.width();
                    self.kernel.turned(from(low), high.map(from), low.0.width(), ahead, to);
                }
            }
        }
    }

    /// Packs an output's gradient twice: to pairs for the weights' gradient, and, unless nobody asks for it, to what the
    /// input's gradient is a product of. A little at a time, so that the second finds it in the cache.
    fn pack_gradient(
        &self,
        side: Extent,
        dy: &[f32],
        samples: usize,
        mut left: Option<&mut [Half]>,
        pairs: &mut [Half],
    ) {
        let ([height, width], layout) = (self.lines.output, self.lines.layout(samples));
        let (row, pairs_row) = (width * samples, layout.steps * self.tile());
        // Column by column where columns are filled up.
        let at_once = if layout.column == samples { AT_ONCE } else { samples };
        let position = |row: usize| row / samples * layout.column + row % samples;
        let (parts, plane) = (self.kernel.parts, step_len(self.kernel, side, samples));
        for step in 0..steps(side.blocks) {
            let blocks = 2 * step..side.blocks.min(2 * step + 2);
            for (top, first) in (0..height).flat_map(|top| (0..row).step_by(at_once).map(move |i| (top, i))) {
                let count = at_once.min(row - first);
                let part = |block: usize| {
                    &dy[side.range(block, samples)][(top * row + first) * BLOCK..][..count * BLOCK]
                };
                if let Some(left) = &mut left {
                    let to = &mut left[step * plane + (top * row + first) * parts * DEPTH..];
                    let to = &mut to[..count * parts * DEPTH];
                    let high = (blocks.len() == 2).then(|| rows(part(blocks.end - 1)));
                    self.kernel.rows(rows(part(blocks.start)), high, to);
                }
                for block in blocks.clone() {
                    let to = (block * height + top) * pairs_row + position(first) * parts * BLOCK;
                    let to = &mut pairs[to..][..count.div_ceil(DEPTH) * self.tile()];
                    self.kernel.pairs(part(block), BLOCK, count, to);
                }
            }
        }
    }

    /// As [`super::conv::walk_panel`], from packed activations and weights.
    #[allow(clippy::too_many_arguments, reason = "what a layer's pass touches")]
    fn walk_panel(
        &self,
        walk: &Walk,
        [from, to]: [Extent; 2],
        left: &[Half],
        right: &[Half],
        y: &mut [f32],
        samples: usize,
        panel: Panel,
        start: Start,
    ) {
        let (deep, row) = (steps(from.blocks), self.kernel.parts * DEPTH);
        let step = step_len(self.kernel, from, samples);
        let (tap_len, plane) = (deep * panel.blocks * self.tile(), to.stride(samples));
        assert!(left.len() >= deep * step && y.len() >= to.len(samples) && panel.range().end <= to.blocks);
        let mut segments = [Segment::NONE; MAX_SEGMENTS];
        for (run, taps, start) in walk.sums(MAX_SEGMENTS, start) {
            assert!(run.to + run.len <= to.positions);
            for (segment, tap) in segments.iter_mut().zip(taps) {
                assert!(tap.from + run.len <= from.positions);
                *segment = Segment {
                    a: left[tap.from * samples * row..].as_ptr(),
                    b: right[tap.tap * tap_len..][..tap_len].as_ptr(),
                };
            }
            let product = Product {
                segments: &segments[..taps.len()],
                steps: deep,
                left: Left { row, tile: BLOCK * row, step, part: DEPTH },
                right: Right { block: self.tile(), step: panel.blocks * self.tile() },
                c: y[panel.first * plane + run.to * samples * BLOCK..].as_mut_ptr(),
                outcome: Outcome { row: BLOCK, tile: BLOCK * BLOCK, block: plane },
                start,
            };
            // SAFETY: the run's rows are among the positions of every plane (asserted above), behind the last of which there
            // is a tile more of `left`; a tap's weights are whole tiles; a start row is a panel of a padded bias.
            unsafe { self.kernel.product(&product, panel.blocks, run.len * samples) };
        }
    }
}

impl Conv {
    pub(super) fn forward_bf16(&mut self, own: Bf16, pass: Forward<'_>) {
        let Forward { inputs, y, pass, scratch, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        let bias = self.bias.as_mut().map(Bias::refresh);
        let [left, right, _] = &mut scratch.halves;
        let _ready = own.kernel.ready();
        pack_activations(own.kernel, self.inputs, x, samples, left);
        let stride = self.outputs.stride(samples);
        for panel in self.weight.panels() {
            let start = match bias {
                Some(bias) => Start::Row(bias[panel.first * BLOCK..][..panel.width()].as_ptr()),
                None => Start::Zero,
            };
            own.pack_weights(&self.weight, panel, &self.alive, right);
            let sides = [self.inputs, self.outputs];
            own.walk_panel(&self.forward, sides, left, right, y, samples, panel, start);
            done(panel.range(), &mut y[panel.first * stride..][..panel.blocks * stride]);
        }
    }

    pub(super) fn backward_bf16(&mut self, own: Bf16, pass: Backward<'_>) {
        let Backward { inputs, dy, mut gradients, pass, scratch, sink, done, .. } = pass;
        let (x, samples, dx) = (inputs.of(0), pass.samples, gradients.of(0));
        let [left, right, pairs] = &mut scratch.halves;
        let _ready = own.kernel.ready();
        own.pack_gradient(self.outputs, dy, samples, dx.is_some().then_some(&mut left[..]), pairs);
        if let Some(InputGradient { values: dx, add }) = dx {
            let start = if add { Start::Add } else { Start::Zero };
            let stride = self.inputs.stride(samples);
            for panel in self.weight.input_panels() {
                own.pack_turned(&self.weight, panel, &self.alive, right);
                let sides = [self.outputs, self.inputs];
                own.walk_panel(&self.backward, sides, left, right, dx, samples, panel, start);
                done(panel.range(), &mut dx[panel.first * stride..][..panel.blocks * stride]);
            }
        }
        self.weight_gradient_bf16(own, x, samples, scratch, sink);
        self.bias_gradient(dy, samples, sink);
    }

    /// The weights' gradient, after [`Bf16::pack_gradient`].
    fn weight_gradient_bf16(
        &mut self,
        own: Bf16,
        x: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: Sink<'_>,
    ) {
        let Bf16 { kernel, lines } = own;
        let layout = lines.layout(samples);
        let pairs_row = layout.steps * own.tile();
        let Scratch { halves: [left, _, right], gradient, .. } = scratch;
        let block_len = lines.count() * layout.line;
        for block in 0..self.inputs.blocks {
            let x = &x[self.inputs.range(block, samples)];
            lines.pack(kernel, x, samples, &mut left[block * block_len..]);
        }
        let operands = Operands { lines, layout, block_len, pairs_row, left, right };
        let parts = lines.parts(layout, self.inputs, self.outputs);
        let (taps, rows) = (self.weight.taps, self.weight.rows);
        if let Some(whole) = parts.whole() {
            for panel in self.weight.panels() {
                for tap in 0..taps {
                    if self.weight.leaves(self.alive[tap], sink) {
                        continue;
                    }
                    let gradient = &mut gradient[..rows * panel.width()];
                    operands.add(kernel, &whole, tap, panel, Start::Zero, gradient);
                    self.weight.take(panel, tap..tap + 1, gradient, &self.alive, sink);
                }
            }
        } else {
            let tap_of = |panel: Panel, tap: usize| {
                let len = rows * panel.width();
                panel.start + tap * len..panel.start + (tap + 1) * len
            };
            let mut start = Start::Zero;
            for part in parts.iter() {
                for panel in self.weight.panels() {
                    for tap in 0..taps {
                        let gradient = &mut gradient[tap_of(panel, tap)];
                        operands.add(kernel, &part, tap, panel, start, gradient);
                    }
                }
                start = Start::Add;
            }
            for panel in self.weight.panels() {
                let gradient = &mut gradient[panel.start..][..taps * rows * panel.width()];
                self.weight.take(panel, 0..taps, gradient, &self.alive, sink);
            }
        }
    }
}

#[cfg(test)]
mod tests;
