//! The gradients of a convolution whose output gradient is zero at most positions, as it is before a max-pool: for each
//! channel, the few positions that won. They are kept in lists, and each entry costs one multiply-add a weight.

use super::simd::Simd;
use super::{BLOCK, Row, vectorised, versions};

/// A value of the output gradient that is not zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// What it is multiplied with.
    pub(crate) at: u32,
    pub(crate) value: f32,
}

/// Whether there are kernels for filters of this width.
pub(crate) fn is_known_width(width: usize) -> bool {
    matches!(width, 3 | 5)
}

/// The largest place that entries name.
#[inline(always)]
fn last(entries: &[Entry]) -> usize {
    entries.iter().fold(0, |last, entry| last.max(entry.at)) as usize
}

/// One row of a filter in a position's part of the input gradient.
#[derive(Debug)]
pub(crate) struct Scatter<'a> {
    /// The output channels that have a gradient at a position, by number.
    pub(crate) entries: &'a [Entry],
    /// `[output][filter width][panel width]`
    pub(crate) weights: &'a [f32],
    pub(crate) filter_width: usize,
    /// Blocks of a panel of inputs: 1 or 2.
    pub(crate) blocks: usize,
    /// The gradient of the leftmost input, from the panel's first block on.
    pub(crate) dx: &'a mut [f32],
    /// From one input to its neighbour, and from one block to the next.
    pub(crate) step: usize,
    pub(crate) plane: usize,
}

vectorised! {
    /// `dx[k][i] += sum over entries of value * weights[at][k][i]`, k along the filter's row.
    pub(crate) fn scatter<S>(p: &mut Scatter<'_>) {
        let (row, blocks) = (p.filter_width * p.blocks * BLOCK, p.blocks);
        let outputs = p.weights.len() / row;
        assert!(p.entries.is_empty() || last(p.entries) < outputs);
        assert!(p.dx.len() >= (p.filter_width - 1) * p.step + (blocks - 1) * p.plane + BLOCK);
        match (p.filter_width, p.blocks) {
            (3, 1) => scatter_row::<S, 3, 1>(p),
            (3, 2) => scatter_row::<S, 3, 2>(p),
            (5, 1) => scatter_row::<S, 5, 1>(p),
            (5, 2) => scatter_row::<S, 5, 2>(p),
            _ => unreachable!("there is no kernel for this filter"),
        }
    }
}

/// # Safety
/// As asserted in [`scatter`]; the machine must have `S`.
#[inline(always)]
unsafe fn scatter_row<S: Simd, const KW: usize, const BLOCKS: usize>(p: &mut Scatter<'_>) {
    if BLOCKS * BLOCK == S::LANES {
        // SAFETY: passed on to the caller.
        unsafe { scatter_vectors::<S, KW, BLOCKS, 1>(p) }
    } else {
        // SAFETY: as above.
        unsafe { scatter_vectors::<S, KW, BLOCKS, 2>(p) }
    }
}

/// # Safety
/// As [`scatter_row`].
#[inline(always)]
unsafe fn scatter_vectors<S: Simd, const KW: usize, const BLOCKS: usize, const VECTORS: usize>(
    p: &mut Scatter<'_>,
) {
    let (width, in_block) = (BLOCKS * BLOCK, BLOCK / S::LANES);
    for first in (0..width / S::LANES).step_by(VECTORS) {
        // SAFETY: the caller vouches for the weights of every entry and for `KW` inputs.
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; KW];
            for entry in p.entries {
                let value = S::splat(entry.value);
                let weights = p.weights.as_ptr().add(entry.at as usize * KW * width + first * S::LANES);
                for (k, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = S::mul_add(value, S::load(weights.add(k * width + v * S::LANES)), *sum);
                    }
                }
            }
            for (k, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let vector = first + v;
                    let at = k * p.step + vector / in_block * p.plane + vector % in_block * S::LANES;
                    let to = p.dx.as_mut_ptr().add(at);
                    S::store(to, S::add(S::load(to), *sum));
                }
            }
        }
    }
}

/// One output channel's part of the weight gradient, for one block of inputs.
#[derive(Debug)]
pub(crate) struct Gather<'a> {
    /// The positions with a gradient in this channel: `at` is where their upper left input begins.
    pub(crate) entries: &'a [Entry],
    /// Rows of a block of inputs, in any order in which a row of the image is contiguous.
    pub(crate) x: &'a [f32],
    /// From one row of the image to the next.
    pub(crate) line: usize,
    /// Height and width.
    pub(crate) filter: [usize; 2],
    /// `[filter height][filter width][16]`
    pub(crate) dw: &'a mut [f32],
}

vectorised! {
    /// `dw[h][k][i] (+)= sum over entries of value * x[at + h * line + k * 16 + i]`
    pub(crate) fn gather<S>(p: &mut Gather<'_>, add: bool) {
        let [height, width] = p.filter;
        let reach = (height - 1) * p.line + width * BLOCK;
        assert!(p.entries.is_empty() || last(p.entries) + reach <= p.x.len());
        assert!(p.dw.len() == height * width * BLOCK);
        // Accumulators are a vector for each tap; these are as many as the registers hold.
        let most = if S::LANES == BLOCK { 25 } else { 12 } / width;
        let mut row = 0;
        while row < height {
            row += match (width, most.min(height - row)) {
                (3, 1) => gather_rows::<S, 1, 3>(p, row, add),
                (3, 2) => gather_rows::<S, 2, 3>(p, row, add),
                (3, _) => gather_rows::<S, 3, 3>(p, row, add),
                (5, 1) => gather_rows::<S, 1, 5>(p, row, add),
                (5, 2..5) => gather_rows::<S, 2, 5>(p, row, add),
                (5, _) => gather_rows::<S, 5, 5>(p, row, add),
                _ => unreachable!("there is no kernel for this filter"),
            };
        }
    }
}

