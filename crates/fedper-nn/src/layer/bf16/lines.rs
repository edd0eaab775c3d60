//! The weights' gradient of a convolution: activations as lines of positions, and what they are multiplied with.

use std::ops::Range;

use super::{Extent, MAX_SEGMENTS, Panel, Window};
use crate::kernel::bf16::{DEPTH, Half, Kernel, Left, Outcome, Product, Right, Segment, TILE};
use crate::kernel::gemm::Start;
use crate::kernel::{BLOCK, Row, rows};

/// How positions lie in lines: one for each row of inputs and each of its columns up to the stride, every `stride`th
/// column of it.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    pub(super) window: Window,
    pub(super) output: [usize; 2],
    /// Of a value.
    parts: usize,
    /// The column that a line's first position stands for, at the edge or before it, and the last one that the first window of
    /// a row begins at, both in strides.
    pub(super) first: isize,
    pub(super) last: isize,
}

/// How the lines of one batch lie.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// From one channel to the next, one step to the next, and one part to the next.
    pub(super) distance: [usize; 3],
    /// Values of a line of all channels of a block.
    pub(super) line: usize,
    /// Steps of a row of outputs.
    pub(super) steps: usize,
    /// From one column to the next: samples, perhaps filled up.
    pub(super) column: usize,
}

impl Layout {
    /// Where a position of a line lies, which is a step's first one if tiles lie one after the other.
    fn at(&self, position: usize) -> usize {
        if self.in_tiles() { position / DEPTH * self.distance[1] } else { position }
    }

    fn in_tiles(&self) -> bool {
        self.distance[1] != DEPTH
    }
}

