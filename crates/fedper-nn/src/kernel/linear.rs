//! The backward pass of a linear layer and its SGD step in one walk over the weights, tile by tile in the order they lie:
//! a layer whose weights do not stay in the cache costs as much as reading and writing them, so they are touched once, and
//! as one stream.

use super::simd::Simd;
use super::{BLOCK, vectorised};
use crate::optim::Sgd;

/// [`BLOCK`] inputs by one panel of outputs.
#[derive(Debug)]
pub(crate) struct Tile<'a> {
    /// A row for each sample.
    pub(crate) x: &'a [f32],
    /// The gradient of the panel's outputs, from its first block on; the next block lies `dy_plane` further on.
    pub(crate) dy: &'a [f32],
    pub(crate) dy_plane: usize,
    /// Blocks of the panel.
    pub(crate) blocks: usize,
    /// Weights and velocities, [`BLOCK`] rows of the panel.
    pub(crate) w: &'a mut [f32],
    pub(crate) v: &'a mut [f32],
    /// The gradient of the inputs, a row for each sample.
    pub(crate) dx: &'a mut [f32],
}

impl Tile<'_> {
    fn samples(&self) -> usize {
        self.x.len() / BLOCK
    }
}

vectorised! {
    /// `dx[n][i] (+)= sum over o of dy[n][o] * w[i][o]`, and then, with `sgd`, the step of `w` against its gradient
    /// `sum over n of x[n][i] * dy[n][o]`, as [`super::elementwise::sgd`] does it.
    pub(crate) fn linear_tile<S>(tile: &mut Tile<'_>, add: bool, sgd: Option<&Sgd>) {
        let rows = tile.samples() * BLOCK;
        let panel = tile.blocks * BLOCK * BLOCK;
        assert!(tile.blocks > 0 && tile.dy.len() >= (tile.blocks - 1) * tile.dy_plane + rows);
        assert!(tile.dx.len() == rows && tile.w.len() == panel && tile.v.len() == panel);
        // Accumulators are a row of `dx`; half of the registers hold them.
        let most = if S::LANES == BLOCK { 10 } else if 2 * S::LANES == BLOCK { 5 } else { 2 };
        let velocities = sgd.is_some_and(|sgd| sgd.momentum != 0.0);
        let mut row = 0;
        while row < tile.samples() {
            row += match most.min(tile.samples() - row) {
                10 => input_rows::<S, 10>(tile, row, add, velocities),
                5..10 => input_rows::<S, 5>(tile, row, add, velocities),
                2..5 => input_rows::<S, 2>(tile, row, add, velocities),
                _ => input_rows::<S, 1>(tile, row, add, velocities),
            };
        }
        if let Some(sgd) = sgd {
            if (tile.blocks * BLOCK).is_multiple_of(2 * S::LANES) {
                step::<S, 2>(tile, sgd);
            } else {
                step::<S, 1>(tile, sgd);
            }
        }
    }
}

/// Rows `row..row + ROWS` of `dx`. Returns `ROWS`.
///
/// # Safety
/// The tile's slices must be as long as [`linear_tile`] wants them, and the machine must have `S`.
#[inline(always)]
unsafe fn input_rows<S: Simd, const ROWS: usize>(
    tile: &mut Tile<'_>,
    row: usize,
    add: bool,
    velocities: bool,
) -> usize {
    const { assert!(BLOCK.is_multiple_of(S::LANES)) };
    let width = tile.blocks * BLOCK;
    // SAFETY: the caller vouches for the lengths of the slices.
    unsafe {
        let mut transposed = [[[0.0; BLOCK]; 2]; BLOCK / 2];
        for part in 0..BLOCK / S::LANES {
            // Two chains for each row, of even and odd outputs, lose less to rounding than one.
            let mut sums = [[S::zero(); 2]; ROWS];
            for block in 0..tile.blocks {
                S::transpose(
                    tile.w.as_ptr().add(block * BLOCK),
                    width,
                    transposed.as_mut_ptr().cast(),
                    BLOCK,
                );
                let dy = tile.dy.as_ptr().add(block * tile.dy_plane + row * BLOCK);
                for (o, [even, odd]) in transposed.iter().enumerate() {
                    // The next tile, two lines at a time of weights and, if they are used, of velocities.
                    if part == 0 && row == 0 {
                        let line = tile.w.len() + (block * BLOCK / 2 + o) * 2 * BLOCK;
                        for line in [line, line + BLOCK] {
                            S::prefetch(tile.w.as_ptr().wrapping_add(line));
                            if velocities {
                                S::prefetch(tile.v.as_ptr().wrapping_add(line));
                            }
                        }
                    }
                    let even = S::load(even.as_ptr().add(part * S::LANES));
                    let odd = S::load(odd.as_ptr().add(part * S::LANES));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let dy = dy.add(r * BLOCK + 2 * o);
                        sums[0] = S::mul_add(S::splat(*dy), even, sums[0]);
                        sums[1] = S::mul_add(S::splat(*dy.add(1)), odd, sums[1]);
                    }
                }
            }
            for (r, [even, odd]) in sums.into_iter().enumerate() {
                let sum = S::add(even, odd);
                let to = tile.dx.as_mut_ptr().add((row + r) * BLOCK + part * S::LANES);
                S::store(to, if add { S::add(S::load(to), sum) } else { sum });
            }
        }
    }
    ROWS
}

