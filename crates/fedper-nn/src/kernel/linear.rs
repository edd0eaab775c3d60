//! A linear layer of few samples: a layer whose weights do not stay in the cache costs as much as reading and writing them.
//! So they lie in tiles `[output][input]`, whose rows are vectors of inputs, and the backward pass and its SGD step walk over
//! them once, as one stream: without exchanging rows and columns anywhere.

use std::mem::MaybeUninit;

use super::simd::Simd;
use super::{BLOCK, vectorised};
use crate::optim::Sgd;

/// The weights from one block of inputs, at one position, to all outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// Where the inputs lie: a row of [`BLOCK`] for each sample.
    pub(crate) x: usize,
    /// Where the weights begin: `[output][BLOCK]`.
    pub(crate) w: usize,
}

/// Inputs and weights of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) samples: usize,
    pub(crate) tiles: &'a [Tile],
    /// Whole blocks.
    pub(crate) outputs: usize,
}

impl Inputs<'_> {
    /// # Panics
    /// If a tile's inputs or weights are not among so many.
    fn check(&self, weights: usize) {
        assert!(self.outputs.is_multiple_of(BLOCK));
        for tile in self.tiles {
            assert!(tile.w + BLOCK * self.outputs <= weights);
            assert!(tile.x + self.samples * BLOCK <= self.x.len());
        }
    }
}

/// Inputs of all samples that should stay in the first-level cache while weights pass by.
const CACHED: usize = 5 << 10;
/// Outputs whose products are added up in one chain, see [`super::gemm`].
const CHAIN: usize = 128;
/// How many rows of weights ahead the forward pass asks for.
const AHEAD: usize = 4;

/// How many rows of weights and velocities ahead the backward pass asks for.
const EARLY: usize = 32;

/// Samples that are worked on at a time: with two accumulators each they fill more than half of the registers.
const fn most<S: Simd>() -> usize {
    match BLOCK / S::LANES {
        1 => 10,
        2 => 5,
        _ => 2,
    }
}

/// Calls a function for `count` samples in groups that it is compiled for.
macro_rules! in_groups {
    ($s:ident, $count:expr, |$first:ident| $function:ident($($arg:expr),*)) => {
        let mut $first = 0;
        while $first < $count {
            $first += match most::<$s>().min($count - $first) {
                10.. => { $function::<$s, 10>($($arg),*); 10 }
                5..10 => { $function::<$s, 5>($($arg),*); 5 }
                2..5 => { $function::<$s, 2>($($arg),*); 2 }
                _ => { $function::<$s, 1>($($arg),*); 1 }
            };
        }
    };
}

