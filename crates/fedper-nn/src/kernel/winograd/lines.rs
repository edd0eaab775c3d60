//! Images of few channels: tiles of four outputs in a line of a filter of five, in one dimension, as transforms of tiles in
//! two would cost more than they save. Products are summed over the filter's lines before they are transformed back, so a
//! line takes 8 multiply-adds instead of 20. The outputs of two lines are pooled in registers.

use super::points::{Eight, Points};
use crate::kernel::simd::Simd;
use crate::kernel::{BLOCK, vectorised, versions};

/// Outputs of a tile, the width of the filter, and points.
pub(crate) const OUTPUTS: usize = 4;
pub(crate) const TAPS: usize = 5;
pub(crate) const POINTS: usize = 8;

/// The transform of inputs, [`Eight`]'s, by columns.
const INPUT: [[f32; POINTS]; POINTS] = [
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, -1.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5],
    [-5.25, 0.0, 1.0, 1.0, 4.0, 4.0, 0.25, 0.25],
    [0.0, 5.25, -4.25, 4.25, -2.5, 2.5, -2.5, 2.5],
    [5.25, 0.0, -4.25, -4.25, -5.0, -5.0, -1.25, -1.25],
    [0.0, -5.25, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0],
    [-1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
];

/// Where each tile of a line of outputs begins: the last one where it still fits.
pub(crate) fn tiles(outputs: usize) -> impl ExactSizeIterator<Item = usize> {
    (0..outputs.div_ceil(OUTPUTS)).map(move |tile| (tile * OUTPUTS).min(outputs - OUTPUTS))
}

#[inline(always)]
fn add_scaled(sum: [f32; POINTS], factor: f32, values: &[f32; POINTS]) -> [f32; POINTS] {
    std::array::from_fn(|i| sum[i] + factor * values[i])
}

versions! {
    /// The points of the tiles of one line, `[tile][channel][point]`, from `[column][channel]`, for so many outputs.
    pub(crate) fn line_points(line: &[f32], channels: usize, outputs: usize, to: &mut [f32]) {
        let (to, _) = to.as_chunks_mut::<POINTS>();
        // Known factors the compiler would sort by value, which takes longer than vectors with zeros.
        let input = std::hint::black_box(&INPUT);
        for (first, to) in tiles(outputs).zip(to.chunks_exact_mut(channels)) {
            let line = &line[first * channels..];
            for (channel, to) in to.iter_mut().enumerate() {
                let values: [f32; POINTS] = match channels {
                    1 => *line.first_chunk().expect("a tile"),
                    _ => std::array::from_fn(|column| line[column * channels + channel]),
                };
                // Two chains, of even and odd columns.
                let [mut even, mut odd] = [[0.0; POINTS]; 2];
                for i in 0..POINTS / 2 {
                    even = add_scaled(even, values[2 * i], &input[2 * i]);
                    odd = add_scaled(odd, values[2 * i + 1], &input[2 * i + 1]);
                }
                *to = add_scaled(even, 1.0, &odd);
            }
        }
    }
}

vectorised! {
    /// The points of one panel's weights, `[line][channel][point][panel width]`, from `[line][tap][channel][panel width]`.
    pub(crate) fn line_filters<S>(weights: &[f32], channels: usize, width: usize, to: &mut [f32]) {
        let lines = weights.len() / (TAPS * channels * width);
        assert!(width.is_multiple_of(BLOCK) && weights.len() == lines * TAPS * channels * width);
        assert!(to.len() >= lines * channels * POINTS * width);
        for line in 0..lines {
            for channel in 0..channels {
                let from = weights.as_ptr().add((line * TAPS * channels + channel) * width);
                let to = to.as_mut_ptr().add((line * channels + channel) * POINTS * width);
                for v in (0..width).step_by(S::LANES) {
                    let taps = std::array::from_fn(|tap| S::load(from.add(tap * channels * width + v)));
                    for (point, value) in Eight::filter::<S, TAPS>(taps).into_iter().enumerate() {
                        S::store(to.add(point * width + v), value);
                    }
                }
            }
        }
    }
}

