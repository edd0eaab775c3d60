//! Packing operands into tiles: rounded, or cut into parts.

use std::mem::MaybeUninit;

use super::dot::Dot;
use super::{BLOCK, DEPTH, Half, Simd, TILE, ZEROS};

/// # Safety
/// `count` values of both; the machine must have `D`.
#[inline(always)]
pub(super) unsafe fn round<D: Dot>(from: *const f32, count: usize, to: *mut Half) {
    // SAFETY: passed on to the caller.
    unsafe {
        let whole = count / DEPTH * DEPTH;
        for first in (0..whole).step_by(DEPTH) {
            D::join::<1>(from.add(first), from.add(first + BLOCK), to.add(first), 0);
        }
        let (mut rest, mut halves) = ([0.0; DEPTH], [0; DEPTH]);
        rest.as_mut_ptr().copy_from_nonoverlapping(from.add(whole), count - whole);
        D::join::<1>(rest.as_ptr(), rest.as_ptr().add(BLOCK), halves.as_mut_ptr(), 0);
        to.add(whole).copy_from_nonoverlapping(halves.as_ptr(), count - whole);
    }
}

/// # Safety
/// [`DEPTH`] rows of `row` values of both, whole steps.
#[inline(always)]
pub(super) unsafe fn woven(from: *const Half, row: usize, to: *mut Half) {
    for pair in 0..DEPTH / 2 {
        for block in 0..row / BLOCK {
            // SAFETY: passed on to the caller.
            unsafe {
                let even = from.add(2 * pair * row + block * BLOCK);
                let (even, odd) = (even.cast::<[Half; BLOCK]>(), even.add(row).cast::<[Half; BLOCK]>());
                let (even, odd) = (even.read(), odd.read());
                let woven: [Half; DEPTH] =
                    std::array::from_fn(|i| if i % 2 == 0 { even[i / 2] } else { odd[i / 2] });
                to.add(block * TILE + pair * DEPTH).cast::<[Half; DEPTH]>().write(woven);
            }
        }
    }
}

/// # Safety
/// `count` rows of `low`, of `high` unless that is null, and of `to`; the machine must have `D`.
#[inline(always)]
pub(super) unsafe fn rows<D: Dot, const PARTS: usize>(
    low: *const f32,
    high: *const f32,
    count: usize,
    to: *mut Half,
) {
    for row in 0..count {
        let high = if high.is_null() { ZEROS.as_ptr() } else { high.wrapping_add(row * BLOCK) };
        // SAFETY: passed on to the caller.
        unsafe { D::join::<PARTS>(low.add(row * BLOCK), high, to.add(row * PARTS * DEPTH), DEPTH) };
    }
}

/// # Safety
/// `rows` rows of `from`, and tiles for them at `to`; the machine must have `D`.
#[inline(always)]
pub(super) unsafe fn pairs<D: Dot, const PARTS: usize>(
    from: *const f32,
    stride: usize,
    rows: usize,
    to: *mut Half,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        for first in (0..rows).step_by(DEPTH) {
            let (from, to) = (from.add(first * stride), to.add(first / DEPTH * PARTS * TILE));
            let count = DEPTH.min(rows - first);
            for pair in 0..count / 2 {
                let even = from.add(2 * pair * stride);
                let odd = even.add(stride);
                // The next tile's, of weights that come from memory.
                D::S::prefetch(even.wrapping_add(DEPTH * stride));
                D::S::prefetch(odd.wrapping_add(DEPTH * stride));
                D::weave::<PARTS>(even, odd, to.add(pair * DEPTH), TILE);
            }
            if !count.is_multiple_of(2) {
                let last = from.add((count - 1) * stride);
                D::weave::<PARTS>(last, ZEROS.as_ptr(), to.add(count / 2 * DEPTH), TILE);
            }
            let written = count.div_ceil(2) * DEPTH;
            for part in 0..PARTS {
                to.add(part * TILE + written).write_bytes(0, TILE - written);
            }
        }
    }
}

/// A tile of each part, to be transposed.
#[repr(align(64))]
struct Tiles<const PARTS: usize>([[[Half; DEPTH]; BLOCK]; PARTS]);

impl<const PARTS: usize> Tiles<PARTS> {
    /// Transposes pairs of every part: moved as one float, whatever that would be.
    ///
    /// # Safety
    /// There must be room for every part, `part` apart, in rows `row` apart; the machine must have `S`.
    #[inline(always)]
    unsafe fn transpose<S: Simd>(&self, to: *mut Half, row: usize, part: usize) {
        for (i, tile) in self.0.iter().enumerate() {
            // SAFETY: passed on to the caller.
            unsafe { S::transpose(tile.as_ptr().cast(), BLOCK, to.add(i * part).cast(), row / 2) };
        }
    }
}

/// # Safety
/// 16 rows of each; the machine must have `D`.
#[inline(always)]
pub(super) unsafe fn turned<D: Dot, const PARTS: usize>(
    from: [*const f32; 2],
    strides: [usize; 2],
    ahead: usize,
    to: *mut Half,
) {
    let mut tiles = MaybeUninit::<Tiles<PARTS>>::uninit();
    // SAFETY: passed on to the caller; every row of every tile is written before it is read.
    unsafe {
        for i in 0..BLOCK {
            let (low, high) = (from[0].add(i * strides[0]), from[1].add(i * strides[1]));
            D::S::prefetch(low.wrapping_add(ahead));
            D::S::prefetch(high.wrapping_add(ahead));
            D::join::<PARTS>(low, high, tiles.as_mut_ptr().cast::<Half>().add(i * DEPTH), TILE);
        }
        tiles.assume_init_ref().transpose::<D::S>(to, DEPTH, TILE);
    }
}

/// # Safety
/// `count` rows of `from`, and whole steps of `to`; the machine must have `D`.
#[inline(always)]
pub(super) unsafe fn lines<D: Dot, const PARTS: usize>(
    from: *const f32,
    count: usize,
    to: *mut Half,
    [row, step, part]: [usize; 3],
) {
    let mut tiles = MaybeUninit::<Tiles<PARTS>>::uninit();
    for first in (0..count).step_by(DEPTH) {
        // SAFETY: passed on to the caller; `pairs` writes whole tiles.
        unsafe {
            let these = DEPTH.min(count - first);
            pairs::<D, PARTS>(from.add(first * BLOCK), BLOCK, these, tiles.as_mut_ptr().cast());
            tiles.assume_init_ref().transpose::<D::S>(to.add(first / DEPTH * step), row, part);
        }
    }
}
