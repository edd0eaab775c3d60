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

/// Windows of a row of a max-pool, in the weight gradient of one block of outputs.
#[derive(Debug)]
pub(crate) struct Winners<'a> {
    pub(crate) images: &'a [f32],
    /// Where the window of the first of four positions begins in an image; the others are a value's `right` and a `line` on.
    pub(crate) corners: &'a [usize],
    pub(crate) right: usize,
    /// As in [`Window2x2`].
    pub(crate) line: usize,
    pub(crate) image: usize,
    pub(crate) samples: usize,
    pub(crate) extent: [usize; 2],
    /// The gradient of what the pool left, and the position that each value came from: `[window][sample][16]`.
    pub(crate) dy: &'a [f32],
    pub(crate) winner: &'a [u8],
    /// `[row][value]`, rows of the block `width` apart.
    pub(crate) dw: &'a mut [f32],
    pub(crate) width: usize,
}

/// Whether this machine has a [`winners_gradient`] for windows of this extent, `right` values apart.
pub(crate) fn knows_winners(extent: [usize; 2], right: usize) -> bool {
    crate::InstructionSet::current().vectors() == crate::InstructionSet::Avx512
        && matches!(extent, [3, 3] | [5, 5] | [3, 9])
        && right + extent[1] <= BLOCK
}

/// `dw[row][value][o] += sum over windows, samples of image[where o won][row][value] * dy[o]`: a quarter of the products of
/// all four positions.
///
/// # Panics
/// Unless [`knows_winners`].
pub(crate) fn winners_gradient(p: &mut Winners<'_>) {
    assert!(knows_winners(p.extent, p.right));
    let [rows, values] = p.extent;
    let corner = p.corners.iter().max().copied().unwrap_or(0);
    let last = p.samples.saturating_sub(1) * p.image + corner + rows * p.line + p.right + values;
    assert!(last <= p.images.len() && p.right + values <= p.line);
    let len = p.corners.len() * p.samples * BLOCK;
    assert!(p.dy.len() >= len && p.winner.len() >= len);
    assert!(p.dw.len() >= (rows * values - 1) * p.width + BLOCK);
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the machine has AVX-512, and the windows lie on the images (asserted above).
        unsafe {
            match p.extent {
                [3, 3] => avx512::winners::<3, 3>(p, 0),
                [5, 5] => {
                    avx512::winners::<3, 5>(p, 0);
                    avx512::winners::<2, 5>(p, 3);
                }
                [3, 9] => (0..3).for_each(|row| avx512::winners::<1, 9>(p, row)),
                _ => unreachable!("not known"),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{BLOCK, Winners};
    use std::arch::x86_64::*;

    /// `ROWS` rows of the gradient from `first_row` on: few enough that their sums and as many values fit into the registers.
    ///
    /// # Safety
    /// As asserted in [`super::winners_gradient`], there must be so many rows, and a row of an image under four windows must
    /// fit into a vector.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt")]
    pub(super) unsafe fn winners<const ROWS: usize, const VALUES: usize>(
        p: &mut Winners<'_>,
        first_row: usize,
    ) {
        let inside = ((1_u32 << (VALUES + p.right)) - 1) as __mmask16;
        let mut sums = [[_mm512_setzero_ps(); VALUES]; ROWS];
        for (window, corner) in p.corners.iter().enumerate() {
            for sample in 0..p.samples {
                // SAFETY: the caller vouches for windows, gradients and winners; what lies beyond a window is not read.
                unsafe {
                    let at = (window * p.samples + sample) * BLOCK;
                    let g = _mm512_loadu_ps(p.dy.as_ptr().add(at));
                    let winner = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.winner.as_ptr().add(at).cast()));
                    // A value of the row above or, 16 on, below.
                    let below = _mm512_slli_epi32::<4>(_mm512_srli_epi32::<1>(winner));
                    let is_right = _mm512_test_epi32_mask(winner, _mm512_set1_epi32(1));
                    let right = _mm512_set1_epi32(p.right as i32);
                    let first = _mm512_mask_add_epi32(below, is_right, below, right);
                    let image = p.images.as_ptr().add(sample * p.image + corner + first_row * p.line);
                    let mut above = _mm512_maskz_loadu_ps(inside, image);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let below = _mm512_maskz_loadu_ps(inside, image.add((row + 1) * p.line));
                        let mut index = first;
                        for sum in sums {
                            *sum = _mm512_fmadd_ps(_mm512_permutex2var_ps(above, index, below), g, *sum);
                            index = _mm512_add_epi32(index, _mm512_set1_epi32(1));
                        }
                        above = below;
                    }
                }
            }
        }
        for (i, &sum) in sums.as_flattened().iter().enumerate() {
            // SAFETY: the caller vouches for a block of each row of `dw`.
            unsafe {
                let to = p.dw.as_mut_ptr().add((first_row * VALUES + i) * p.width);
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), sum));
            }
        }
    }
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

    #[test]
    fn gradients_of_winners_match_plain_loops() {
        for (extent, right, blocks) in [([5, 5], 1, 2), ([3, 3], 1, 1), ([3, 9], 3, 2)] {
            let ([rows, values], samples, width) = (extent, 3, blocks * BLOCK);
            let line = values + 2 * right + 4;
            let corners = [0, 2 * right, 2];
            let image = corners[1] + rows * line + right + values;
            // Nothing lies behind the last value that a window reads.
            let images = noise((samples - 1) * image + corners[1] + rows * line + right + values, 1);
            let len = corners.len() * samples * BLOCK;
            let dy = noise(len, 2);
            let winner: Vec<u8> = noise(len, 3).iter().map(|value| (value.to_bits() % 4) as u8).collect();
            let before = noise(rows * values * width, 4);
            let mut dw = before.clone();
            if !knows_winners(extent, right) {
                continue;
            }
            winners_gradient(&mut Winners {
                images: &images,
                corners: &corners,
                right,
                line,
                image,
                samples,
                extent,
                dy: &dy,
                winner: &winner,
                dw: &mut dw[width - BLOCK..],
                width,
            });
            let mut expected = before;
            for at in 0..len {
                let (row, lane, position) = (at / BLOCK, at % BLOCK, usize::from(winner[at]));
                let corner = corners[row / samples] + position / 2 * line + position % 2 * right;
                for i in 0..rows * values {
                    let value = images[row % samples * image + corner + i / values * line + i % values];
                    expected[i * width + width - BLOCK + lane] += value * dy[at];
                }
            }
            for (f, e) in dw.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-5 * (1.0 + e.abs()), "{f} is not {e}");
            }
        }
    }
}
