//! A convolution of images with few channels at the four positions of a 2x2 max-pool window, all in registers.

use super::simd::Simd;
use super::{BLOCK, vectorised};

/// Positions of a window: [`Window2x2`] has them row by row.
pub(crate) const POSITIONS: usize = 4;

/// The windows of a convolution at four positions.
#[derive(Debug)]
pub(crate) struct Window2x2<'a> {
    pub(crate) images: &'a [f32],
    /// Where the windows of the four positions begin in an image.
    pub(crate) corners: [usize; POSITIONS],
    /// From one row of an image to the next, and from one image to the next.
    pub(crate) line: usize,
    pub(crate) image: usize,
    pub(crate) samples: usize,
    /// Rows of a convolution's window, and values of a row.
    pub(crate) extent: [usize; 2],
    /// `[row][value][panel width]`
    pub(crate) weights: &'a [f32],
    /// One for each column of the panel; nothing if there is no bias.
    pub(crate) bias: &'a [f32],
    /// Blocks of the panel.
    pub(crate) blocks: usize,
    /// `[block][position][sample][16]`
    pub(crate) y: &'a mut [f32],
}

vectorised! {
    /// `y[position] = bias + sum over a window of image * weights`
    pub(crate) fn convolve_2x2<S>(p: &mut Window2x2<'_>) {
        let ([rows, values], width) = (p.extent, p.blocks * BLOCK);
        let corner = p.corners.into_iter().max().unwrap_or(0);
        let last = p.samples.saturating_sub(1) * p.image + corner;
        assert!(rows > 0 && last + (rows - 1) * p.line + values <= p.images.len());
        assert!(p.weights.len() >= rows * values * width && (p.bias.is_empty() || p.bias.len() >= width));
        assert!(p.y.len() >= POSITIONS * p.samples * width);
        let mut sample = 0;
        while sample < p.samples {
            // Eight accumulators a sample are just enough to keep the multipliers busy; twice that needs 32 registers.
            sample += match (width.is_multiple_of(2 * S::LANES), S::LANES == BLOCK && sample + 1 < p.samples) {
                (true, true) => vectors::<S, 2, 2>(p, sample),
                (true, false) => vectors::<S, 2, 1>(p, sample),
                (false, true) => vectors::<S, 1, 2>(p, sample),
                (false, false) => vectors::<S, 1, 1>(p, sample),
            };
        }
    }
}

/// `SAMPLES` samples from `first_sample` on. Returns `SAMPLES`.
///
/// # Safety
/// As asserted in [`convolve_2x2`], a panel must be whole steps of `VECTORS` vectors, and there must be these samples; the
/// machine must have `S`.
#[inline(always)]
unsafe fn vectors<S: Simd, const VECTORS: usize, const SAMPLES: usize>(
    p: &mut Window2x2<'_>,
    first_sample: usize,
) -> usize {
    let ([rows, values], width, in_block) = (p.extent, p.blocks * BLOCK, BLOCK / S::LANES);
    for first in (0..width / S::LANES).step_by(VECTORS) {
        // SAFETY: the caller vouches for the windows, their weights and biases, and `y`.
        unsafe {
            let mut sums = [[[S::zero(); VECTORS]; POSITIONS]; SAMPLES];
            let mut weights = p.weights.as_ptr().add(first * S::LANES);
            for row in 0..rows {
                let images = p.images.as_ptr().add(first_sample * p.image + row * p.line);
                let windows: [[*const f32; POSITIONS]; SAMPLES] = std::array::from_fn(|sample| {
                    p.corners.map(|corner| images.add(sample * p.image + corner))
                });
                for value in 0..values {
                    let mut right = [S::zero(); VECTORS];
                    for (v, right) in right.iter_mut().enumerate() {
                        *right = S::load(weights.add(v * S::LANES));
                    }
                    for (sums, window) in sums.as_flattened_mut().iter_mut().zip(windows.as_flattened()) {
                        let left = S::splat(*window.add(value));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = S::mul_add(left, right, *sum);
                        }
                    }
                    weights = weights.wrapping_add(width);
                }
            }
            for v in 0..VECTORS {
                let (block, lane) = ((first + v) / in_block, (first + v) % in_block * S::LANES);
                let bias = match p.bias.is_empty() {
                    true => S::zero(),
                    false => S::load(p.bias.as_ptr().add((first + v) * S::LANES)),
                };
                for (i, sums) in sums.as_flattened().iter().enumerate() {
                    let (sample, position) = (first_sample + i / POSITIONS, i % POSITIONS);
                    let row = (block * POSITIONS + position) * p.samples + sample;
                    S::store(p.y.as_mut_ptr().add(row * BLOCK + lane), S::add(bias, sums[v]));
                }
            }
        }
    }
    SAMPLES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn windows_match_plain_loops_on_odd_shapes() {
        for (extent, right, blocks, with_bias) in
            [([1, 1], 1, 1, false), ([5, 5], 1, 2, true), ([3, 6], 3, 1, true), ([2, 7], 2, 2, false)]
        {
            let [rows, values] = extent;
            let (line, width) = (values + right + 3, blocks * BLOCK);
            let corners = [0, right, line, line + right];
            let samples = 3;
            let image = corners[3] + rows * line + 2;
            let images = noise((samples - 1) * image + corners[3] + (rows - 1) * line + values, 1);
            let weights = noise(rows * values * width, 2);
            let bias = if with_bias { noise(width, 3) } else { Vec::new() };
            let mut y = vec![0.5; POSITIONS * samples * width];
            convolve_2x2(&mut Window2x2 {
                images: &images,
                corners,
                line,
                image,
                samples,
                extent,
                weights: &weights,
                bias: &bias,
                blocks,
                y: &mut y,
            });
            let mut expected = vec![0.5; y.len()];
            for (i, expected) in expected.iter_mut().enumerate() {
                let (row, lane) = (i / BLOCK, i % BLOCK);
                let (sample, position) = (row % samples, row / samples % POSITIONS);
                let column = row / samples / POSITIONS * BLOCK + lane;
                *expected = bias.get(column).copied().unwrap_or(0.0);
                for (i, weights) in weights.chunks_exact(width).enumerate() {
                    let at = sample * image + corners[position] + i / values * line + i % values;
                    *expected += images[at] * weights[column];
                }
            }
            for (f, e) in y.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-5 * (1.0 + e.abs()), "{f} is not {e}");
            }
        }
    }
}