/// Inputs whose weights are changed at a time.
const INPUTS: usize = 4;

/// # Safety
/// As [`input_rows`], and a panel must be whole steps of `VECTORS` vectors.
#[inline(always)]
unsafe fn step<S: Simd, const VECTORS: usize>(tile: &mut Tile<'_>, sgd: &Sgd) {
    let (width, in_block) = (tile.blocks * BLOCK, BLOCK / S::LANES);
    // SAFETY: the caller vouches for the lengths of the slices.
    unsafe {
        let (lr, momentum, decay) = (S::splat(sgd.lr), S::splat(sgd.momentum), S::splat(sgd.weight_decay));
        for first in (0..BLOCK).step_by(INPUTS) {
            for vector in (0..width / S::LANES).step_by(VECTORS) {
                let mut sums = [[S::zero(); VECTORS]; INPUTS];
                for n in 0..tile.samples() {
                    let mut dy = [S::zero(); VECTORS];
                    for (v, dy) in dy.iter_mut().enumerate() {
                        let (block, lane) = ((vector + v) / in_block, (vector + v) % in_block * S::LANES);
                        *dy = S::load(tile.dy.as_ptr().add(block * tile.dy_plane + n * BLOCK + lane));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let x = S::splat(*tile.x.as_ptr().add(n * BLOCK + first + i));
                        for (sum, dy) in sums.iter_mut().zip(dy) {
                            *sum = S::mul_add(x, dy, *sum);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (v, g) in sums.iter().enumerate() {
                        let at = (first + i) * width + (vector + v) * S::LANES;
                        let p = S::load(tile.w.as_ptr().add(at));
                        let mut change = S::add(*g, S::mul(decay, p));
                        if sgd.momentum != 0.0 {
                            change =
                                S::flush(S::add(S::mul(momentum, S::load(tile.v.as_ptr().add(at))), change));
                            S::store(tile.v.as_mut_ptr().add(at), change);
                        }
                        S::store(tile.w.as_mut_ptr().add(at), S::sub(p, S::mul(lr, change)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::elementwise;
    use crate::testing::noise;

    #[test]
    fn a_tile_matches_plain_loops() {
        for (samples, blocks, momentum, add, steps) in [
            (1, 1, 0.0, false, true),
            (2, 2, 0.9, true, true),
            (3, 1, 0.9, false, true),
            (7, 2, 0.0, true, true),
            (10, 2, 0.9, false, true),
            (23, 1, 0.9, true, false),
        ] {
            let (width, dy_plane) = (blocks * BLOCK, (samples + 3) * BLOCK);
            let (x, dy) = (noise(samples * BLOCK, 1), noise(blocks * dy_plane, 2));
            let (w, v) = (noise(BLOCK * width, 3), noise(BLOCK * width, 4));
            let dx = noise(samples * BLOCK, 5);
            let sgd = Sgd { lr: 0.1, momentum, weight_decay: 0.01 };
            let dy_at = |n: usize, o: usize| dy[o / BLOCK * dy_plane + n * BLOCK + o % BLOCK];

            let (mut new_w, mut new_v, mut new_dx) = (w.clone(), v.clone(), dx.clone());
            let (w_, v_, dx_) = (&mut new_w[..], &mut new_v[..], &mut new_dx[..]);
            let mut tile = Tile { x: &x, dy: &dy, dy_plane, blocks, w: w_, v: v_, dx: dx_ };
            linear_tile(&mut tile, add, steps.then_some(&sgd));

            let close = |found: f32, expected: f32| (found - expected).abs() < 1e-5 * (1.0 + expected.abs());
            for n in 0..samples {
                for i in 0..BLOCK {
                    let sum: f32 = (0..width).map(|o| dy_at(n, o) * w[i * width + o]).sum();
                    let before = if add { dx[n * BLOCK + i] } else { 0.0 };
                    assert!(close(new_dx[n * BLOCK + i], before + sum));
                }
            }
            let (mut expected_w, mut expected_v) = (w, v);
            if steps {
                let gradient: Vec<f32> = (0..BLOCK * width)
                    .map(|at| (0..samples).map(|n| x[n * BLOCK + at / width] * dy_at(n, at % width)).sum())
                    .collect();
                if momentum == 0.0 {
                    elementwise::sgd_plain(&mut expected_w, &gradient, sgd.lr, sgd.weight_decay);
                } else {
                    let Sgd { lr, momentum, weight_decay } = sgd;
                    elementwise::sgd(&mut expected_w, &mut expected_v, &gradient, lr, momentum, weight_decay);
                }
            }
            assert!(new_w.iter().zip(&expected_w).all(|(&f, &e)| close(f, e)));
            assert!(new_v.iter().zip(&expected_v).all(|(&f, &e)| close(f, e)));
        }
    }
}