/// One panel of a convolution of images, and the 2x2 max-pool after it.
#[derive(Debug)]
pub(crate) struct PooledLines<'a> {
    /// `[sample][line][tile][channel][point]`
    pub(crate) points: &'a [f32],
    /// From one line of points to the next, and from one sample to the next.
    pub(crate) line: usize,
    pub(crate) image: usize,
    pub(crate) samples: usize,
    pub(crate) channels: usize,
    /// [`line_filters`] of so many lines.
    pub(crate) filters: &'a [f32],
    pub(crate) height: usize,
    /// One for each column of the panel; nothing if there is no bias.
    pub(crate) bias: &'a [f32],
    /// Blocks of the panel.
    pub(crate) blocks: usize,
    /// Height and width of what is pooled to.
    pub(crate) pooled: [usize; 2],
    /// The panel's planes, from the first of these samples on, and the position of each window that won.
    pub(crate) y: &'a mut [f32],
    pub(crate) winner: &'a mut [u8],
    /// From one block to the next, and from one position to the next.
    pub(crate) plane: usize,
    pub(crate) row: usize,
    /// What the activation holds outputs to.
    pub(crate) range: (f32, f32),
}

vectorised! {
    /// `y = activation(max-pool(convolution + bias))`, and which position won: the first of those that are equal.
    pub(crate) fn pooled_lines<S>(p: &mut PooledLines<'_>) {
        let ([height, width], panel) = (p.pooled, p.blocks * BLOCK);
        assert!(height > 0 && 2 * width >= OUTPUTS && p.samples > 0 && p.height > 0 && p.channels > 0);
        assert!(tiles(2 * width).len() * p.channels * POINTS <= p.line);
        assert!((p.samples - 1) * p.image + (2 * height - 1 + p.height) * p.line <= p.points.len());
        assert!(p.filters.len() >= p.height * p.channels * POINTS * panel);
        assert!(p.bias.is_empty() || p.bias.len() >= panel);
        assert!(p.samples * BLOCK <= p.row && p.y.len() == p.winner.len());
        assert!((p.blocks - 1) * p.plane + (height * width - 1) * p.row + p.samples * BLOCK <= p.y.len());
        for top in 0..height {
            for (tile, first) in tiles(2 * width).enumerate() {
                for sample in 0..p.samples {
                    let to = (top * width + first / 2) * p.row + sample * BLOCK;
                    match panel.is_multiple_of(2 * S::LANES) && S::LANES == BLOCK {
                        true => pooled_tile::<S, 2>(p, sample, top, tile, to),
                        false => pooled_tile::<S, 1>(p, sample, top, tile, to),
                    }
                }
            }
        }
    }
}