vectorised! {
    /// `y[n][o] = bias[o] + sum over i of x[n][i] * w[o][i]`; blocks of `y` lie `y_plane` apart.
    pub(crate) fn forward<S>(inputs: &Inputs<'_>, w: &[f32], bias: &[f32], y: &mut [f32], y_plane: usize) {
        inputs.check(w.len());
        assert!(bias.len() >= inputs.outputs && inputs.outputs > 0);
        assert!(y.len() >= (inputs.outputs / BLOCK - 1) * y_plane + inputs.samples * BLOCK);
        in_groups!(S, inputs.samples, |row| forward_rows(inputs, w, bias, y, y_plane, row));
    }
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Square([MaybeUninit<[f32; BLOCK]>; BLOCK]);

/// # Safety
/// As asserted in [`forward`], and there must be `ROWS` samples from `row` on; the machine must have `S`.
#[inline(always)]
unsafe fn forward_rows<S: Simd, const ROWS: usize>(
    inputs: &Inputs<'_>,
    w: &[f32],
    bias: &[f32],
    y: &mut [f32],
    y_plane: usize,
    row: usize,
) {
    let part = (CACHED / (ROWS * BLOCK)).max(1);
    // Of each sample and output, a vector whose lanes remain to be added up.
    let mut sums = [Square([MaybeUninit::<[f32; BLOCK]>::uninit(); BLOCK]); ROWS];
    for (number, tiles) in inputs.tiles.chunks(part).enumerate() {
        for block in 0..inputs.outputs / BLOCK {
            for o in (0..BLOCK).step_by(2) {
                // SAFETY: the caller vouches for the tiles' weights and inputs.
                unsafe {
                    let mut pair = [[S::zero(); 2]; ROWS];
                    for tile in tiles {
                        let w = w.as_ptr().add(tile.w + (block * BLOCK + o) * BLOCK);
                        let x = inputs.x.as_ptr().add(tile.x + row * BLOCK);
                        products::<S, ROWS>(&mut pair, x, w);
                    }
                    for (sums, pair) in sums.iter_mut().zip(pair) {
                        for (sums, sum) in sums.0[o..].iter_mut().zip(pair) {
                            S::store(sums.as_mut_ptr().cast(), sum);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let mut lanes = [0.0; BLOCK];
                // SAFETY: there are a vector for each output, and the caller vouches for `y` and `bias`.
                unsafe {
                    S::sum_lanes(sums.0.as_ptr().cast(), &mut lanes);
                    let to = y.as_mut_ptr().add(block * y_plane + (row + r) * BLOCK);
                    for v in (0..BLOCK).step_by(S::LANES) {
                        let start = match number {
                            0 => S::load(bias.as_ptr().add(block * BLOCK + v)),
                            _ => S::load(to.add(v)),
                        };
                        S::store(to.add(v), S::add(start, S::load(lanes.as_ptr().add(v))));
                    }
                }
            }
        }
    }
}

/// Adds the products of one tile's inputs and two rows of its weights.
///
/// # Safety
/// There must be `ROWS` samples from `x` on, and two rows of weights; the machine must have `S`.
#[inline(always)]
unsafe fn products<S: Simd, const ROWS: usize>(pair: &mut [[S::V; 2]; ROWS], x: *const f32, w: *const f32) {
    // SAFETY: passed on to the caller.
    unsafe {
        S::prefetch(w.wrapping_add(AHEAD * BLOCK));
        S::prefetch(w.wrapping_add((AHEAD + 1) * BLOCK));
        for v in (0..BLOCK).step_by(S::LANES) {
            let weights = [S::load(w.add(v)), S::load(w.add(BLOCK + v))];
            for (r, pair) in pair.iter_mut().enumerate() {
                let x = S::load(x.add(r * BLOCK + v));
                for (sum, weights) in pair.iter_mut().zip(weights) {
                    *sum = S::mul_add(x, weights, *sum);
                }
            }
        }
    }
}

vectorised! {
    /// `dx[n][i] (+)= sum over o of dy[o][n] * w[o][i]`, and then, with `sgd`, the step of `w` and the velocities `v` against
    /// the gradient `sum over n of x[n][i] * dy[o][n]`, as [`super::elementwise::sgd`] does it.
    ///
    /// # Shapes
    /// `dy` `[output][sample]`, `dx` as the inputs.
    pub(crate) fn backward<S>(
        inputs: &Inputs<'_>,
        dy: &[f32],
        dx: &mut [f32],
        add: bool,
        w: &mut [f32],
        v: &mut [f32],
        sgd: Option<&Sgd>,
    ) {
        inputs.check(w.len());
        assert!(dx.len() >= inputs.x.len() && v.len() == w.len());
        assert!(dy.len() >= inputs.outputs * inputs.samples);
        // Those that the forward pass has read last come first: some of them are still in the second-level cache.
        for tile in inputs.tiles.iter().rev() {
            for lane in (0..BLOCK).step_by(S::LANES) {
                let mut lanes = Lanes {
                    x: inputs.x.as_ptr().add(tile.x + lane),
                    dx: dx.as_mut_ptr().add(tile.x + lane),
                    add,
                    dy,
                    samples: inputs.samples,
                    outputs: inputs.outputs,
                    w: w.as_mut_ptr().add(tile.w + lane),
                    v: v.as_mut_ptr().add(tile.w + lane),
                };
                match (sgd, inputs.samples, S::LANES == BLOCK) {
                    // Inputs and sums of so many samples fit into the registers.
                    (Some(sgd), 10, true) if sgd.weight_decay == 0.0 => {
                        at_once::<S, 10, false>(&mut lanes, sgd);
                    }
                    (Some(sgd), 10, true) => at_once::<S, 10, true>(&mut lanes, sgd),
                    // The same bits, whether weights change here or later.
                    (None, 10, true) => input_chains::<S, 10, 1>(&mut lanes, 0),
                    _ => {
                        in_groups!(S, inputs.samples, |row| input_rows(&mut lanes, row));
                        if let Some(sgd) = sgd {
                            step::<S>(&mut lanes, sgd);
                        }
                    }
                }
            }
        }
    }
}

/// A vector of inputs of every sample, and of weights of every output.
struct Lanes<'a> {
    /// Samples [`BLOCK`] apart.
    x: *const f32,
    dx: *mut f32,
    add: bool,
    dy: &'a [f32],
    samples: usize,
    outputs: usize,
    /// Outputs [`BLOCK`] apart.
    w: *mut f32,
    v: *mut f32,
}

impl Lanes<'_> {
    /// Adds to the input gradient of a sample, or sets it at first.
    ///
    /// # Safety
    /// The machine must have `S`.
    #[inline(always)]
    unsafe fn put<S: Simd>(&self, sample: usize, first: bool, sum: S::V) {
        // SAFETY: there is a vector for each sample.
        unsafe {
            let to = self.dx.add(sample * BLOCK);
            S::store(to, if first && !self.add { sum } else { S::add(S::load(to), sum) });
        }
    }
}

/// Both at once: each weight's vector is read once, and each output gradient is used twice.
///
/// # Safety
/// `lanes` must be as [`backward`] makes them, with `ROWS` samples; the machine must have `S`. So for the functions below.
#[inline(always)]
unsafe fn at_once<S: Simd, const ROWS: usize, const DECAY: bool>(lanes: &mut Lanes<'_>, sgd: &Sgd) {
    // SAFETY: passed on to the caller.
    unsafe {
        let change = Step::<S>::new(sgd);
        let x: [S::V; ROWS] = std::array::from_fn(|n| S::load(lanes.x.add(n * BLOCK)));
        for first in (0..lanes.outputs).step_by(CHAIN) {
            let mut sums = [S::zero(); ROWS];
            for o in first..lanes.outputs.min(first + CHAIN) {
                let dy = lanes.dy.as_ptr().add(o * ROWS);
                let w = S::load(lanes.w.add(o * BLOCK));
                S::prefetch(lanes.w.wrapping_add((o + EARLY) * BLOCK));
                S::prefetch(lanes.v.wrapping_add((o + EARLY) * BLOCK));
                let mut g = S::zero();
                for (n, (sum, &x)) in sums.iter_mut().zip(&x).enumerate() {
                    let dy = S::splat(*dy.add(n));
                    *sum = S::mul_add(dy, w, *sum);
                    g = S::mul_add(dy, x, g);
                }
                let at = o * BLOCK;
                change.apply::<DECAY>(lanes.w.add(at), lanes.v.add(at), g);
            }
            for (n, &sum) in sums.iter().enumerate() {
                lanes.put::<S>(n, first == 0, sum);
            }
        }
    }
}

/// The input gradient of `ROWS` samples from `row` on: two chains for each, of even and odd outputs, lose less to rounding
/// than one.
///
/// # Safety
/// As [`at_once`].
#[inline(always)]
unsafe fn input_rows<S: Simd, const ROWS: usize>(lanes: &mut Lanes<'_>, row: usize) {
    // SAFETY: passed on to the caller.
    unsafe { input_chains::<S, ROWS, 2>(lanes, row) }
}

/// [`input_rows`] in so many chains.
///
/// # Safety
/// As [`at_once`].
#[inline(always)]
unsafe fn input_chains<S: Simd, const ROWS: usize, const CHAINS: usize>(lanes: &mut Lanes<'_>, row: usize) {
    // SAFETY: passed on to the caller; outputs are whole blocks.
    unsafe {
        for first in (0..lanes.outputs).step_by(CHAIN) {
            let mut sums = [[S::zero(); CHAINS]; ROWS];
            for o in (first..lanes.outputs.min(first + CHAIN)).step_by(CHAINS) {
                let w: [S::V; CHAINS] = std::array::from_fn(|i| S::load(lanes.w.add((o + i) * BLOCK)));
                for (n, sums) in sums.iter_mut().enumerate() {
                    for (i, (sum, w)) in sums.iter_mut().zip(w).enumerate() {
                        let dy = lanes.dy.as_ptr().add((o + i) * lanes.samples + row + n);
                        *sum = S::mul_add(S::splat(*dy), w, *sum);
                    }
                }
            }
            for (n, sums) in sums.into_iter().enumerate() {
                let sum = sums.into_iter().reduce(|a, b| S::add(a, b)).expect("a chain");
                lanes.put::<S>(row + n, first == 0, sum);
            }
        }
    }
}

/// The step of the weights.
///
/// # Safety
/// As [`at_once`].
#[inline(always)]
unsafe fn step<S: Simd>(lanes: &mut Lanes<'_>, sgd: &Sgd) {
    const OUTPUTS: usize = 8;
    // SAFETY: passed on to the caller; outputs are whole blocks.
    unsafe {
        let change = Step::<S>::new(sgd);
        for first in (0..lanes.outputs).step_by(OUTPUTS) {
            let mut sums = [S::zero(); OUTPUTS];
            for n in 0..lanes.samples {
                let x = S::load(lanes.x.add(n * BLOCK));
                for (o, sum) in sums.iter_mut().enumerate() {
                    let dy = lanes.dy.as_ptr().add((first + o) * lanes.samples + n);
                    *sum = S::mul_add(S::splat(*dy), x, *sum);
                }
            }
            for (o, &g) in sums.iter().enumerate() {
                let at = (first + o) * BLOCK;
                match sgd.weight_decay == 0.0 {
                    true => change.apply::<false>(lanes.w.add(at), lanes.v.add(at), g),
                    false => change.apply::<true>(lanes.w.add(at), lanes.v.add(at), g),
                }
            }
        }
    }
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

#[cfg(test)]
mod tests;
