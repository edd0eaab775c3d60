//! The backward pass of a linear layer and its SGD step in one walk over the weights, tile by tile in the order they lie:
//! a layer whose weights do not stay in the cache costs as much as reading and writing them, so they are touched once, and
//! as one stream.

use std::mem::MaybeUninit;

use super::simd::Simd;
use super::{BLOCK, vectorised};
use crate::optim::Sgd;

/// All inputs by one panel of outputs.
#[derive(Debug)]
pub(crate) struct Panel<'a> {
    /// Inputs, and their gradient: a row of [`BLOCK`] for each sample, `samples` of them from each of these places on.
    pub(crate) x: &'a [f32],
    pub(crate) dx: &'a mut [f32],
    pub(crate) places: &'a [usize],
    pub(crate) samples: usize,
    /// The gradient of the panel's outputs, from its first block on; the next block lies `dy_plane` further on.
    pub(crate) dy: &'a [f32],
    pub(crate) dy_plane: usize,
    /// Blocks of the panel.
    pub(crate) blocks: usize,
    /// Weights and velocities, [`BLOCK`] rows of the panel for each place.
    pub(crate) w: &'a mut [f32],
    pub(crate) v: &'a mut [f32],
}

/// The inputs of one place.
struct Tile<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dy_plane: usize,
    blocks: usize,
    w: &'a mut [f32],
    v: &'a mut [f32],
    dx: &'a mut [f32],
}

impl Tile<'_> {
    fn samples(&self) -> usize {
        self.x.len() / BLOCK
    }
}

/// Blocks of the widest panel.
const MAX_BLOCKS: usize = 2;

/// A tile's weights with inputs and outputs exchanged: `[output][16]`.
#[repr(align(64))]
struct Transposed([MaybeUninit<[f32; BLOCK]>; MAX_BLOCKS * BLOCK]);

vectorised! {
    /// `dx[n][i] (+)= sum over o of dy[n][o] * w[i][o]`, and then, with `sgd`, the step of `w` against its gradient
    /// `sum over n of x[n][i] * dy[n][o]`, as [`super::elementwise::sgd`] does it.
    pub(crate) fn linear_panel<S>(panel: &mut Panel<'_>, add: bool, sgd: Option<&Sgd>) {
        let (rows, len) = (panel.samples * BLOCK, panel.blocks * BLOCK * BLOCK);
        assert!((1..=MAX_BLOCKS).contains(&panel.blocks));
        assert!(panel.dy.len() >= (panel.blocks - 1) * panel.dy_plane + rows);
        assert!(panel.w.len() == panel.places.len() * len && panel.v.len() == panel.w.len());
        let tiles = panel.w.chunks_exact_mut(len).zip(panel.v.chunks_exact_mut(len));
        for ((w, v), &place) in tiles.zip(panel.places) {
            let (x, dx) = (&panel.x[place..place + rows], &mut panel.dx[place..place + rows]);
            let mut tile =
                Tile { x, dy: panel.dy, dy_plane: panel.dy_plane, blocks: panel.blocks, w, v, dx };
            linear_tile::<S>(&mut tile, add, sgd);
        }
    }
}

/// # Safety
/// The tile's slices must be as [`linear_panel`] makes them, and the machine must have `S`.
#[inline(always)]
unsafe fn linear_tile<S: Simd>(tile: &mut Tile<'_>, add: bool, sgd: Option<&Sgd>) {
    // SAFETY: passed on to the caller; weights are transposed before they are read.
    unsafe {
        // All at once, while no accumulator needs a register.
        let mut transposed = Transposed([MaybeUninit::uninit(); MAX_BLOCKS * BLOCK]);
        for (block, to) in transposed.0.chunks_exact_mut(BLOCK).take(tile.blocks).enumerate() {
            let from = tile.w.as_ptr().add(block * BLOCK);
            // A width that the compiler knows.
            match tile.blocks {
                1 => S::transpose(from, BLOCK, to.as_mut_ptr().cast(), BLOCK),
                _ => S::transpose(from, 2 * BLOCK, to.as_mut_ptr().cast(), BLOCK),
            }
        }
        // Accumulators are two for each row of `dx`; more than half of the registers hold them.
        let most = if S::LANES == BLOCK {
            10
        } else if 2 * S::LANES == BLOCK {
            5
        } else {
            2
        };
        let mut row = 0;
        while row < tile.samples() {
            row += match most.min(tile.samples() - row) {
                10 => input_rows::<S, 10>(tile, &transposed, row, add),
                5..10 => input_rows::<S, 5>(tile, &transposed, row, add),
                2..5 => input_rows::<S, 2>(tile, &transposed, row, add),
                _ => input_rows::<S, 1>(tile, &transposed, row, add),
            };
        }
        let Some(sgd) = sgd else { return };
        let wide = (tile.blocks * BLOCK).is_multiple_of(2 * S::LANES);
        match (tile.samples(), wide, S::LANES == BLOCK) {
            // The output gradients of so many samples fit into the registers.
            (10, true, true) if sgd.weight_decay == 0.0 => step_in_registers::<S, 10, 2, false>(tile, sgd),
            (10, true, true) => step_in_registers::<S, 10, 2, true>(tile, sgd),
            // Accumulators are a vector for each input and vector of outputs.
            (_, true, true) => step::<S, 2, 8>(tile, sgd),
            (_, true, false) => step::<S, 2, 4>(tile, sgd),
            (_, false, true) => step::<S, 1, 16>(tile, sgd),
            (_, false, false) => step::<S, 1, 8>(tile, sgd),
        }
    }
}

