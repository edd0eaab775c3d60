//! Winograd's minimal filtering in two dimensions (Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
//! arXiv:1509.09308): a tile of 2x2 outputs of a 3x3 filter, from 4x4 inputs, takes 16 products instead of 36; one of 4x4
//! outputs of a 5x5 filter, from 8x8 inputs, 64 instead of 400.
//!
//! A tile's outputs are coefficients of a product of polynomials, found from its values at some points. With `*` of
//! corresponding values, which over many tiles and channels is a matrix product a point, and each transform applied to
//! columns and then to rows:
//!
//! - `y = output(input(x) * filter(w))`
//! - `dw = filter'(input(x) * output'(dy))`, where `'` is the transposed transform
//! - `dx = input'(filter(w) * output'(dy))`, in which neighbouring tiles overlap.
//!
//! The points are 0, 1, -1 and infinity, and for larger tiles 1/2, -1/2, 2 and -2 as well, which of all small fractions lose
//! least to rounding: 5 times what a sum of plain products loses, where the small tile loses 0.7 times as much. 4x4 outputs
//! of a 3x3 filter would take half of the products again, but in a deep network be further from PyTorch than PyTorch's own
//! rounding is from exact results.

pub(crate) mod lines;
mod points;
pub(crate) mod pooled;
mod side;

use points::{Eight, Four, Points};
pub(crate) use side::Side;

use super::gemm::Start;
use super::simd::Simd;
use super::{BLOCK, vectorised};

/// Which tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// 2x2 outputs of a 3x3 filter.
    F2x3,
    /// 4x4 outputs of a 5x5 filter.
    F4x5,
}

impl Scheme {
    pub(crate) const ALL: [Self; 2] = [Self::F2x3, Self::F4x5];

    /// Height and width of the filter.
    pub(crate) fn taps(self) -> usize {
        match self {
            Self::F2x3 => 3,
            Self::F4x5 => 5,
        }
    }

    /// Outputs of a tile, in each dimension.
    pub(crate) fn outputs(self) -> usize {
        match self {
            Self::F2x3 => 2,
            Self::F4x5 => 4,
        }
    }

    /// Products of a tile.
    pub(crate) fn points(self) -> usize {
        (self.outputs() + self.taps() - 1).pow(2)
    }
}

/// Calls a function for a scheme with its points, and the outputs, taps and inputs of a tile in each dimension.
macro_rules! with_scheme {
    ($scheme:expr, $function:ident::<$s:ident>($($arg:expr),*)) => {
        match $scheme {
            Scheme::F2x3 => $function::<$s, Four, 2, 3, 4>($($arg),*),
            Scheme::F4x5 => $function::<$s, Eight, 4, 5, 8>($($arg),*),
        }
    };
}
use with_scheme;

/// Applies a transform to the columns of a square and then to its rows.
macro_rules! twice {
    ($s:ident, $square:expr, $from:ident => $to:ident, $transform:path) => {{
        let mut columns = [[$s::zero(); $from]; $to];
        for j in 0..$from {
            let column = $transform(std::array::from_fn(|i| $square[i][j]));
            for (row, value) in columns.iter_mut().zip(column) {
                row[j] = value;
            }
        }
        let mut rows = [[$s::zero(); $to]; $to];
        for (row, column) in rows.iter_mut().zip(columns) {
            *row = $transform(column);
        }
        rows
    }};
}
use twice;

/// # Safety
/// There must be a vector at each of `SIDE * SIDE` points, `point` apart; the machine must have `S`.
#[inline(always)]
unsafe fn load_points<S: Simd, const SIDE: usize>(from: *const f32, point: usize) -> [[S::V; SIDE]; SIDE] {
    // SAFETY: passed on to the caller.
    unsafe { std::array::from_fn(|i| std::array::from_fn(|j| S::load(from.add((i * SIDE + j) * point)))) }
}

/// # Safety
/// As [`load_points`].
#[inline(always)]
unsafe fn store_points<S: Simd, const SIDE: usize>(to: *mut f32, point: usize, values: [[S::V; SIDE]; SIDE]) {
    // SAFETY: passed on to the caller.
    unsafe {
        // Two loops, which the compiler unrolls: flattened they would go through memory.
        for (i, row) in values.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                S::store(to.add((i * SIDE + j) * point), value);
            }
        }
    }
}

/// One tile in `[point][block][row][16]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    pub(crate) scheme: Scheme,
    /// From one point to the next, and from one block to the next.
    pub(crate) point: usize,
    pub(crate) plane: usize,
    /// Where its rows begin.
    pub(crate) first: usize,
}