impl Lines {
    pub(super) fn new(window: &Window, parts: usize) -> Self {
        let mut window = *window;
        if window.taps() == 1 && window.stride == 1 && window.padding == 0 {
            window.input = [1, window.input[0] * window.input[1]];
        }
        let mut lines = Self { window, output: window.output(), parts, first: 0, last: 0 };
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

    /// Whether every tap reads a row from its first column on.
    fn is_whole(&self) -> bool {
        self.first == 0 && self.last == 0 && self.window.stride == 1
    }

    /// From one column to the next: so many samples, or, unless half of them would be zeros, as many as fill steps, so that
    /// a window begins with a step wherever it lies: tiles that do not begin with a cache line take several times as long.
    fn column(&self, samples: usize) -> usize {
        let whole_steps = samples.next_multiple_of(DEPTH);
        if self.is_whole() || 2 * samples <= whole_steps { samples } else { whole_steps }
    }

    /// How far a row's windows reach beyond one another, and steps of a row of outputs.
    fn reach(&self, samples: usize) -> (usize, usize) {
        let column = self.column(samples);
        ((self.last - self.first) as usize * column, (self.output[1] * column).div_ceil(DEPTH))
    }

    /// Steps of a line: a window's, and what filling the last one up writes.
    fn line_steps(&self, samples: usize) -> usize {
        let (shift, steps) = self.reach(samples);
        (shift + steps * DEPTH).div_ceil(DEPTH) + 1
    }

    pub(super) fn layout(&self, samples: usize) -> Layout {
        let (_, steps) = self.reach(samples);
        let (line_steps, column) = (self.line_steps(samples), self.column(samples));
        if column.is_multiple_of(DEPTH) || self.is_whole() {
            // Every column begins with a step, or there is but one window: tiles lie one after the other.
            let tile = self.parts * TILE;
            return Layout { distance: [DEPTH, tile, TILE], line: line_steps * tile, steps, column };
        }
        // An odd number of cache lines, so that channels lie in different sets.
        let pitch = (line_steps | 1) * DEPTH;
        let channel = self.parts * pitch;
        Layout { distance: [channel, DEPTH, pitch], line: channel * BLOCK, steps, column }
    }

    /// A layout that needs at least the memory of any batch up to this one. A smaller batch's own may need more than this
    /// one's own.
    pub(super) fn largest(&self, max_batch: usize) -> Layout {
        Layout { line: (self.line_steps(max_batch) | 1) * self.parts * TILE, ..self.layout(max_batch) }
    }

    /// Lines of a row of inputs.
    fn phases(&self) -> usize {
        self.window.stride.min(self.window.input[1])
    }

    /// Lines of a block.
    pub(super) fn count(&self) -> usize {
        self.window.input[0] * self.phases()
    }

    /// Parts that stay in the second-level cache, with lines and pairs, while all weights pass over them.
    pub(super) fn parts(&self, layout: Layout, inputs: Extent, outputs: Extent) -> Parts {
        let all = [self.output[0], layout.steps];
        if all[0] == 1 {
            let step = (inputs.blocks + outputs.blocks) * self.parts * TILE;
            return Parts { all, each: [1, (CACHED / step).max(MIN_STEPS)] };
        }
        let row = inputs.blocks * self.phases() * layout.line;
        let around = (self.window.kernel[0] - 1) * row;
        let each = self.window.stride * row + outputs.blocks * layout.steps * self.parts * TILE;
        let least = MIN_STEPS.div_ceil(layout.steps);
        Parts { all, each: [(CACHED.saturating_sub(around) / each).max(least), layout.steps] }
    }

    /// Writes the lines of one block.
    pub(super) fn pack(&self, kernel: &Kernel, x: &[f32], samples: usize, to: &mut [Half]) {
        let Window { input: [height, width], stride, .. } = self.window;
        let layout = self.layout(samples);
        let x = rows(x);
        let phases = self.phases();
        assert!(to.len() >= height * phases * layout.line);
        for (i, to) in to.chunks_exact_mut(layout.line).take(height * phases).enumerate() {
            let (row, phase) = (i / phases, i % phases);
            // Columns `phase + stride * q` for q from `first` on.
            let columns = (width - phase).div_ceil(stride);
            let mut at = -self.first as usize * layout.column;
            zero(to, layout, 0..at);
            let mut write = |x: &[Row]| {
                kernel.lines(x, &mut to[layout.at(at)..], layout.distance);
                at += x.len() / samples * layout.column;
            };
            // No window reads further.
            let end = columns.min((self.last + self.output[1] as isize) as usize);
            let column = |q: usize| (row * width + phase + q * stride) * samples;
            match stride {
                1 if layout.column == samples => write(&x[column(0)..][..end * samples]),
                _ => (0..end).for_each(|q| write(&x[column(q)..][..samples])),
            }
            // The last step that was written is filled up already.
            let at = if layout.in_tiles() { at.next_multiple_of(DEPTH) } else { at };
            zero(to, layout, at..layout.line / (self.parts * BLOCK));
        }
    }
}

/// Zeros for some positions of a line.
fn zero(line: &mut [Half], layout: Layout, range: Range<usize>) {
    let [_, step, part] = layout.distance;
    if layout.in_tiles() {
        line[range.start / DEPTH * step..range.end / DEPTH * step].fill(0);
    } else {
        line.chunks_exact_mut(part).for_each(|line| line[range.clone()].fill(0));
    }
}

/// What the weights' gradient is a product of.
pub(super) struct Operands<'a> {
    pub(super) lines: Lines,
    pub(super) layout: Layout,
    /// Values of a block's lines, and of a row of outputs' pairs in a block.
    pub(super) block_len: usize,
    pub(super) pairs_row: usize,
    pub(super) left: &'a [Half],
    pub(super) right: &'a [Half],
}

/// Some rows of outputs, or some steps of the only one.
pub(super) struct Part {
    rows: Range<usize>,
    steps: Range<usize>,
}

/// What is multiplied at a time.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// Rows of outputs, and steps of a row.
    all: [usize; 2],
    each: [usize; 2],
}

/// Values of lines and pairs that should be in the cache.
const CACHED: usize = 384 << 10;
/// Fewer steps would not be worth reading and writing the gradient.
const MIN_STEPS: usize = 16;

