//! Depthwise convolution of one block of channels: every tap is a product of rows with one row of weights.

use super::simd::Simd;
use super::{BLOCK, Row, vectorised};

/// Taps that one pass adds up in registers.
pub(crate) const MAX_TAPS: usize = 9;

/// `$body` with `$taps` taps known to the compiler, so that their weights stay in registers.
macro_rules! unrolled {
    ($count:expr, $taps:ident => $body:expr) => {
        match $count {
            1 => {
                const $taps: usize = 1;
                $body
            }
            2 => {
                const $taps: usize = 2;
                $body
            }
            3 => {
                const $taps: usize = 3;
                $body
            }
            4 => {
                const $taps: usize = 4;
                $body
            }
            5 => {
                const $taps: usize = 5;
                $body
            }
            6 => {
                const $taps: usize = 6;
                $body
            }
            7 => {
                const $taps: usize = 7;
                $body
            }
            8 => {
                const $taps: usize = 8;
                $body
            }
            9 => {
                const $taps: usize = 9;
                $body
            }
            _ => unreachable!("at most MAX_TAPS taps"),
        }
    };
}

#[inline(always)]
unsafe fn sum_taps<S: Simd, const TAPS: usize>(
    sources: &[&[Row]],
    weights: &[Row],
    to: &mut [Row],
    add: bool,
) {
    assert!(sources.len() == TAPS && sources.iter().all(|source| source.len() == to.len()));
    let sources: [*const f32; TAPS] = std::array::from_fn(|tap| sources[tap].as_ptr().cast());
    // SAFETY: the caller has `S`; every source has as many rows as `to`.
    unsafe {
        for v in (0..BLOCK).step_by(S::LANES) {
            let weights: [S::V; TAPS] = std::array::from_fn(|tap| S::load(weights[tap].as_ptr().add(v)));
            let to_at = to.as_mut_ptr().cast::<f32>().add(v);
            for row in 0..to.len() {
                let at = row * BLOCK;
                let mut sum = if add { S::load(to_at.add(at)) } else { S::zero() };
                for tap in 0..TAPS {
                    sum = S::mul_add(S::load(sources[tap].add(at + v)), weights[tap], sum);
                }
                S::store(to_at.add(at), sum);
            }
        }
    }
}

#[inline(always)]
unsafe fn sum_gradients<S: Simd, const TAPS: usize>(sources: &[&[Row]], dy: &[Row], gradients: &mut [Row]) {
    assert!(sources.len() == TAPS && sources.iter().all(|source| source.len() == dy.len()));
    let sources: [*const f32; TAPS] = std::array::from_fn(|tap| sources[tap].as_ptr().cast());
    // SAFETY: the caller has `S`; every source has as many rows as `dy`.
    unsafe {
        for v in (0..BLOCK).step_by(S::LANES) {
            let mut sums = [S::zero(); TAPS];
            let dy_at = dy.as_ptr().cast::<f32>().add(v);
            for row in 0..dy.len() {
                let dy = S::load(dy_at.add(row * BLOCK));
                for tap in 0..TAPS {
                    sums[tap] = S::mul_add(S::load(sources[tap].add(row * BLOCK + v)), dy, sums[tap]);
                }
            }
            for (gradient, sum) in gradients.iter_mut().zip(sums) {
                let to = gradient.as_mut_ptr().add(v);
                S::store(to, S::add(S::load(to), sum));
            }
        }
    }
}

vectorised! {
    /// `to[row] (+)= sum over taps of source[row] * weight`, for 1 to [`MAX_TAPS`] taps.
    pub(crate) fn taps<S>(sources: &[&[Row]], weights: &[Row], to: &mut [Row], add: bool) {
        unrolled!(weights.len(), TAPS => sum_taps::<S, TAPS>(sources, weights, to, add));
    }
}

vectorised! {
    /// `gradient += sum over rows of source[row] * dy[row]`, for each of 1 to [`MAX_TAPS`] taps.
    pub(crate) fn gradients<S>(sources: &[&[Row]], dy: &[Row], gradients: &mut [Row]) {
        unrolled!(gradients.len(), TAPS => sum_gradients::<S, TAPS>(sources, dy, gradients));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{rows, rows_mut};
    use crate::testing::noise;

    #[test]
    fn taps_match_plain_loops() {
        for count in [1, 2, 3, 7, 40] {
            for tap_count in 1..=MAX_TAPS {
                let source = noise((count + MAX_TAPS) * BLOCK, 1);
                let sources: Vec<&[Row]> = (0..tap_count).map(|tap| &rows(&source)[tap..][..count]).collect();
                let weights = noise(tap_count * BLOCK, 2);
                for add in [false, true] {
                    let before = noise(count * BLOCK, 3);
                    let mut to = before.clone();
                    taps(&sources, rows(&weights), rows_mut(&mut to), add);
                    for i in 0..to.len() {
                        let expected = (0..tap_count).fold(if add { before[i] } else { 0.0 }, |sum, tap| {
                            sum + source[tap * BLOCK + i] * weights[tap * BLOCK + i % BLOCK]
                        });
                        assert!((to[i] - expected).abs() < 1e-5);
                    }
                }
                let dy = noise(count * BLOCK, 4);
                let mut found = vec![1.0; tap_count * BLOCK];
                gradients(&sources, rows(&dy), rows_mut(&mut found));
                for (i, found) in found.iter().enumerate() {
                    let (tap, l) = (i / BLOCK, i % BLOCK);
                    let at =
                        |r: usize| f64::from(source[(tap + r) * BLOCK + l]) * f64::from(dy[r * BLOCK + l]);
                    let expected = 1.0 + (0..count).map(at).sum::<f64>();
                    assert!((f64::from(*found) - expected).abs() < 1e-5);
                }
            }
        }
    }
}
