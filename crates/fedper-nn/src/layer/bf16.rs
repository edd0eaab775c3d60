//! A convolution in bf16: operands are rounded into tiles of [`crate::kernel::bf16`] before they are multiplied.
//!
//! Forward, and for the input's gradient, a row of a left matrix is a position of a sample, and its depth the channels of
//! what is read through each tap. For the weights' gradient the depth is all positions of all samples: *lines* of
//! positions, one channel after the other, with zeros where a window reaches over the edge. Tap by tap, the same line is
//! read from another position on.

use std::ops::Range;

use super::conv::Conv;
use super::geometry::{Walk, Window};
use super::weight::{Bias, Panel, Weight};
use super::{Done, Extent, Scratch};
use crate::kernel::bf16::{DEPTH, Half, Kernel, Left, Outcome, Product, Right, Segment, TILE};
use crate::kernel::gemm::Start;
use crate::kernel::{BLOCK, rows};
use crate::optim::Sink;

/// What a convolution needs to compute in bf16.
#[derive(Clone, Copy)]
pub(super) struct Bf16 {
    kernel: &'static Kernel,
    lines: Lines,
}

/// How positions lie in lines: one for each row of inputs and each of its columns up to the stride, every `stride`th
/// column of it.
#[derive(Clone, Copy)]
struct Lines {
    window: Window,
    output: [usize; 2],
    /// The column of a line that its first position stands for, and the last one that any window begins at, both in
    /// strides from the left edge.
    first: isize,
    last: isize,
}

/// How the lines of one batch lie.
#[derive(Clone, Copy)]
struct Layout {
    /// From one channel to the next, and from one step to the next.
    distance: [usize; 2],
    /// Values of a line of all channels of a block.
    line: usize,
    /// Steps of a row of outputs.
    steps: usize,
    samples: usize,
}

impl Layout {
    /// Where a position of a line lies, which is a step's first one if tiles lie one after the other.
    fn at(&self, position: usize) -> usize {
        if self.distance[1] == TILE { position / DEPTH * TILE } else { position }
    }
}

impl Lines {
    fn new(window: &Window) -> Self {
        let mut window = *window;
        if window.taps() == 1 && window.stride == 1 && window.padding == 0 {
            window.input = [1, window.input[0] * window.input[1]];
        }
        let mut lines = Self { window, output: window.output(), first: 0, last: 0 };
        (lines.first, lines.last) = (lines.tap(0).1, lines.tap(window.kernel[1] - 1).1);
        lines
    }

    /// Which of a row's lines a column of the filter reads, and from where in it on.
    fn tap(&self, column: usize) -> (usize, isize) {
        let stride = self.window.stride as isize;
        let from = column as isize - self.window.padding as isize;
        (from.rem_euclid(stride) as usize, from.div_euclid(stride))
    }

    /// The row of inputs that a row of outputs reads through a row of the filter, unless it is padding.
    fn input_row(&self, output: usize, row: usize) -> Option<usize> {
        let Window { input, stride, padding, .. } = self.window;
        (output * stride + row).checked_sub(padding).filter(|&row| row < input[0])
    }

    fn layout(&self, samples: usize) -> Layout {
        let steps = (self.output[1] * samples).div_ceil(DEPTH);
        let shift = (self.last - self.first) as usize * samples;
        // A window's steps, and what filling the last step up writes.
        let len =
            (shift + steps * DEPTH).max((shift + self.output[1] * samples).next_multiple_of(DEPTH)) + DEPTH;
        let whole = shift == 0 && self.first == 0 && self.window.stride == 1;
        if samples.is_multiple_of(DEPTH) || whole {
            // Every column begins with a step, or there is but one window: tiles lie one after the other.
            return Layout {
                distance: [DEPTH, TILE],
                line: len.next_multiple_of(DEPTH) * BLOCK,
                steps,
                samples,
            };
        }
        // An odd number of cache lines, so that channels lie in different sets.
        let pitch = (len.div_ceil(DEPTH) | 1) * DEPTH;
        Layout { distance: [pitch, DEPTH], line: pitch * BLOCK, steps, samples }
    }