impl Parts {
    /// The only one, if there is only one.
    pub(super) fn whole(&self) -> Option<Part> {
        let is_whole = self.each.iter().zip(self.all).all(|(&each, all)| each >= all);
        is_whole.then(|| Part { rows: 0..self.all[0], steps: 0..self.all[1] })
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Part> {
        let Self { all, each } = self;
        (0..all[0]).step_by(each[0]).flat_map(move |row| {
            (0..all[1]).step_by(each[1]).map(move |step| Part {
                rows: row..all[0].min(row + each[0]),
                steps: step..all[1].min(step + each[1]),
            })
        })
    }
}

impl Operands<'_> {
    /// `gradient (+)=` what a part gives of a tap in a panel.
    pub(super) fn add(
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
        let shift = layout.at((shift - lines.first) as usize * layout.column);
        let blocks = gradient.len() / panel.width() / BLOCK;
        assert!(left.len() >= blocks * block_len);
        assert!(right.len() >= panel.range().end * lines.output[0] * pairs_row);
        for block in (0..blocks).step_by(2) {
            let (mut segments, mut count, mut start) = ([Segment::NONE; MAX_SEGMENTS], 0, start);
            let mut add = |segments: &[Segment], start: Start| {
                let product = Product {
                    segments,
                    steps: part.steps.len(),
                    left: Left {
                        row: layout.distance[0],
                        tile: block_len,
                        step: layout.distance[1],
                        part: layout.distance[2],
                    },
                    right: Right { block: lines.output[0] * pairs_row, step: lines.parts * TILE },
                    c: gradient[block * BLOCK * panel.width()..].as_mut_ptr(),
                    outcome: Outcome { row: panel.width(), tile: BLOCK * panel.width(), block: BLOCK },
                    start,
                };
                // SAFETY: a line is long enough for every window's steps, from its shift on, and so are rows of pairs; there
                // are as many blocks of both; the gradient is that of a tap.
                unsafe { kernel.product(&product, panel.blocks, (blocks - block).min(2) * BLOCK) };
            };
            for to in part.rows.clone() {
                // What lies in a column that there is not is padding in every window.
                let Some(from) = lines.input_row(to, tap / columns).filter(|_| phase < phases) else {
                    continue;
                };
                if count == MAX_SEGMENTS {
                    add(&segments, start);
                    (count, start) = (0, Start::Add);
                }
                let line = block * block_len + (from * phases + phase) * layout.line;
                let pairs = (panel.first * lines.output[0] + to) * pairs_row;
                segments[count] = Segment {
                    a: left[line + shift + part.steps.start * layout.distance[1]..].as_ptr(),
                    b: right[pairs + part.steps.start * lines.parts * TILE..].as_ptr(),
                };
                count += 1;
            }
            if count > 0 || !matches!(start, Start::Add) {
                add(&segments[..count], start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_needs_more_than_the_largest() {
        let window = |input, kernel, stride, padding| Window { input, kernel, stride, padding };
        for window in [
            window([1, 1], [3, 3], 1, 1),
            window([8, 8], [3, 3], 1, 1),
            window([9, 7], [3, 3], 2, 1),
            window([56, 56], [3, 3], 1, 1),
            window([4, 4], [1, 1], 1, 0),
            window([8, 8], [1, 1], 2, 0),
        ] {
            let [inputs, outputs] = [window.input, window.output()].map(|side| Extent::new(64, side));
            for (parts, max_batch) in
                [1, 3].into_iter().flat_map(|parts| (1..100).map(move |max| (parts, max)))
            {
                let lines = Lines::new(&window, parts);
                let largest = lines.largest(max_batch);
                let whole = lines.parts(largest, inputs, outputs).whole().is_some();
                for samples in 1..=max_batch {
                    let layout = lines.layout(samples);
                    let what = format!("{window:?}, {samples} of {max_batch}");
                    assert!(layout.line <= largest.line && layout.steps <= largest.steps, "{what}");
                    let is_whole = lines.parts(layout, inputs, outputs).whole().is_some();
                    assert!(is_whole || !whole, "{what}: memory for a part of the gradient only");
                }
            }
        }
    }
}
