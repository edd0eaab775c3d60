//! Winograd's minimal filtering in two dimensions (Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
//! arXiv:1509.09308): a tile of 2x2 outputs of a 3x3 filter, from 4x4 inputs, takes 16 products instead of 36; of a 5x5
//! filter, from 6x6 inputs, 36 instead of 100.
//!
//! A tile's outputs are coefficients of a product of polynomials, found from its values at some points. With `*` of
//! corresponding values, which over many tiles and channels is a matrix product a point, and each transform applied to
//! columns and then to rows:
//!
//! - `y = output(input(x) * filter(w))`
//! - `dw = filter'(input(x) * output'(dy))`, where `'` is the transposed transform
//! - `dx` is a convolution of `dy` with the filter turned by 180 degrees, and so as `y`.
//!
//! The points are 0, 1, -1 and infinity, and for larger tiles 1/2 and -2 as well, which lose less to rounding than 2 and -2
//! do (Barabasz et al., *Error Analysis and Improving the Accuracy of Winograd Convolution for DNNs*, arXiv:1803.10986).
//! 4x4 outputs of a 3x3 filter would take a quarter of the products, but in a deep network be further from PyTorch than
//! PyTorch's own rounding is from exact results.

use super::gemm::Start;
use super::simd::Simd;
use super::{BLOCK, vectorised};

/// Outputs of a tile, in each dimension.
pub(crate) const OUTPUTS: usize = 2;

/// Which tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// 2x2 outputs of a 3x3 filter.
    F2x3,
    /// 2x2 outputs of a 5x5 filter.
    F2x5,
}

impl Scheme {
    pub(crate) const ALL: [Self; 2] = [Self::F2x3, Self::F2x5];

    /// Height and width of the filter.
    pub(crate) fn taps(self) -> usize {
        match self {
            Self::F2x3 => 3,
            Self::F2x5 => 5,
        }
    }

    /// Products of a tile.
    pub(crate) fn points(self) -> usize {
        (OUTPUTS + self.taps() - 1).pow(2)
    }
}

/// Calls a function for a scheme with its points, and the taps and inputs of a tile in each dimension.
macro_rules! with_scheme {
    ($scheme:expr, $function:ident::<$s:ident>($($arg:expr),*)) => {
        match $scheme {
            Scheme::F2x3 => $function::<$s, Four, 3, 4>($($arg),*),
            Scheme::F2x5 => $function::<$s, Six, 5, 6>($($arg),*),
        }
    };
}

/// The points 0, 1, -1, [`Points::MORE`] and infinity, in this order.
///
/// # Safety
/// Of every function: the machine must have `S`.
trait Points<const SIDE: usize> {
    const MORE: &'static [f32];
    /// What the filter's values are multiplied by, so that [`Points::input`] has few multiplications.
    const SCALE: [f32; SIDE];

    /// The transform of inputs.
    unsafe fn input<S: Simd>(x: [S::V; SIDE]) -> [S::V; SIDE];

    /// The values of a polynomial: the transposed transform of outputs, and that of the filter but for the scale.
    #[inline(always)]
    unsafe fn evaluate<S: Simd, const N: usize>(c: [S::V; N]) -> [S::V; SIDE] {
        // SAFETY: passed on to the caller.
        unsafe {
            let (mut even, mut odd) = (c[0], c[1]);
            for (j, &c) in c.iter().enumerate().skip(2) {
                match j % 2 {
                    0 => even = S::add(even, c),
                    _ => odd = S::add(odd, c),
                }
            }
            let mut values = [S::zero(); SIDE];
            (values[0], values[1], values[2]) = (c[0], S::add(even, odd), S::sub(even, odd));
            for (k, &point) in Self::MORE.iter().enumerate() {
                let mut value = c[N - 1];
                for &c in c[..N - 1].iter().rev() {
                    value = S::mul_add(S::splat(point), value, c);
                }
                values[3 + k] = value;
            }
            values[SIDE - 1] = c[N - 1];
            values
        }
    }