    /// Lines of a row of inputs.
    fn phases(&self) -> usize {
        self.window.stride.min(self.window.input[1])
    }

    /// Lines of a block.
    fn count(&self) -> usize {
        self.window.input[0] * self.phases()
    }

    fn parts(&self, layout: Layout, inputs: Extent, outputs: Extent) -> Parts {
        let [height, _] = self.output;
        if height == 1 {
            let step = (inputs.blocks + outputs.blocks) * TILE;
            return Parts { rows: 1, steps: (CACHED / step).max(MIN_STEPS) };
        }
        let row = inputs.blocks * self.phases() * layout.line;
        let around = (self.window.kernel[0] - 1) * row;
        let each = self.window.stride * row + outputs.blocks * layout.steps * TILE;
        let least = MIN_STEPS.div_ceil(layout.steps);
        Parts { rows: (CACHED.saturating_sub(around) / each).max(least), steps: layout.steps }
    }

    /// Writes the lines of one block.
    fn pack(&self, kernel: &Kernel, x: &[f32], samples: usize, to: &mut [Half]) {
        let Window { input: [height, width], stride, .. } = self.window;
        let layout = self.layout(samples);
        let x = rows(x);
        let phases = self.phases();
        for (i, to) in to.chunks_exact_mut(layout.line).take(height * phases).enumerate() {
            let (row, phase) = (i / phases, i % phases);
            // Columns `phase + stride * q` for q from `first` on.
            let columns = (width - phase).div_ceil(stride);
            let skipped = self.first.max(0) as usize;
            let mut at = (-self.first).max(0) as usize * samples;
            zero(to, layout, 0..at);
            let mut write = |x: &[super::super::kernel::Row]| {
                kernel.lines(x, &mut to[layout.at(at)..], layout.distance);
                at += x.len();
            };
            // No window reads further.
            let end = columns.min((self.last + self.output[1] as isize).max(0) as usize);
            let column = |q: usize| (row * width + phase + q * stride) * samples;
            match stride {
                1 if skipped < end => write(&x[column(skipped)..][..(end - skipped) * samples]),
                _ => (skipped..end).for_each(|q| write(&x[column(q)..][..samples])),
            }
            zero(
                to,
                layout,
                at.next_multiple_of(if layout.distance[1] == TILE { DEPTH } else { 1 })..layout.line / BLOCK,
            );
        }
    }
}

/// Zeros for some positions of a line.
fn zero(line: &mut [Half], layout: Layout, range: Range<usize>) {
    let [channel, step] = layout.distance;
    if step == TILE {
        line[range.start * BLOCK..range.end * BLOCK].fill(0);
    } else {
        line.chunks_exact_mut(channel).for_each(|line| line[range.clone()].fill(0));
    }
}

/// Terms of a sum that are listed at a time.
const MAX_SEGMENTS: usize = 64;

/// How many steps so many blocks are deep.
fn steps(blocks: usize) -> usize {
    blocks.div_ceil(DEPTH / BLOCK)
}

/// Rounded activations: rows of [`DEPTH`] channels.
fn activations_len(side: Extent, samples: usize) -> usize {
    // The last tile of rows may reach beyond the positions.
    steps(side.blocks) * (side.positions * samples * DEPTH + TILE)
}

fn pack_activations(kernel: &Kernel, side: Extent, x: &[f32], samples: usize, to: &mut [Half]) {
    let plane = side.positions * samples * DEPTH;
    for (step, to) in to.chunks_exact_mut(plane + TILE).take(steps(side.blocks)).enumerate() {
        let block = |block| (block < side.blocks).then(|| rows(&x[side.range(block, samples)]));
        let low = block(2 * step).expect("a step has a block");
        kernel.rows(low, block(2 * step + 1), &mut to[..plane]);
    }
}

impl Bf16 {
    pub(super) fn new(kernel: &'static Kernel, window: &Window) -> Self {
        Self { kernel, lines: Lines::new(window) }
    }