/// Two lines of outputs of one tile and sample, which are two windows; the first of them goes to `to` in each block.
///
/// # Safety
/// As asserted in [`pooled_lines`], a panel must be whole steps of `VECTORS` vectors, and there must be the tile; the machine
/// must have `S`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the same lanes of several arrays")]
unsafe fn pooled_tile<S: Simd, const VECTORS: usize>(
    p: &mut PooledLines<'_>,
    sample: usize,
    top: usize,
    tile: usize,
    to: usize,
) {
    let (panel, in_block) = (p.blocks * BLOCK, BLOCK / S::LANES);
    for first in (0..panel / S::LANES).step_by(VECTORS) {
        // SAFETY: the caller vouches for points, filters, biases and outputs.
        unsafe {
            let points = p.points.as_ptr().add(sample * p.image + 2 * top * p.line);
            let points = points.add(tile * p.channels * POINTS);
            let filters = p.filters.as_ptr().add(first * S::LANES);
            let mut start = [S::zero(); VECTORS];
            if !p.bias.is_empty() {
                for (v, start) in start.iter_mut().enumerate() {
                    *start = S::load(p.bias.as_ptr().add((first + v) * S::LANES));
                }
            }
            // `[output][line][vector]`
            let mut y = [[start; 2]; OUTPUTS];
            let ends = sums_at::<S, VECTORS>(p, points, filters, [0, 1]);
            for line in 0..2 {
                for v in 0..VECTORS {
                    y[0][line][v] = S::add(y[0][line][v], ends[0][line][v]);
                    y[OUTPUTS - 1][line][v] = S::add(y[OUTPUTS - 1][line][v], ends[1][line][v]);
                }
            }
            // A pair of points after the other: so many sums fit into the registers.
            let sums = sums_at::<S, VECTORS>(p, points, filters, [2, 3]);
            combine::<S, VECTORS>(&mut y, sums, Eight::PAIRS[0]);
            let sums = sums_at::<S, VECTORS>(p, points, filters, [4, 5]);
            combine::<S, VECTORS>(&mut y, sums, Eight::PAIRS[1]);
            let sums = sums_at::<S, VECTORS>(p, points, filters, [6, 7]);
            combine::<S, VECTORS>(&mut y, sums, Eight::PAIRS[2]);
            for v in 0..VECTORS {
                let at = (first + v) / in_block * p.plane + (first + v) % in_block * S::LANES;
                for window in 0..OUTPUTS / 2 {
                    let four = [0, 1, 2, 3].map(|k| y[2 * window + k % 2][k / 2][v]);
                    let to = to + at + window * p.row;
                    let max = S::max_of_four(four, p.winner.as_mut_ptr().add(to));
                    S::store(p.y.as_mut_ptr().add(to), S::clamp(max, p.range.0, p.range.1));
                }
            }
        }
    }
}

/// The products of two points, each for two lines of outputs.
///
/// # Safety
/// As [`pooled_tile`], with a tile's points and a vector of the panel's filters.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "as above")]
unsafe fn sums_at<S: Simd, const VECTORS: usize>(
    p: &PooledLines<'_>,
    points: *const f32,
    filters: *const f32,
    which: [usize; 2],
) -> [[[S::V; VECTORS]; 2]; 2] {
    let panel = p.blocks * BLOCK;
    // SAFETY: passed on to the caller.
    unsafe {
        let mut sums = [[[S::zero(); VECTORS]; 2]; 2];
        for channel in 0..p.channels {
            let mut from = points.add(channel * POINTS);
            let mut filters = which.map(|point| filters.add((channel * POINTS + point) * panel));
            // What is under the upper line of outputs is under the lower one a line later.
            let mut upper = which.map(|point| S::splat(*from.add(point)));
            for _ in 0..p.height {
                from = from.add(p.line);
                for i in 0..2 {
                    let lower = S::splat(*from.add(which[i]));
                    for v in 0..VECTORS {
                        let filter = S::load(filters[i].add(v * S::LANES));
                        sums[i][0][v] = S::mul_add(upper[i], filter, sums[i][0][v]);
                        sums[i][1][v] = S::mul_add(lower, filter, sums[i][1][v]);
                    }
                    upper[i] = lower;
                    filters[i] = filters[i].wrapping_add(p.channels * POINTS * panel);
                }
            }
        }
        sums
    }
}

