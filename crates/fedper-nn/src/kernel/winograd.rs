//! Winograd's minimal filtering in two dimensions (Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
//! arXiv:1509.09308): 2x2 outputs of a 3x3 filter from a 4x4 tile of inputs take 16 products instead of 36.
//!
//! With `*` of corresponding values, which over many tiles and channels is a matrix product a point, and each transform
//! applied to columns and then to rows:
//!
//! - `y = output(input(x) * filter(w))`
//! - `dw = filter'(input(x) * output'(dy))`, where `'` is the transposed transform
//! - `dx` is a convolution of `dy` with the filter turned by 180 degrees, and so as `y`.

use super::gemm::Start;
use super::simd::Simd;
use super::{BLOCK, vectorised};

/// Outputs of a tile, in each dimension.
pub(crate) const OUTPUTS: usize = 2;
/// Height and width of a filter.
pub(crate) const TAPS: usize = 3;
/// Inputs of a tile, in each dimension.
pub(crate) const SIDE: usize = OUTPUTS + TAPS - 1;
/// Products of a tile.
pub(crate) const POINTS: usize = SIDE * SIDE;

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
    /// Where the position in row and column `corner + [i, j]` lies in the first block, if there is one.
    #[inline(always)]
    fn at(&self, corner: [isize; 2], [i, j]: [usize; 2]) -> Option<usize> {
        let at = |d: usize, i: usize| {
            corner[d].checked_add_unsigned(i).filter(|&at| at >= 0 && (at as usize) < self.extent[d])
        };
        Some((at(0, i)? as usize * self.extent[1] + at(1, j)? as usize) * self.row + self.first)
    }

    /// Values up to the last one that is meant.
    #[inline(always)]
    fn end(&self) -> usize {
        (self.blocks - 1) * self.plane + (self.extent[0] * self.extent[1] - 1) * self.row + self.first + self.len
    }
}

/// One tile in `[point][block][row][16]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// From one point to the next, and from one block to the next.
    pub(crate) point: usize,
    pub(crate) plane: usize,
    /// Where its rows begin.
    pub(crate) first: usize,
}

impl Tile {
    /// Values up to its last one.
    #[inline(always)]
    fn end(&self, side: &Side) -> usize {
        (POINTS - 1) * self.point + (side.blocks - 1) * self.plane + self.first + side.len
    }
}

/// # Safety
/// The machine must have `S`; so for the other transforms.
#[inline(always)]
unsafe fn input<S: Simd>([a, b, c, d]: [S::V; SIDE]) -> [S::V; SIDE] {
    // SAFETY: passed on to the caller.
    unsafe { [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)] }
}

#[inline(always)]
unsafe fn output<S: Simd>([a, b, c, d]: [S::V; SIDE]) -> [S::V; OUTPUTS] {
    // SAFETY: passed on to the caller.
    unsafe { [S::add(a, S::add(b, c)), S::sub(S::sub(b, c), d)] }
}

/// [`output`], transposed.
#[inline(always)]
unsafe fn output_gradient<S: Simd>([a, b]: [S::V; OUTPUTS]) -> [S::V; SIDE] {
    // SAFETY: passed on to the caller.
    unsafe { [a, S::add(a, b), S::sub(a, b), S::sub(S::zero(), b)] }
}

#[inline(always)]
unsafe fn filter<S: Simd>([a, b, c]: [S::V; TAPS]) -> [S::V; SIDE] {
    // SAFETY: passed on to the caller.
    unsafe {
        let (half, ends) = (S::splat(0.5), S::add(a, c));
        [a, S::mul(half, S::add(ends, b)), S::mul(half, S::sub(ends, b)), c]
    }
}

/// [`filter`], transposed.
#[inline(always)]
unsafe fn filter_gradient<S: Simd>([a, b, c, d]: [S::V; SIDE]) -> [S::V; TAPS] {
    // SAFETY: passed on to the caller.
    unsafe {
        let half = S::splat(0.5);
        let (sum, difference) = (S::mul(half, S::add(b, c)), S::mul(half, S::sub(b, c)));
        [S::add(a, sum), difference, S::add(sum, d)]
    }
}

/// Applies a transform to the columns of a square and then to its rows.
macro_rules! twice {
    ($transform:ident, $s:ident, $square:expr, $from:expr => $to:expr) => {{
        let square = $square;
        let mut columns = [[$s::zero(); $from]; $to];
        for j in 0..$from {
            let column = $transform::<$s>(std::array::from_fn(|i| square[i][j]));
            for i in 0..$to {
                columns[i][j] = column[i];
            }
        }
        let mut rows = [[$s::zero(); $to]; $to];
        for i in 0..$to {
            rows[i] = $transform::<$s>(columns[i]);
        }
        rows
    }};
}