    pub(super) fn reserve(
        &self,
        scratch: &mut Scratch,
        weight: &Weight,
        [inputs, outputs]: [Extent; 2],
        max_batch: usize,
    ) {
        let left = activations_len(inputs, max_batch).max(activations_len(outputs, max_batch));
        let layout = self.lines.layout(max_batch);
        let lines = inputs.blocks * self.lines.count() * layout.line;
        let pairs = outputs.blocks * self.lines.output[0] * layout.steps * TILE;
        let panel =
            steps(inputs.blocks).max(steps(outputs.blocks)) * weight.taps * weight.panel_blocks() * TILE;
        scratch.reserve_halves(left.max(lines), panel.max(pairs));
        let parts = self.lines.parts(layout, inputs, outputs);
        let whole = parts.rows >= self.lines.output[0] && parts.steps >= layout.steps;
        let gradient = if whole { weight.panel_len() / weight.taps } else { weight.values().len() };
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
                    let to = &mut to[((tap * deep + step) * panel.blocks + block) * TILE..][..TILE];
                    self.kernel.pairs(&weight.values()[from + block * BLOCK..], width, count, to);
                    to[count / 2 * DEPTH..].fill(0);
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
                    let to = &mut to[((tap * deep + step) * inputs.blocks + i) * TILE..][..TILE];
                    self.kernel.turned(from(low), high.map(from), low.0.width(), to);
                }
            }
        }
    }

    /// As [`super::conv::walk_panel`], from rounded activations and weights.
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
        let deep = steps(from.blocks);
        let step = from.positions * samples * DEPTH + TILE;
        let (tap_len, plane) = (deep * panel.blocks * TILE, to.stride(samples));
        assert!(left.len() >= deep * step && y.len() >= to.len(samples) && panel.range().end <= to.blocks);
        let mut segments = [Segment::NONE; MAX_SEGMENTS];
        for run in &walk.runs {
            assert!(run.to + run.len <= to.positions);
            let mut rest = &walk.taps[run.taps.clone()];
            let mut start = start;
            loop {
                let (now, later) = rest.split_at(rest.len().min(MAX_SEGMENTS));
                for (segment, tap) in segments.iter_mut().zip(now) {
                    assert!(tap.from + run.len <= from.positions);
                    *segment = Segment {
                        a: left[tap.from * samples * DEPTH..].as_ptr(),
                        b: right[tap.tap * tap_len..][..tap_len].as_ptr(),
                    };
                }
                let product = Product {
                    segments: &segments[..now.len()],
                    steps: deep,
                    left: Left { row: DEPTH, tile: TILE, step },
                    right: Right { block: TILE, step: panel.blocks * TILE },
                    c: y[panel.first * plane + run.to * samples * BLOCK..].as_mut_ptr(),
                    outcome: Outcome { row: BLOCK, tile: BLOCK * BLOCK, block: plane },
                    start,
                };
                // SAFETY: the run's rows are among the positions of every plane (asserted above), behind the last of which
                // there is a tile more of `left`; a tap's weights are whole tiles; a start row is a panel of a padded bias.
                unsafe { self.kernel.product(&product, panel.blocks, run.len * samples) };
                if later.is_empty() {
                    break;
                }
                (rest, start) = (later, Start::Add);
            }
        }
    }
}

/// What the weights' gradient is a product of.
struct Operands<'a> {
    lines: Lines,
    layout: Layout,
    /// Values of a block's lines, and of a row of outputs' pairs in a block.
    block_len: usize,
    pairs_row: usize,
    left: &'a [Half],
    right: &'a [Half],
}

/// Some rows of outputs, or some steps of the only one.
struct Part {
    rows: Range<usize>,
    steps: Range<usize>,
}

/// How many rows of outputs, and steps of a row, are multiplied at a time: lines and pairs then stay in the second-level
/// cache while all weights pass over them.
#[derive(Clone, Copy)]
struct Parts {
    rows: usize,
    steps: usize,
}

/// Values of lines and pairs that should be in the cache.
const CACHED: usize = 384 << 10;
/// Fewer steps would not be worth reading and writing the gradient.
const MIN_STEPS: usize = 16;

impl Parts {
    fn of(self, rows: usize, steps: usize) -> impl Iterator<Item = Part> {
        (0..rows).step_by(self.rows).flat_map(move |row| {
            (0..steps).step_by(self.steps).map(move |step| Part {
                rows: row..rows.min(row + self.rows),
                steps: step..steps.min(step + self.steps),
            })
        })
    }
}