/// Adds the part of a pair of points to the outputs, as [`Points::combine`].
///
/// # Safety
/// The machine must have `S`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "as above")]
unsafe fn combine<S: Simd, const VECTORS: usize>(
    y: &mut [[[S::V; VECTORS]; 2]; OUTPUTS],
    [a, b]: [[[S::V; VECTORS]; 2]; 2],
    point: f32,
) {
    for line in 0..2 {
        for v in 0..VECTORS {
            // SAFETY: passed on to the caller.
            unsafe {
                let sums = [S::add(a[line][v], b[line][v]), S::sub(a[line][v], b[line][v])];
                let mut power = 1.0;
                for (output, y) in y.iter_mut().enumerate() {
                    y[line][v] = S::mul_add(S::splat(power), sums[output % 2], y[line][v]);
                    power *= point;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn points_of_lines_are_those_of_vectors() {
        let line = noise(14, 1);
        let mut points = [0.0; 2 * POINTS];
        line_points(&line, 1, 6, &mut points);
        for (first, found) in [0, 2].into_iter().zip(points.chunks_exact(POINTS)) {
            // SAFETY: every machine has it.
            let expected = unsafe {
                use crate::kernel::simd::Portable;
                Eight::input::<Portable>(std::array::from_fn(|i| Portable::splat(line[first + i])))
            };
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e[0]).abs() < 1e-5, "{f} is not {}", e[0]);
            }
        }
    }

    #[test]
    fn pooled_lines_match_plain_loops() {
        for ([height, width], lines, channels, blocks, samples, with_bias) in [
            ([1, 2], 5, 1, 2, 1, true),
            ([2, 3], 5, 1, 1, 3, false),
            ([3, 5], 3, 2, 2, 2, true),
            ([1, 4], 1, 3, 2, 5, true),
        ] {
            let panel = blocks * BLOCK;
            let input = [2 * height + lines - 1, 2 * width + TAPS - 1];
            let images = noise(samples * input[0] * input[1] * channels, 1);
            let weights = noise(lines * TAPS * channels * panel, 2);
            let bias = if with_bias { noise(panel, 3) } else { Vec::new() };
            let line = tiles(2 * width).len() * channels * POINTS;
            let image = input[0] * line + 5;
            let mut points = vec![f32::NAN; samples * image];
            for (from, to) in
                images.chunks_exact(input[0] * input[1] * channels).zip(points.chunks_exact_mut(image))
            {
                for (from, to) in from.chunks_exact(input[1] * channels).zip(to.chunks_exact_mut(line)) {
                    line_points(from, channels, 2 * width, to);
                }
            }
            let mut filters = vec![f32::NAN; lines * channels * POINTS * panel];
            line_filters(&weights, channels, panel, &mut filters);
            let row = (samples + 1) * BLOCK;
            let plane = height * width * row + 3;
            let (mut y, mut winner) = (vec![9.0; blocks * plane], vec![9; blocks * plane]);
            pooled_lines(&mut PooledLines {
                points: &points,
                line,
                image,
                samples,
                channels,
                filters: &filters,
                height: lines,
                bias: &bias,
                blocks,
                pooled: [height, width],
                y: &mut y,
                winner: &mut winner,
                plane,
                row,
                range: (-0.5, 1.0),
            });
            let convolution = |sample: usize, top: usize, left: usize, o: usize| -> f32 {
                let taps = (0..lines * TAPS * channels).map(|i| {
                    let (kh, rest) = (i / (TAPS * channels), i % (TAPS * channels));
                    let at = ((sample * input[0] + top + kh) * input[1] + left) * channels + rest;
                    images[at] * weights[i * panel + o]
                });
                taps.sum::<f32>() + bias.get(o).copied().unwrap_or_default()
            };
            for (at, (&found, &winner)) in y.iter().zip(&winner).enumerate() {
                let (block, rest) = (at / plane, at % plane);
                let (position, sample) = (rest / row, rest % row / BLOCK);
                if rest >= height * width * row || sample == samples {
                    assert!(found == 9.0 && winner == 9);
                    continue;
                }
                let four = [0, 1, 2, 3].map(|k| {
                    let (top, left) = (position / width * 2 + k / 2, position % width * 2 + k % 2);
                    convolution(sample, top, left, block * BLOCK + rest % BLOCK)
                });
                let max = four.into_iter().fold(f32::MIN, f32::max);
                assert!(
                    (found - max.clamp(-0.5, 1.0)).abs() < 2e-5,
                    "{found} is not the largest of {four:?}"
                );
                assert!((four[usize::from(winner)] - max).abs() < 2e-5);
            }
        }
    }
}