    /// [`Points::evaluate`], transposed: the transform of outputs.
    #[inline(always)]
    unsafe fn combine<S: Simd, const N: usize>(values: [S::V; SIDE]) -> [S::V; N] {
        // SAFETY: passed on to the caller.
        unsafe {
            let (sum, difference) = (S::add(values[1], values[2]), S::sub(values[1], values[2]));
            let mut c = [S::zero(); N];
            for (j, c) in c.iter_mut().enumerate() {
                *c = if j % 2 == 0 { sum } else { difference };
                for (k, &point) in Self::MORE.iter().enumerate() {
                    let mut power = 1.0;
                    for _ in 0..j {
                        power *= point;
                    }
                    *c = S::mul_add(S::splat(power), values[3 + k], *c);
                }
            }
            c[0] = S::add(c[0], values[0]);
            c[N - 1] = S::add(c[N - 1], values[SIDE - 1]);
            c
        }
    }

    /// The transform of the filter.
    #[inline(always)]
    unsafe fn filter<S: Simd, const N: usize>(w: [S::V; N]) -> [S::V; SIDE] {
        // SAFETY: passed on to the caller.
        unsafe { Self::scale::<S>(Self::evaluate::<S, N>(w)) }
    }

    /// [`Points::filter`], transposed.
    #[inline(always)]
    unsafe fn filter_gradient<S: Simd, const N: usize>(values: [S::V; SIDE]) -> [S::V; N] {
        // SAFETY: passed on to the caller.
        unsafe { Self::combine::<S, N>(Self::scale::<S>(values)) }
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(mut values: [S::V; SIDE]) -> [S::V; SIDE] {
        // SAFETY: passed on to the caller.
        unsafe {
            for (value, scale) in values.iter_mut().zip(Self::SCALE) {
                *value = if scale == 1.0 { *value } else { S::mul(S::splat(scale), *value) };
            }
        }
        values
    }
}

struct Four;

impl Points<4> for Four {
    const MORE: &'static [f32] = &[];
    const SCALE: [f32; 4] = [1.0, 0.5, 0.5, 1.0];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: passed on to the caller.
        unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(d, b)] }
    }
}

struct Six;

impl Points<6> for Six {
    const MORE: &'static [f32] = &[0.5, -2.0];
    const SCALE: [f32; 6] = [1.0, 1.0 / 6.0, -1.0 / 6.0, 16.0 / 15.0, 1.0 / 30.0, 1.0];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d, e, f]: [S::V; 6]) -> [S::V; 6] {
        // SAFETY: passed on to the caller.
        unsafe {
            let (bd, ce) = (S::sub(b, d), S::sub(c, e));
            let times = |factor: f32, v, to| S::mul_add(S::splat(factor), v, to);
            [
                times(-1.5, bd, times(-2.0, c, S::add(a, e))),
                times(2.0, S::sub(e, b), times(5.0, d, c)),
                times(2.0, S::add(b, e), times(-5.0, c, d)),
                times(2.0, bd, ce),
                times(-2.0, ce, bd),
                times(-1.5, ce, times(-2.0, d, S::add(b, f))),
            ]
        }
    }
}

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

/// Activations `[block][position][sample][16]`, of which some neighbouring samples are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    /// Height and width.
    pub(crate) extent: [usize; 2],
    pub(crate) blocks: usize,
    /// From one block to the next, and from one position to the next.
    pub(crate) plane: usize,
    pub(crate) row: usize,
    /// Where the samples lie in a position, and how many values they are.
    pub(crate) first: usize,
    pub(crate) len: usize,
}