impl Operands<'_> {
    fn parts(&self, inputs: Extent, outputs: Extent) -> Parts {
        self.lines.parts(self.layout, inputs, outputs)
    }

    /// `gradient (+)=` what a part gives of a tap in a panel.
    fn add(
        &self,
        kernel: &Kernel,
        part: &Part,
        tap: usize,
        panel: Panel,
        start: Start,
        gradient: &mut [f32],
    ) {
        let &Self { lines, layout, block_len, pairs_row, left, right } = self;
        let [columns, phases] = [lines.window.kernel[1], lines.phases()];
        let (phase, shift) = lines.tap(tap % columns);
        let shift = layout.at((shift - lines.first) as usize * layout.samples);
        let blocks = gradient.len() / panel.width() / BLOCK;
        for block in (0..blocks).step_by(2) {
            let (mut segments, mut count, mut start) = ([Segment::NONE; MAX_SEGMENTS], 0, start);
            let mut add = |segments: &[Segment], start: Start| {
                let product = Product {
                    segments,
                    steps: part.steps.len(),
                    left: Left { row: layout.distance[0], tile: block_len, step: layout.distance[1] },
                    right: Right { block: lines.output[0] * pairs_row, step: TILE },
                    c: gradient[block * BLOCK * panel.width()..].as_mut_ptr(),
                    outcome: Outcome { row: panel.width(), tile: BLOCK * panel.width(), block: BLOCK },
                    start,
                };
                // SAFETY: a line is long enough for every window's steps, from its shift on, and so are rows of pairs; there
                // are as many blocks of both; the gradient is that of a tap.
                unsafe { kernel.product(&product, panel.blocks, (blocks - block).min(2) * BLOCK) };
            };
            for to in part.rows.clone() {
                let Some(from) = lines.input_row(to, tap / columns) else { continue };
                if count == MAX_SEGMENTS {
                    add(&segments, start);
                    (count, start) = (0, Start::Add);
                }
                let line = block * block_len + (from * phases + phase) * layout.line;
                let pairs = (panel.first * lines.output[0] + to) * pairs_row;
                segments[count] = Segment {
                    a: left[line + shift + part.steps.start * layout.distance[1]..].as_ptr(),
                    b: right[pairs + part.steps.start * TILE..].as_ptr(),
                };
                count += 1;
            }
            if count > 0 || !matches!(start, Start::Add) {
                add(&segments[..count], start);
            }
        }
    }
}