/// Rows `row..row + ROWS` of `dx`. Returns `ROWS`.
///
/// # Safety
/// The tile's slices must be as [`linear_panel`] makes them, its weights must be in `transposed`, and the machine
/// must have `S`.
#[inline(always)]
unsafe fn input_rows<S: Simd, const ROWS: usize>(
    tile: &mut Tile<'_>,
    transposed: &Transposed,
    row: usize,
    add: bool,
) -> usize {
    const { assert!(BLOCK.is_multiple_of(S::LANES)) };
    // SAFETY: the caller vouches for the lengths of the slices and for what is in `transposed`.
    unsafe {
        for lane in (0..BLOCK).step_by(S::LANES) {
            // Two chains for each row, of even and odd outputs, lose less to rounding than one.
            let mut sums = [[S::zero(); 2]; ROWS];
            for block in 0..tile.blocks {
                let dy = tile.dy.as_ptr().add(block * tile.dy_plane + row * BLOCK);
                let weights = transposed.0.as_ptr().add(block * BLOCK).cast::<f32>().add(lane);
                for o in (0..BLOCK).step_by(2) {
                    let even = S::load(weights.add(o * BLOCK));
                    let odd = S::load(weights.add((o + 1) * BLOCK));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let dy = dy.add(r * BLOCK + o);
                        sums[0] = S::mul_add(S::splat(*dy), even, sums[0]);
                        sums[1] = S::mul_add(S::splat(*dy.add(1)), odd, sums[1]);
                    }
                }
            }
            for (r, [even, odd]) in sums.into_iter().enumerate() {
                let sum = S::add(even, odd);
                let to = tile.dx.as_mut_ptr().add((row + r) * BLOCK + lane);
                S::store(to, if add { S::add(S::load(to), sum) } else { sum });
            }
        }
    }
    ROWS
}

/// A step of SGD, a vector at a time.
struct Step<S: Simd> {
    lr: S::V,
    momentum: Option<S::V>,
    decay: S::V,
}

impl<S: Simd> Step<S> {
    /// # Safety
    /// The machine must have `S`.
    #[inline(always)]
    unsafe fn new(sgd: &Sgd) -> Self {
        // SAFETY: passed on to the caller.
        unsafe {
            let momentum = (sgd.momentum != 0.0).then(|| S::splat(sgd.momentum));
            Self { lr: S::splat(sgd.lr), momentum, decay: S::splat(sgd.weight_decay) }
        }
    }

    /// Changes a vector of weights and velocities by their gradient `g`; `DECAY` is whether there is weight decay.
    ///
    /// # Safety
    /// As [`Step::new`], and a vector must lie at both pointers.
    #[inline(always)]
    unsafe fn apply<const DECAY: bool>(&self, w: *mut f32, v: *mut f32, g: S::V) {
        // SAFETY: passed on to the caller.
        unsafe {
            let p = S::load(w);
            let mut change = if DECAY { S::add(g, S::mul(self.decay, p)) } else { g };
            if let Some(momentum) = self.momentum {
                change = S::flush(S::add(S::mul(momentum, S::load(v)), change));
                S::store(v, change);
            }
            S::store(w, S::sub(p, S::mul(self.lr, change)));
        }
    }
}

