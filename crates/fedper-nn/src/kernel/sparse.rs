//! The gradients of a convolution whose output gradient is zero at most positions, as it is before a max-pool: for each
//! channel, the few positions that won. They are kept in lists, and each entry costs one multiply-add a weight.

use super::lists::{List, Lists};
use super::simd::Simd;
use super::{BLOCK, Row, vectorised, versions};

/// Whether there are kernels for filters of this width.
pub(crate) fn is_known_width(width: usize) -> bool {
    matches!(width, 3 | 5)
}

/// The windows of a group of samples in their part of the input gradient.
#[derive(Debug)]
pub(crate) struct Scatter<'a> {
    /// For each window, sample and position of the window, in this order, the output channels that have a gradient there.
    pub(crate) lists: &'a Lists,
    /// The first input of each window's first position, by number.
    pub(crate) corners: &'a [usize],
    pub(crate) samples: usize,
    /// `[filter height][output][filter width][panel width]`
    pub(crate) weights: &'a [f32],
    pub(crate) filter: [usize; 2],
    pub(crate) outputs: usize,
    /// Blocks of a panel of inputs: 1 or 2.
    pub(crate) blocks: usize,
    /// The gradient of the inputs, from the panel's first block and the group's first sample on.
    pub(crate) dx: &'a mut [f32],
    /// Inputs in a row of the image.
    pub(crate) line: usize,
    /// From one input to its neighbour, and from one block to the next.
    pub(crate) step: usize,
    pub(crate) plane: usize,
}

vectorised! {
    /// `dx[position + (h, k)][i] += sum over a position's entries of value * weights[h][at][k][i]`
    pub(crate) fn scatter<S>(p: &mut Scatter<'_>) {
        let ([height, width], blocks) = (p.filter, p.blocks);
        assert!(p.weights.len() == height * p.outputs * width * blocks * BLOCK);
        // The last position of a window lies a line and an input further on.
        let last = p.corners.iter().max().map_or(0, |corner| corner + height * p.line + width);
        assert!(p.dx.len() >= (blocks - 1) * p.plane + last * p.step + p.samples * BLOCK);
        assert!(p.samples * BLOCK <= p.step);
        match (width, blocks) {
            (3, 1) => scatter_panel::<S, 3, 4, 1>(p),
            (3, 2) => scatter_panel::<S, 3, 4, 2>(p),
            (5, 1) => scatter_panel::<S, 5, 6, 1>(p),
            (5, 2) => scatter_panel::<S, 5, 6, 2>(p),
            _ => unreachable!("there is no kernel for this filter"),
        }
    }
}

/// `REACH` is `KW + 1`: how many inputs of a line two neighbouring positions see.
///
/// # Safety
/// As asserted in [`scatter`]; the machine must have `S`.
#[inline(always)]
unsafe fn scatter_panel<S: Simd, const KW: usize, const REACH: usize, const BLOCKS: usize>(
    p: &mut Scatter<'_>,
) {
    // One line of the filter at a time: its weights stay in the first-level cache.
    for h in 0..p.filter[0] {
        let mut list = 0;
        for &corner in p.corners {
            for sample in 0..p.samples {
                for below in 0..2 {
                    let lists = [p.lists.get(list), p.lists.get(list + 1)];
                    list += 2;
                    assert!(lists.iter().all(|entries| entries.reach() <= p.outputs));
                    let dx = (corner + (h + below) * p.line) * p.step + sample * BLOCK;
                    // SAFETY: passed on to the caller; the lists name outputs that there are.
                    unsafe {
                        if BLOCKS * BLOCK == S::LANES {
                            scatter_line::<S, KW, REACH, BLOCKS, 1>(p, lists, h, dx);
                        } else {
                            scatter_line::<S, KW, REACH, BLOCKS, 2>(p, lists, h, dx);
                        }
                    }
                }
            }
        }
    }
}

/// Line `h` of the filter for two neighbouring positions, whose inputs begin at `dx`.
///
/// # Safety
/// As [`scatter_panel`], and `lists` must name outputs that there are.
#[inline(always)]
unsafe fn scatter_line<
    S: Simd,
    const KW: usize,
    const REACH: usize,
    const BLOCKS: usize,
    const VECTORS: usize,
>(
    p: &mut Scatter<'_>,
    lists: [List<'_>; 2],
    h: usize,
    dx: usize,
) {
    let (width, in_block) = (BLOCKS * BLOCK, BLOCK / S::LANES);
    for first in (0..width / S::LANES).step_by(VECTORS) {
        // SAFETY: the caller vouches for the weights of every entry and for `REACH` inputs.
        unsafe {
            let mut sums = [[S::zero(); VECTORS]; REACH];
            let line = p.weights.as_ptr().add(h * p.outputs * KW * width + first * S::LANES);
            for (right, entries) in lists.into_iter().enumerate() {
                for (value, at) in entries.iter() {
                    let (value, weights) = (S::splat(value), line.add(at * KW * width));
                    for (k, sums) in sums[right..][..KW].iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = S::mul_add(value, S::load(weights.add(k * width + v * S::LANES)), *sum);
                        }
                    }
                }
            }
            for (k, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let vector = first + v;
                    let at = k * p.step + vector / in_block * p.plane + vector % in_block * S::LANES;
                    let to = p.dx.as_mut_ptr().add(dx + at);
                    S::store(to, S::add(S::load(to), *sum));
                }
            }
        }
    }
}

