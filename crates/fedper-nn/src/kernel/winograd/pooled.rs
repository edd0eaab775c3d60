//! Tiles whose outputs a 2x2 max-pool follows: they are pooled in registers, and their gradient is never written out.

use super::points::{Eight, Four, Points};
use super::{Scheme, Side, Tile, load_points, twice, with_scheme};
use crate::kernel::simd::Simd;
use crate::kernel::{BLOCK, vectorised};

vectorised! {
    /// `y = activation(max-pool(outputs of a tile + bias))`, with the position of each window that won: the first of those
    /// that are equal. `corner` is the row and column of the first window; `side` is of what is pooled to.
    pub(crate) fn pooled_outputs<S>(
        points: &[f32],
        tile: &Tile,
        y: &mut [f32],
        winner: &mut [u8],
        side: &Side,
        corner: [isize; 2],
        bias: Option<&[f32]>,
        range: (f32, f32),
    ) {
        assert!(tile.end(side) <= points.len() && winner.len() >= y.len());
        assert!(bias.is_none_or(|bias| bias.len() >= side.blocks * BLOCK));
        with_scheme!(tile.scheme, pooled_outputs_of::<S>(points, tile, y, winner, side, corner, bias, range))
    }
}

/// # Safety
/// As asserted in [`pooled_outputs`]; the machine must have `S`. So for the function below.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "as above")]
unsafe fn pooled_outputs_of<
    S: Simd,
    P: Points<SIDE>,
    const OUT: usize,
    const TAPS: usize,
    const SIDE: usize,
>(
    points: &[f32],
    tile: &Tile,
    y: &mut [f32],
    winner: &mut [u8],
    side: &Side,
    corner: [isize; 2],
    bias: Option<&[f32]>,
    (low, high): (f32, f32),
) {
    // The largest tile has two windows in each dimension.
    let places = side.square::<2>(y.len(), corner, std::ptr::null(), y.as_mut_ptr());
    let base = y.as_ptr();
    for block in 0..side.blocks {
        let from = points.as_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: `tile` and `side` lie in `points`, `y` and `winner`; there is a bias for each channel.
            unsafe {
                let square = load_points::<S, SIDE>(from.add(v), tile.point);
                let values = twice!(S, square, SIDE => OUT, P::combine::<S, OUT>);
                let bias = bias.map(|bias| S::load(bias.as_ptr().add(block * BLOCK + v % BLOCK)));
                for i in 0..OUT / 2 {
                    for j in 0..OUT / 2 {
                        let (place, plane) = places[i][j];
                        if place.is_null() {
                            continue;
                        }
                        let to = place.cast_mut().add(block * plane + v);
                        let four = [0, 1, 2, 3].map(|k| values[2 * i + k / 2][2 * j + k % 2]);
                        let four = bias.map_or(four, |bias| four.map(|value| S::add(value, bias)));
                        let at = to.offset_from(base) as usize;
                        let max = S::max_of_four(four, winner.as_mut_ptr().add(at));
                        S::store(to, S::clamp(max, low, high));
                    }
                }
            }
        }
    }
}

vectorised! {
    /// Two rows of points, that pair of [`Points`], of the transposed outputs of a tile, from the gradient of what the pool left
    /// and which position of each window won.
    pub(crate) fn pooled_gradients<S>(
        dy: &[f32],
        winner: &[u8],
        side: &Side,
        corner: [isize; 2],
        pair: usize,
        to: &mut [f32],
        tile: &Tile,
    ) {
        let rows = 2 * (tile.scheme.outputs() + tile.scheme.taps() - 1);
        assert!((rows - 1) * tile.point + (side.blocks - 1) * tile.plane + tile.first + side.len <= to.len());
        assert!(winner.len() >= dy.len() && pair < rows / 4);
        with_scheme!(tile.scheme, pooled_gradients_of::<S>(dy, winner, side, corner, pair, to, tile))
    }
}

#[inline(always)]
unsafe fn pooled_gradients_of<
    S: Simd,
    P: Points<SIDE>,
    const OUT: usize,
    const TAPS: usize,
    const SIDE: usize,
>(
    dy: &[f32],
    winner: &[u8],
    side: &Side,
    corner: [isize; 2],
    pair: usize,
    to: &mut [f32],
    tile: &Tile,
) {
    let places = side.square::<2>(dy.len(), corner, std::ptr::null(), dy.as_ptr());
    for block in 0..side.blocks {
        let to = to.as_mut_ptr().wrapping_add(tile.first + block * tile.plane);
        for v in (0..side.len).step_by(S::LANES) {
            // SAFETY: as in `pooled_outputs_of`, and there are two rows of points.
            unsafe {
                let mut rows = [[S::zero(); OUT]; 2];
                for j in 0..OUT {
                    let mut column = [S::zero(); OUT];
                    for i in 0..OUT / 2 {
                        let (place, plane) = places[i][j / 2];
                        if place.is_null() {
                            continue;
                        }
                        let from = place.add(block * plane + v);
                        let winner = winner.as_ptr().add(from.offset_from(dy.as_ptr()) as usize);
                        let value = S::load(from);
                        for k in 0..2 {
                            column[2 * i + k] = S::where_equal(winner, (2 * k + j % 2) as u8, value);
                        }
                    }
                    let values = P::evaluate_pair::<S, OUT>(column, pair);
                    (rows[0][j], rows[1][j]) = (values[0], values[1]);
                }
                for (i, row) in rows.into_iter().enumerate() {
                    for (j, value) in P::evaluate::<S, OUT>(row).into_iter().enumerate() {
                        S::store(to.add((i * SIDE + j) * tile.point + v), value);
                    }
                }
            }
        }
    }
}