/// Changes the weights with all output gradients in registers: `SAMPLES` rows of `VECTORS` vectors, which are the panel.
///
/// # Safety
/// As [`input_rows`].
#[inline(always)]
unsafe fn step_in_registers<S: Simd, const SAMPLES: usize, const VECTORS: usize, const DECAY: bool>(
    tile: &mut Tile<'_>,
    sgd: &Sgd,
) {
    // SAFETY: the caller vouches for the lengths of the slices.
    unsafe {
        let change = Step::<S>::new(sgd);
        let dy: [[S::V; VECTORS]; SAMPLES] = std::array::from_fn(|n| {
            std::array::from_fn(|v| {
                let (block, lane) = (v * S::LANES / BLOCK, v * S::LANES % BLOCK);
                S::load(tile.dy.as_ptr().add(block * tile.dy_plane + n * BLOCK + lane))
            })
        });
        for input in 0..BLOCK {
            let mut sums = [S::zero(); VECTORS];
            // In their order, which gives the bits that the gradient has elsewhere.
            for (n, dy) in dy.iter().enumerate() {
                let x = S::splat(*tile.x.as_ptr().add(n * BLOCK + input));
                for (sum, &dy) in sums.iter_mut().zip(dy) {
                    *sum = S::mul_add(x, dy, *sum);
                }
            }
            for (v, g) in sums.into_iter().enumerate() {
                let at = (input * VECTORS + v) * S::LANES;
                change.apply::<DECAY>(tile.w.as_mut_ptr().add(at), tile.v.as_mut_ptr().add(at), g);
            }
        }
    }
}

/// Changes the weights, those of `INPUTS` inputs at a time.
///
/// # Safety
/// As [`input_rows`], and a panel must be whole steps of `VECTORS` vectors.
#[inline(always)]
unsafe fn step<S: Simd, const VECTORS: usize, const INPUTS: usize>(tile: &mut Tile<'_>, sgd: &Sgd) {
    let (width, in_block) = (tile.blocks * BLOCK, BLOCK / S::LANES);
    // SAFETY: the caller vouches for the lengths of the slices.
    unsafe {
        let change = Step::<S>::new(sgd);
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
                        change.apply::<true>(tile.w.as_mut_ptr().add(at), tile.v.as_mut_ptr().add(at), *g);
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
    fn a_panel_matches_plain_loops() {
        for (samples, blocks, [momentum, weight_decay], add, steps) in [
            (1, 1, [0.0, 0.01], false, true),
            (2, 2, [0.9, 0.0], true, true),
            (3, 1, [0.9, 0.01], false, true),
            (7, 2, [0.0, 0.0], true, true),
            (10, 2, [0.9, 0.01], false, true),
            (10, 2, [0.9, 0.0], true, true),
            (10, 2, [0.0, 0.01], true, true),
            (10, 1, [0.9, 0.01], true, true),
            (23, 1, [0.9, 0.01], true, false),
            (26, 2, [0.9, 0.01], true, true),
        ] {
            let (width, dy_plane) = (blocks * BLOCK, (samples + 3) * BLOCK);
            // In no order, with something between them.
            let places = [2, 0, 1].map(|i| i * (samples + 2) * BLOCK);
            let inputs = places.len() * BLOCK;
            let x = noise(places.len() * (samples + 2) * BLOCK, 1);
            let (dy, dx) = (noise(blocks * dy_plane, 2), noise(x.len(), 5));
            let (w, v) = (noise(inputs * width, 3), noise(inputs * width, 4));
            let sgd = Sgd { lr: 0.1, momentum, weight_decay };
            let dy_at = |n: usize, o: usize| dy[o / BLOCK * dy_plane + n * BLOCK + o % BLOCK];
            let at = |n: usize, i: usize| places[i / BLOCK] + n * BLOCK + i % BLOCK;

            let (mut new_w, mut new_v, mut new_dx) = (w.clone(), v.clone(), dx.clone());
            let (w_, v_, dx_) = (&mut new_w[..], &mut new_v[..], &mut new_dx[..]);
            let mut panel =
                Panel { x: &x, dx: dx_, places: &places, samples, dy: &dy, dy_plane, blocks, w: w_, v: v_ };
            linear_panel(&mut panel, add, steps.then_some(&sgd));

            let close = |found: f32, expected: f32| (found - expected).abs() < 1e-5 * (1.0 + expected.abs());
            let mut expected_dx = dx;
            for (n, i) in (0..samples).flat_map(|n| (0..inputs).map(move |i| (n, i))) {
                let sum: f32 = (0..width).map(|o| dy_at(n, o) * w[i * width + o]).sum();
                let before = if add { expected_dx[at(n, i)] } else { 0.0 };
                expected_dx[at(n, i)] = before + sum;
            }
            assert!(new_dx.iter().zip(&expected_dx).all(|(&f, &e)| close(f, e)));
            let (mut expected_w, mut expected_v) = (w, v);
            if steps {
                let gradient = |i: usize, o: usize| (0..samples).map(|n| x[at(n, i)] * dy_at(n, o)).sum();
                let gradient: Vec<f32> =
                    (0..inputs * width).map(|j| gradient(j / width, j % width)).collect();
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