/// One output channel's part of the weight gradient, for one block of inputs.
#[derive(Debug)]
pub(crate) struct Gather<'a> {
    /// The positions with a gradient in this channel: places are where their upper left inputs begin.
    pub(crate) entries: List<'a>,
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
        assert!(p.entries.is_empty() || p.entries.reach() - 1 + reach <= p.x.len());
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
            for (value, at) in p.entries.iter() {
                let value = S::splat(value);
                let mut x = x.add(at);
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
    use super::super::lists::{Pooled, list_by_position};
    use super::super::window::POSITIONS;
    use super::*;
    use crate::testing::noise;

    fn entries(count: usize, step: usize) -> (Vec<f32>, Vec<u32>) {
        // Not in order, and one of them twice.
        let place = |i: usize| if i == 1 { 0 } else { (i * 7) % count };
        (noise(count, 1), (0..count).map(|i| (place(i) * step) as u32).collect())
    }

    fn close(found: &[f32], expected: &[f32]) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-5 * (1.0 + e.abs()), "{f} is not {e}");
        }
    }

    #[test]
    fn scattered_products_match_plain_loops() {
        for (filter, blocks, outputs, samples) in [
            ([1, 3], 1, 1, 1),
            ([3, 3], 2, 2, 3),
            ([5, 5], 1, 1, 2),
            ([5, 5], 2, 4, 1),
            ([4, 3], 2, 1, 5),
            ([2, 5], 1, 3, 2),
        ] {
            let [height, kw] = filter;
            let (width, channels, line) = (blocks * BLOCK, outputs * BLOCK, kw + 4);
            let corners = [0, 2, 2 * line + 1];
            let (step, mut dy) = ((samples + 2) * BLOCK, noise(outputs * 3 * samples * BLOCK, 4));
            dy.iter_mut().step_by(4).for_each(|value| *value = 0.0);
            let winner: Vec<u8> =
                noise(dy.len(), 5).iter().map(|value| (value.to_bits() % 4) as u8).collect();
            let plane = 3 * samples * BLOCK;
            let (dy, winner) = (&dy[..], &winner[..]);
            let pooled = Pooled { dy, winner, plane, blocks: outputs, windows: 3, samples };
            let mut lists = Lists::default();
            lists.reserve(3 * samples * POSITIONS, 3 * samples * channels);
            list_by_position(&pooled, 0..samples, &mut lists);

            let weights = noise(height * channels * kw * width, 2);
            let inputs = corners[2] + (height + 1) * line + kw + 1;
            let dx_plane = inputs * step + 5;
            let before = noise(blocks * dx_plane, 3);
            let mut dx = before.clone();
            scatter(&mut Scatter {
                lists: &lists,
                corners: &corners,
                samples,
                weights: &weights,
                filter,
                outputs: channels,
                blocks,
                dx: &mut dx,
                line,
                step,
                plane: dx_plane,
            });
            let mut expected = before;
            for (at, &value) in dy.iter().enumerate() {
                let (block, row, lane) = (at / plane, at % plane / BLOCK, at % BLOCK);
                let (channel, which) = (block * BLOCK + lane, usize::from(winner[at]));
                let corner = corners[row / samples] + which / 2 * line + which % 2;
                for (tap, i) in (0..height * kw).flat_map(|tap| (0..width).map(move |i| (tap, i))) {
                    let (h, k) = (tap / kw, tap % kw);
                    let input = (corner + h * line + k) * step + row % samples * BLOCK;
                    expected[i / BLOCK * dx_plane + input + i % BLOCK] +=
                        value * weights[((h * channels + channel) * kw + k) * width + i];
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
            let (values, at) = entries(count, BLOCK);
            let entries = List::new(&values, &at);
            let before = noise(height * width * BLOCK, 3);
            let mut dw = before.clone();
            gather(&mut Gather { entries, x: &x, line, filter, dw: &mut dw }, add);
            let mut expected = if add { before } else { vec![0.0; dw.len()] };
            for (value, place) in entries.iter() {
                for (at, dw) in expected.iter_mut().enumerate() {
                    let (h, k, i) = (at / BLOCK / width, at / BLOCK % width, at % BLOCK);
                    *dw += value * x[place + h * line + k * BLOCK + i];
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