/// `ROWS` rows of the filter from `row` on. Returns `ROWS`.
///
/// # Safety
/// As asserted in [`gather`], and the filter must have these rows and `KW` columns; the machine must have `S`.
#[inline(always)]
unsafe fn gather_rows<S: Simd, const ROWS: usize, const KW: usize>(
    p: &mut Gather<'_>,
    row: usize,
    add: bool,
) -> usize {
    for part in 0..BLOCK / S::LANES {
        // SAFETY: the caller vouches for the inputs of every entry and for `ROWS` rows of `dw`.
        unsafe {
            let mut sums = [[S::zero(); KW]; ROWS];
            let x = p.x.as_ptr().add(row * p.line + part * S::LANES);
            for entry in p.entries {
                let value = S::splat(entry.value);
                let mut x = x.add(entry.at as usize);
                for sums in &mut sums {
                    for (k, sum) in sums.iter_mut().enumerate() {
                        *sum = S::mul_add(value, S::load(x.add(k * BLOCK)), *sum);
                    }
                    x = x.wrapping_add(p.line);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (k, sum) in sums.iter().enumerate() {
                    let to = p.dw.as_mut_ptr().add(((row + r) * KW + k) * BLOCK + part * S::LANES);
                    S::store(to, if add { S::add(S::load(to), *sum) } else { *sum });
                }
            }
        }
    }
    ROWS
}

versions! {
    /// Every `step`th row, from the first on.
    pub(crate) fn take_rows(from: &[Row], step: usize, to: &mut [Row]) {
        for (to, from) in to.iter_mut().zip(from.iter().step_by(step)) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    fn entries(count: usize, step: usize) -> Vec<Entry> {
        // Not in order, and one of them twice.
        let place = |i: usize| if i == 1 { 0 } else { (i * 7) % count };
        let values = noise(count, 1);
        (0..count).map(|i| Entry { at: (place(i) * step) as u32, value: values[i] }).collect()
    }

    fn close(found: &[f32], expected: &[f32]) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-5 * (1.0 + e.abs()), "{f} is not {e}");
        }
    }

    #[test]
    fn scattered_products_match_plain_loops() {
        for (filter_width, blocks, count) in
            [(3, 1, 1), (3, 2, 5), (5, 1, 16), (5, 2, 9), (5, 2, 0), (3, 2, 1)]
        {
            let width = blocks * BLOCK;
            let weights = noise(count * filter_width * width, 2);
            let entries = entries(count, 1);
            let (step, plane) = (3 * BLOCK, 3 * filter_width * BLOCK + 5);
            let before = noise((filter_width - 1) * step + (blocks - 1) * plane + BLOCK, 3);
            let mut dx = before.clone();
            let dx_ = &mut dx[..];
            scatter(&mut Scatter {
                entries: &entries,
                weights: &weights,
                filter_width,
                blocks,
                dx: dx_,
                step,
                plane,
            });
            let mut expected = before;
            for entry in &entries {
                for k in 0..filter_width {
                    for i in 0..width {
                        expected[k * step + i / BLOCK * plane + i % BLOCK] +=
                            entry.value * weights[(entry.at as usize * filter_width + k) * width + i];
                    }
                }
            }
            close(&dx, &expected);
        }
    }

    #[test]
    fn gathered_products_match_plain_loops() {
        for (filter, count, add) in [
            ([1, 3], 2, false),
            ([5, 3], 9, true),
            ([3, 3], 0, false),
            ([5, 5], 11, true),
            ([4, 5], 6, false),
            ([7, 5], 1, true),
        ] {
            let [height, width] = filter;
            let line = (width + 2) * BLOCK;
            let x = noise((height - 1) * line + (width + count) * BLOCK, 2);
            let entries = entries(count, BLOCK);
            let before = noise(height * width * BLOCK, 3);
            let mut dw = before.clone();
            gather(&mut Gather { entries: &entries, x: &x, line, filter, dw: &mut dw }, add);
            let mut expected = if add { before } else { vec![0.0; dw.len()] };
            for entry in &entries {
                for (at, dw) in expected.iter_mut().enumerate() {
                    let (h, k, i) = (at / BLOCK / width, at / BLOCK % width, at % BLOCK);
                    *dw += entry.value * x[entry.at as usize + h * line + k * BLOCK + i];
                }
            }
            close(&dw, &expected);
        }
    }

    #[test]
    fn rows_are_taken_in_order() {
        let from: Vec<Row> = (0..11).map(|i| [i as f32; BLOCK]).collect();
        let mut to = [[0.0; BLOCK]; 3];
        take_rows(&from[2..], 4, &mut to);
        assert_eq!(to.map(|row| row[BLOCK - 1]), [2.0, 6.0, 10.0]);
    }
}