impl Tile {
    /// Values up to its last one.
    fn end(&self, side: &Side) -> usize {
        (self.scheme.points() - 1) * self.point + (side.blocks - 1) * self.plane + self.first + side.len
    }
}

vectorised! {
    /// The points of the tile of inputs from row and column `corner` on; what lies outside is 0. `zeros` are at least as many
    /// as the samples' values.
    pub(crate) fn inputs<S>(
        x: &[f32],
        side: &Side,
        corner: [isize; 2],
        zeros: &[f32],
        to: &mut [f32],
        tile: &Tile,
    ) {
        assert!(tile.end(side) <= to.len() && side.len <= zeros.len());
        with_scheme!(tile.scheme, inputs_of::<S>(x, side, corner, zeros, to, tile))
    }
}

/// # Safety
/// As asserted in [`inputs`]; the machine must have `S`. So for the functions below.
#[inline(always)]
unsafe fn inputs_of<S: Simd, P: Points<SIDE>, const OUT: usize, const TAPS: usize, const SIDE: usize>(
    x: &[f32],
    side: &Side,
    corner: [isize; 2],
    zeros: &[f32],
    to: &mut [f32],
    tile: &Tile,
) {
    let mut from = side.square::<SIDE>(x.len(), corner, zeros.as_ptr(), x.as_ptr());
    for block in 0..side.blocks {
        let to = to.as_mut_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: `side` and `tile` lie in `x` and `to`; `zeros` are enough.
            unsafe {
                let square: [[S::V; SIDE]; SIDE] =
                    std::array::from_fn(|i| std::array::from_fn(|j| S::load(from[i][j].0.add(v))));
                let points = twice!(S, square, SIDE => SIDE, P::input::<S>);
                store_points::<S, SIDE>(to.add(v), tile.point, points);
            }
        }
        for (from, step) in from.iter_mut().flatten() {
            *from = from.wrapping_add(*step);
        }
    }
}

vectorised! {
    /// The transposed [`inputs`]: adds to the gradient of the inputs there are.
    pub(crate) fn input_gradients<S>(
        points: &[f32],
        tile: &Tile,
        dx: &mut [f32],
        side: &Side,
        corner: [isize; 2],
    ) {
        assert!(tile.end(side) <= points.len());
        with_scheme!(tile.scheme, input_gradients_of::<S>(points, tile, dx, side, corner))
    }
}

#[inline(always)]
unsafe fn input_gradients_of<
    S: Simd,
    P: Points<SIDE>,
    const OUT: usize,
    const TAPS: usize,
    const SIDE: usize,
>(
    points: &[f32],
    tile: &Tile,
    dx: &mut [f32],
    side: &Side,
    corner: [isize; 2],
) {
    let places = side.square::<SIDE>(dx.len(), corner, std::ptr::null(), dx.as_mut_ptr());
    for block in 0..side.blocks {
        let from = points.as_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: `tile` and `side` lie in `points` and `dx`.
            unsafe {
                let square = load_points::<S, SIDE>(from.add(v), tile.point);
                let values = twice!(S, square, SIDE => SIDE, P::input_gradient::<S>);
                for (values, places) in values.iter().zip(&places) {
                    for (&value, &(place, plane)) in values.iter().zip(places) {
                        if !place.is_null() {
                            let to = place.cast_mut().add(block * plane + v);
                            S::store(to, S::add(S::load(to), value));
                        }
                    }
                }
            }
        }
    }
}

vectorised! {
    /// The outputs of a tile, from row and column `corner` on. [`Start::Row`] is a value for each channel.
    pub(crate) fn outputs<S>(
        points: &[f32],
        tile: &Tile,
        y: &mut [f32],
        side: &Side,
        corner: [isize; 2],
        start: Start,
    ) {
        assert!(tile.end(side) <= points.len());
        with_scheme!(tile.scheme, outputs_of::<S>(points, tile, y, side, corner, start))
    }
}

#[inline(always)]
unsafe fn outputs_of<S: Simd, P: Points<SIDE>, const OUT: usize, const TAPS: usize, const SIDE: usize>(
    points: &[f32],
    tile: &Tile,
    y: &mut [f32],
    side: &Side,
    corner: [isize; 2],
    start: Start,
) {
    let places = side.square::<OUT>(y.len(), corner, std::ptr::null(), y.as_mut_ptr());
    for block in 0..side.blocks {
        let from = points.as_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: `tile` and `side` lie in `points` and `y`; the caller vouches for a start row of all channels.
            unsafe {
                let square = load_points::<S, SIDE>(from.add(v), tile.point);
                let values = twice!(S, square, SIDE => OUT, P::combine::<S, OUT>);
                for (values, places) in values.iter().zip(&places) {
                    for (&value, &(place, plane)) in values.iter().zip(places) {
                        if place.is_null() {
                            continue;
                        }
                        let to = place.cast_mut().add(block * plane + v);
                        let value = match start {
                            Start::Zero => value,
                            Start::Add => S::add(S::load(to), value),
                            Start::Row(row) => S::add(S::load(row.add(block * BLOCK + v % BLOCK)), value),
                        };
                        S::store(to, value);
                    }
                }
            }
        }
    }
}