vectorised! {
    /// The tile of inputs that begins in row and column `corner`; what lies outside is 0. `zeros` are at least as many as
    /// the samples' values.
    pub(crate) fn inputs<S>(
        x: &[f32],
        side: &Side,
        corner: [isize; 2],
        zeros: &[f32],
        to: &mut [f32],
        tile: &Tile,
    ) {
        assert!(side.end() <= x.len() && tile.end(side) <= to.len() && side.len <= zeros.len());
        assert!(side.len.is_multiple_of(BLOCK));
        let (mut from, mut step) = ([[zeros.as_ptr(); SIDE]; SIDE], [[0; SIDE]; SIDE]);
        for i in 0..SIDE {
            for j in 0..SIDE {
                if let Some(at) = side.at(corner, [i, j]) {
                    (from[i][j], step[i][j]) = (x.as_ptr().add(at), side.plane);
                }
            }
        }
        for block in 0..side.blocks {
            let to = to.as_mut_ptr().add(tile.first + block * tile.plane);
            for v in (0..side.len).step_by(S::LANES) {
                let mut square = [[S::zero(); SIDE]; SIDE];
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        square[i][j] = S::load(from[i][j].add(v));
                    }
                }
                let points = twice!(input, S, square, SIDE => SIDE);
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        S::store(to.add((i * SIDE + j) * tile.point + v), points[i][j]);
                    }
                }
            }
            for i in 0..SIDE {
                for j in 0..SIDE {
                    from[i][j] = from[i][j].wrapping_add(step[i][j]);
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
        assert!(side.end() <= y.len() && tile.end(side) <= points.len() && side.len.is_multiple_of(BLOCK));
        let mut places = [[None; OUTPUTS]; OUTPUTS];
        for i in 0..OUTPUTS {
            for j in 0..OUTPUTS {
                places[i][j] = side.at(corner, [i, j]);
            }
        }
        for block in 0..side.blocks {
            let from = points.as_ptr().add(tile.first + block * tile.plane);
            for v in (0..side.len).step_by(S::LANES) {
                let mut square = [[S::zero(); SIDE]; SIDE];
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        square[i][j] = S::load(from.add((i * SIDE + j) * tile.point + v));
                    }
                }
                let values = twice!(output, S, square, SIDE => OUTPUTS);
                for i in 0..OUTPUTS {
                    for j in 0..OUTPUTS {
                        if let Some(at) = places[i][j] {
                            let to = y.as_mut_ptr().add(at + block * side.plane + v);
                            let value = match start {
                                Start::Zero => values[i][j],
                                Start::Add => S::add(S::load(to), values[i][j]),
                                Start::Row(row) => {
                                    S::add(S::load(row.add(block * BLOCK + v % BLOCK)), values[i][j])
                                }
                            };
                            S::store(to, value);
                        }
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
        assert!(side.end() <= dy.len() && tile.end(side) <= to.len() && side.len <= zeros.len());
        assert!(side.len.is_multiple_of(BLOCK));
        let (mut from, mut step) = ([[zeros.as_ptr(); OUTPUTS]; OUTPUTS], [[0; OUTPUTS]; OUTPUTS]);
        for i in 0..OUTPUTS {
            for j in 0..OUTPUTS {
                if let Some(at) = side.at(corner, [i, j]) {
                    (from[i][j], step[i][j]) = (dy.as_ptr().add(at), side.plane);
                }
            }
        }
        for block in 0..side.blocks {
            let to = to.as_mut_ptr().add(tile.first + block * tile.plane);
            for v in (0..side.len).step_by(S::LANES) {
                let mut square = [[S::zero(); OUTPUTS]; OUTPUTS];
                for i in 0..OUTPUTS {
                    for j in 0..OUTPUTS {
                        square[i][j] = S::load(from[i][j].wrapping_add(block * step[i][j]).add(v));
                    }
                }
                let points = twice!(output_gradient, S, square, OUTPUTS => SIDE);
                for i in 0..SIDE {
                    for j in 0..SIDE {
                        S::store(to.add((i * SIDE + j) * tile.point + v), points[i][j]);
                    }
                }
            }
        }
    }
}

vectorised! {
    /// Filters `[tap][weight]`, of `len` weights a tap, as `[point][weight]` with points `point` apart; `turned` by 180
    /// degrees or not.
    pub(crate) fn filters<S>(w: &[f32], len: usize, turned: bool, to: &mut [f32], point: usize) {
        assert!(w.len() >= TAPS * TAPS * len && to.len() >= (POINTS - 1) * point + len);
        assert!(len.is_multiple_of(BLOCK));
        let last = TAPS * TAPS - 1;
        for v in (0..len).step_by(S::LANES) {
            let mut square = [[S::zero(); TAPS]; TAPS];
            for i in 0..TAPS {
                for j in 0..TAPS {
                    let tap = i * TAPS + j;
                    square[i][j] = S::load(w.as_ptr().add(if turned { last - tap } else { tap } * len + v));
                }
            }
            let points = twice!(filter, S, square, TAPS => SIDE);
            for i in 0..SIDE {
                for j in 0..SIDE {
                    S::store(to.as_mut_ptr().add((i * SIDE + j) * point + v), points[i][j]);
                }
            }
        }
    }
}

vectorised! {
    /// The transposed [`filters`], not turned.
    pub(crate) fn filter_gradients<S>(points: &[f32], point: usize, dw: &mut [f32], len: usize) {
        assert!(dw.len() >= TAPS * TAPS * len && points.len() >= (POINTS - 1) * point + len);
        assert!(len.is_multiple_of(BLOCK));
        for v in (0..len).step_by(S::LANES) {
            let mut square = [[S::zero(); SIDE]; SIDE];
            for i in 0..SIDE {
                for j in 0..SIDE {
                    square[i][j] = S::load(points.as_ptr().add((i * SIDE + j) * point + v));
                }
            }
            let taps = twice!(filter_gradient, S, square, SIDE => TAPS);
            for i in 0..TAPS {
                for j in 0..TAPS {
                    S::store(dw.as_mut_ptr().add((i * TAPS + j) * len + v), taps[i][j]);
                }
            }
        }
    }
}