impl Side {
    /// Where a square of positions begins in the first block, and how far apart its blocks are; what lies outside is at
    /// `outside`, in every block.
    ///
    /// # Panics
    /// If there are not as many values.
    fn square<const N: usize>(
        &self,
        values: usize,
        [row, column]: [isize; 2],
        outside: *const f32,
        base: *const f32,
    ) -> [[(*const f32, usize); N]; N] {
        let [height, width] = self.extent;
        let last = (self.blocks - 1) * self.plane + (height * width - 1) * self.row + self.first + self.len;
        assert!(last <= values && self.len.is_multiple_of(BLOCK));
        let inside = |first: isize, i: usize, end: usize| {
            first.checked_add_unsigned(i).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < end)
        };
        std::array::from_fn(|i| {
            let row = inside(row, i, height);
            std::array::from_fn(|j| match (row, inside(column, j, width)) {
                (Some(row), Some(column)) => {
                    (base.wrapping_add((row * width + column) * self.row + self.first), self.plane)
                }
                _ => (outside, 0),
            })
        })
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
unsafe fn inputs_of<S: Simd, P: Points<SIDE>, const TAPS: usize, const SIDE: usize>(
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
unsafe fn outputs_of<S: Simd, P: Points<SIDE>, const TAPS: usize, const SIDE: usize>(
    points: &[f32],
    tile: &Tile,
    y: &mut [f32],
    side: &Side,
    corner: [isize; 2],
    start: Start,
) {
    let places = side.square::<OUTPUTS>(y.len(), corner, std::ptr::null(), y.as_mut_ptr());
    for block in 0..side.blocks {
        let from = points.as_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: `tile` and `side` lie in `points` and `y`; the caller vouches for a start row of all channels.
            unsafe {
                let square = load_points::<S, SIDE>(from.add(v), tile.point);
                let values = twice!(S, square, SIDE => OUTPUTS, P::combine::<S, OUTPUTS>);
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
unsafe fn output_gradients_of<S: Simd, P: Points<SIDE>, const TAPS: usize, const SIDE: usize>(
    dy: &[f32],
    side: &Side,
    corner: [isize; 2],
    zeros: &[f32],
    to: &mut [f32],
    tile: &Tile,
) {
    let from = side.square::<OUTPUTS>(dy.len(), corner, zeros.as_ptr(), dy.as_ptr());
    for block in 0..side.blocks {
        let to = to.as_mut_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: as in `inputs_of`.
            unsafe {
                let square: [[S::V; OUTPUTS]; OUTPUTS] = std::array::from_fn(|i| {
                    std::array::from_fn(|j| S::load(from[i][j].0.add(block * from[i][j].1 + v)))
                });
                let points = twice!(S, square, OUTPUTS => SIDE, P::evaluate::<S, OUTPUTS>);
                store_points::<S, SIDE>(to.add(v), tile.point, points);
            }
        }
    }
}

vectorised! {
    /// Filters `[tap][weight]`, of `len` weights a tap, as `[point][weight]` with points `point` apart; `turned` by 180
    /// degrees or not.
    pub(crate) fn filters<S>(
        scheme: Scheme,
        w: &[f32],
        len: usize,
        turned: bool,
        to: &mut [f32],
        point: usize,
    ) {
        assert!(len.is_multiple_of(BLOCK) && w.len() >= scheme.taps().pow(2) * len);
        assert!(to.len() >= (scheme.points() - 1) * point + len);
        with_scheme!(scheme, filters_of::<S>(w, len, turned, to, point))
    }
}

#[inline(always)]
unsafe fn filters_of<S: Simd, P: Points<SIDE>, const TAPS: usize, const SIDE: usize>(
    w: &[f32],
    len: usize,
    turned: bool,
    to: &mut [f32],
    point: usize,
) {
    for v in (0..len).step_by(S::LANES) {
        // SAFETY: as asserted in `filters`.
        unsafe {
            let square: [[S::V; TAPS]; TAPS] = std::array::from_fn(|i| {
                std::array::from_fn(|j| {
                    let tap = i * TAPS + j;
                    let tap = if turned { TAPS * TAPS - 1 - tap } else { tap };
                    S::load(w.as_ptr().add(tap * len + v))
                })
            });
            let points = twice!(S, square, TAPS => SIDE, P::filter::<S, TAPS>);
            store_points::<S, SIDE>(to.as_mut_ptr().add(v), point, points);
        }
    }
}

vectorised! {
    /// The transposed [`filters`], not turned.
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
unsafe fn filter_gradients_of<S: Simd, P: Points<SIDE>, const TAPS: usize, const SIDE: usize>(
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