vectorised! {
    /// The transposed [`outputs`]: what lies outside is 0, as in [`inputs`].
    pub(crate) fn output_gradients<S>(
        dy: &[f32],
        side: &Side,
        corner: [isize; 2],
        zeros: &[f32],
        to: &mut [f32],
        tile: &Tile,
    ) {
        assert!(tile.end(side) <= to.len() && side.len <= zeros.len());
        with_scheme!(tile.scheme, output_gradients_of::<S>(dy, side, corner, zeros, to, tile))
    }
}

#[inline(always)]
unsafe fn output_gradients_of<
    S: Simd,
    P: Points<SIDE>,
    const OUT: usize,
    const TAPS: usize,
    const SIDE: usize,
>(
    dy: &[f32],
    side: &Side,
    corner: [isize; 2],
    zeros: &[f32],
    to: &mut [f32],
    tile: &Tile,
) {
    let from = side.square::<OUT>(dy.len(), corner, zeros.as_ptr(), dy.as_ptr());
    for block in 0..side.blocks {
        let to = to.as_mut_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: as in `inputs_of`.
            unsafe {
                let square: [[S::V; OUT]; OUT] = std::array::from_fn(|i| {
                    std::array::from_fn(|j| S::load(from[i][j].0.add(block * from[i][j].1 + v)))
                });
                let points = twice!(S, square, OUT => SIDE, P::evaluate::<S, OUT>);
                store_points::<S, SIDE>(to.add(v), tile.point, points);
            }
        }
    }
}

vectorised! {
    /// Filters `[tap][weight]`, of `len` weights a tap, as `[point][weight]` with points `point` apart.
    pub(crate) fn filters<S>(
        scheme: Scheme,
        w: &[f32],
        len: usize,
        to: &mut [f32],
        point: usize,
    ) {
        assert!(len.is_multiple_of(BLOCK) && w.len() >= scheme.taps().pow(2) * len);
        assert!(to.len() >= (scheme.points() - 1) * point + len);
        with_scheme!(scheme, filters_of::<S>(w, len, to, point))
    }
}

#[inline(always)]
unsafe fn filters_of<S: Simd, P: Points<SIDE>, const OUT: usize, const TAPS: usize, const SIDE: usize>(
    w: &[f32],
    len: usize,
    to: &mut [f32],
    point: usize,
) {
    for v in (0..len).step_by(S::LANES) {
        // SAFETY: as asserted in `filters`.
        unsafe {
            let square: [[S::V; TAPS]; TAPS] = std::array::from_fn(|i| {
                std::array::from_fn(|j| S::load(w.as_ptr().add((i * TAPS + j) * len + v)))
            });
            let points = twice!(S, square, TAPS => SIDE, P::filter::<S, TAPS>);
            store_points::<S, SIDE>(to.as_mut_ptr().add(v), point, points);
        }
    }
}

vectorised! {
    /// The transposed [`filters`].
    pub(crate) fn filter_gradients<S>(
        scheme: Scheme,
        points: &[f32],
        point: usize,
        dw: &mut [f32],
        len: usize,
    ) {
        assert!(len.is_multiple_of(BLOCK) && dw.len() >= scheme.taps().pow(2) * len);
        assert!(points.len() >= (scheme.points() - 1) * point + len);
        with_scheme!(scheme, filter_gradients_of::<S>(points, point, dw, len))
    }
}

#[inline(always)]
unsafe fn filter_gradients_of<
    S: Simd,
    P: Points<SIDE>,
    const OUT: usize,
    const TAPS: usize,
    const SIDE: usize,
>(
    points: &[f32],
    point: usize,
    dw: &mut [f32],
    len: usize,
) {
    for v in (0..len).step_by(S::LANES) {
        // SAFETY: as asserted in `filter_gradients`.
        unsafe {
            let square = load_points::<S, SIDE>(points.as_ptr().add(v), point);
            let taps = twice!(S, square, SIDE => TAPS, P::filter_gradient::<S, TAPS>);
            for (i, row) in taps.iter().enumerate() {
                for (j, &value) in row.iter().enumerate() {
                    S::store(dw.as_mut_ptr().add((i * TAPS + j) * len + v), value);
                }
            }
        }
    }
}