impl Conv {
    pub(super) fn forward_bf16(
        &mut self,
        own: Bf16,
        x: &[f32],
        y: &mut [f32],
        samples: usize,
        scratch: &mut Scratch,
        mut done: impl Done,
    ) {
        let bias = self.bias.as_mut().map(Bias::refresh);
        let [left, right] = &mut scratch.halves;
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

    pub(super) fn input_gradient_bf16(
        &self,
        own: Bf16,
        dy: &[f32],
        dx: &mut [f32],
        samples: usize,
        add: bool,
        scratch: &mut Scratch,
        mut done: impl Done,
    ) {
        let start = if add { Start::Add } else { Start::Zero };
        let [left, right] = &mut scratch.halves;
        let _ready = own.kernel.ready();
        pack_activations(own.kernel, self.outputs, dy, samples, left);
        let stride = self.inputs.stride(samples);
        for panel in self.weight.input_panels() {
            own.pack_turned(&self.weight, panel, &self.alive, right);
            let sides = [self.outputs, self.inputs];
            own.walk_panel(&self.backward, sides, left, right, dx, samples, panel, start);
            done(panel.range(), &mut dx[panel.first * stride..][..panel.blocks * stride]);
        }
    }

    pub(super) fn weight_gradient_bf16(
        &mut self,
        own: Bf16,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        let Bf16 { kernel, lines } = own;
        let layout = lines.layout(samples);
        let [height, width] = lines.output;
        let (row, pairs_row) = (width * samples, layout.steps * TILE);
        let Scratch { halves: [left, right], gradient, .. } = scratch;
        let block_len = lines.count() * layout.line;
        for block in 0..self.inputs.blocks {
            lines.pack(
                kernel,
                &x[self.inputs.range(block, samples)],
                samples,
                &mut left[block * block_len..],
            );
        }
        let outputs = self.outputs;
        for (i, to) in right.chunks_exact_mut(pairs_row).take(outputs.blocks * height).enumerate() {
            let from = &dy[outputs.range(i / height, samples)][i % height * row * BLOCK..][..row * BLOCK];
            kernel.pairs(from, BLOCK, row, to);
            to[row.div_ceil(2) * DEPTH..].fill(0);
        }
        let _ready = kernel.ready();
        let operands = Operands { lines, layout, block_len, pairs_row, left, right };
        let (parts, taps, rows) =
            (operands.parts(self.inputs, self.outputs), self.weight.taps, self.weight.rows);
        if parts.rows >= height && parts.steps >= layout.steps {
            let whole = Part { rows: 0..height, steps: 0..layout.steps };
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
            for part in parts.of(height, layout.steps) {
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
        self.bias_gradient(dy, samples, sink);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernels, bf16};
    use crate::layer::testing::Case;
    use crate::testing::noise;
    use crate::{InstructionSet, Precision};
    use fedper_core::params::Params;

    #[test]
    fn convolutions_match_plain_loops_of_rounded_operands() {
        let window = |input, kernel, stride, padding| Window { input, kernel, stride, padding };
        for (window, channels, groups, samples) in [
            (window([1, 1], [3, 3], 1, 1), [20, 40], 1, 32),
            (window([4, 4], [3, 3], 1, 1), [32, 32], 1, 32),
            (window([4, 5], [3, 3], 1, 1), [70, 17], 1, 3),
            (window([7, 5], [3, 3], 2, 1), [17, 33], 1, 5),
            (window([8, 6], [3, 3], 2, 1), [16, 48], 1, 64),
            (window([6, 6], [1, 1], 1, 0), [64, 16], 1, 7),
            (window([5, 4], [1, 1], 2, 0), [16, 64], 1, 33),
            (window([9, 7], [5, 5], 1, 0), [33, 20], 1, 10),
            (window([2, 9], [3, 5], 3, 2), [6, 9], 3, 4),
            (window([3, 3], [2, 2], 4, 0), [8, 8], 2, 2),
            (window([70, 2], [1, 3], 1, 3), [4, 4], 1, 1),
            // More than is multiplied at a time.
            (window([40, 40], [3, 3], 1, 1), [32, 17], 1, 8),
            (window([24, 20], [1, 1], 1, 0), [64, 48], 1, 14),
        ] {
            let case = Case::new(window, channels, groups, samples, bf16::rounded);
            let [_, outputs] = case.sides;
            for set in InstructionSet::available() {
                let kernels = Kernels::of(set, Precision::Bf16);
                let mut conv = Conv::new("w", &window, channels, groups, true, kernels);
                conv.load(&case.params);
                let mut scratch = Scratch::default();
                // A batch smaller than there is memory for, after one that used it all.
                conv.reserve(&mut scratch, samples + 1, true);
                for halves in &mut scratch.halves {
                    halves.fill(0x7fc0);
                }
                let what = format!("{set} {window:?} {channels:?} {samples}");

                let mut found = noise(outputs.len(samples), 6);
                let mut blocks = 0;
                conv.forward(&case.x, &mut found, samples, &mut scratch, |range, part| {
                    assert_eq!((range.start, part.len()), (blocks, range.len() * outputs.stride(samples)));
                    blocks = range.end;
                });
                assert_eq!(blocks, outputs.blocks);
                case.check_output(&found, 3e-6, &what);

                let mut found = case.before.clone();
                conv.input_gradient(&case.dy, &mut found, samples, true, &mut scratch, |_, _| {});
                case.check_input_gradient(&found, 3e-6, &what);

                let layout = case.layout().clone();
                let mut out = Params::from_values(layout.clone(), noise(layout.numel(), 7)).unwrap();
                let mut sink = Sink::Store(&mut out);
                conv.weight_gradient(&case.x, &case.dy, samples, &mut scratch, &mut sink);
                case.check_gradients(&out, 3e-6, &what);
            }
        }
    }
}
