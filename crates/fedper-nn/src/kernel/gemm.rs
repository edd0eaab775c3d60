//! The matrix kernels: tiles of rows by one panel of columns, kept in registers.
//!
//! A convolution is a sum over taps of plain matrix products (see [`crate::layer`]), so a tile runs over a list of
//! segments, one a tap: no im2col, and the output is written once. Its weight gradient is the outer product of two
//! activations, summed over rows.
//!
//! Why not the `gemm` crate: it allocates on every call, and adding tap after tap with it reads and writes the output
//! once per tap.

use super::BLOCK;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};
use crate::InstructionSet;

/// One term of a sum of products: where its left and right matrix begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) a: *const f32,
    pub(crate) b: *const f32,
}

/// How the rows of a left matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Activations: a row is [`BLOCK`] values, and the next row follows; further channels lie a plane further on.
    Blocked { blocks: usize, plane: usize },
    /// `len` values in a row, and the next row `stride` further on.
    Lines { len: usize, stride: usize },
}

/// What a tile of the output starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Zero,
    /// What is there already.
    Add,
    /// The same row of values, one per column, in every row.
    Row(*const f32),
}

/// `c[row][column] = start + sum over segments, k of a[row][k] * b[k][column]` for one panel of columns.
///
/// `b` is `[k][panel width]`; `c` is blocked: a row of its first block, and the second block `c_plane` further on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) segments: &'a [Segment],
    pub(crate) rows: Rows,
    pub(crate) c: *mut f32,
    pub(crate) c_plane: usize,
    pub(crate) start: Start,
}

/// Rows of an outer product: where they begin, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) x: *const f32,
    pub(crate) dy: *const f32,
    pub(crate) rows: usize,
}

impl Stretch {
    pub(crate) const NONE: Self = Self { x: std::ptr::null(), dy: std::ptr::null(), rows: 0 };
}

/// `dw[i][column] (+)= sum over stretches, rows of x[row][i] * dy[row][column]` for one panel of columns; `dw` is
/// `[inputs][panel width]`, `dy` blocked.
///
/// One chain adds up all rows: about [`OUTER_ROWS`] are few enough to lose little, and stay in the first-level cache from
/// one tile of inputs to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outer<'a> {
    pub(crate) stretches: &'a [Stretch],
    /// How `x` lies; `Blocked` covers `blocks * BLOCK` inputs, `Lines` covers `len`.
    pub(crate) inputs: Rows,
    pub(crate) dy_plane: usize,
    pub(crate) dw: *mut f32,
    /// Whether `dw` is added to, or set.
    pub(crate) add: bool,
}

/// How many rows an [`Outer`] should have.
pub(crate) const OUTER_ROWS: usize = 128;

type Tile = unsafe fn(&Product<'_>, row: usize);
type OuterTile = unsafe fn(&Outer<'_>, x: usize, dw: *mut f32);

/// The tiles for panels of one width.
#[derive(Debug)]
struct Tiles {
    /// By rows - 1, for blocked rows and for lines.
    products: [&'static [Tile]; 2],
    /// For blocked rows, [`Kernel::inputs`] at a time; for lines, by inputs - 1.
    blocked: OuterTile,
    lines: &'static [OuterTile],
}

/// The matrix kernels of one instruction set.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Blocks of a full panel: 1 or 2.
    pub(crate) blocks: usize,
    /// Inputs of a blocked [`Outer`] tile.
    inputs: usize,
    /// For panels of 1 block, and of `blocks`.
    tiles: [Tiles; 2],
}

impl Kernel {
    /// That of an instruction set that this machine has.
    pub(crate) fn of(set: InstructionSet) -> &'static Kernel {
        match set.vectors() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => &AVX2,
            _ => &PORTABLE,
        }
    }

    /// All that this machine can run, best first.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<&'static Kernel> {
        InstructionSet::available().into_iter().map(Self::of).collect()
    }

    fn tiles(&self, blocks: usize) -> &Tiles {
        debug_assert!((1..=self.blocks).contains(&blocks));
        &self.tiles[usize::from(blocks > 1)]
    }

    /// Computes `rows` rows of a product for a panel of `blocks` blocks, in tiles of about equal height.
    ///
    /// # Safety
    /// All pointers of `product` must be valid for what its formula touches, and `c` must not overlap `a` and `b`.
    pub(crate) unsafe fn product(&self, product: &Product<'_>, blocks: usize, rows: usize) {
        if rows == 0 {
            return;
        }
        let tiles = self.tiles(blocks).products[usize::from(matches!(product.rows, Rows::Lines { .. }))];
        let count = rows.div_ceil(tiles.len());
        let (height, extra) = (rows / count, rows % count);
        let mut row = 0;
        for i in 0..count {
            let height = height + usize::from(i < extra);
            // SAFETY: the caller vouches for the pointers; the kernel is one that this machine can run.
            unsafe { tiles[height - 1](product, row) };
            row += height;
        }
    }

    /// Adds an outer product for a panel of `blocks` blocks.
    ///
    /// # Safety
    /// All pointers of `outer` must be valid for what its formula touches, and `dw` must not overlap `x` and `dy`.
    pub(crate) unsafe fn outer(&self, outer: &Outer<'_>, blocks: usize) {
        let tiles = self.tiles(blocks);
        let width = blocks * BLOCK;
        match outer.inputs {
            Rows::Blocked { blocks, plane } => {
                for input in (0..blocks * BLOCK).step_by(self.inputs) {
                    let x = input / BLOCK * plane + input % BLOCK;
                    // SAFETY: as in `product`; a tile's inputs do not reach beyond their block.
                    unsafe { (tiles.blocked)(outer, x, outer.dw.wrapping_add(input * width)) };
                }
            }
            Rows::Lines { len, .. } => {
                for input in (0..len).step_by(tiles.lines.len()) {
                    let tile = tiles.lines[tiles.lines.len().min(len - input) - 1];
                    // SAFETY: as in `product`; the tile has as many inputs as are left.
                    unsafe { tile(outer, input, outer.dw.wrapping_add(input * width)) };
                }
            }
        }
    }
}

/// How many terms are added up in one chain before they join a total: one chain over thousands of terms loses more to
/// rounding than a sum of short ones, for a few percent of the time.
const CHAIN: usize = 128;

/// How many steps ahead weights are asked for.
const AHEAD: usize = 12;

/// # Safety
/// As [`Kernel::product`]; the machine must have `S`. `VECTORS` vectors of `S` are one block or two.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize, const BLOCKED: bool>(
    p: &Product<'_>,
    row: usize,
) {
    let in_block = BLOCK / S::LANES;
    let at = |r: usize, v: usize| {
        p.c.wrapping_add((row + r) * BLOCK + v / in_block * p.c_plane + v % in_block * S::LANES)
    };
    let (blocks, len, plane, stride) = match p.rows {
        Rows::Blocked { blocks, plane } => (blocks, BLOCK, plane, BLOCK),
        Rows::Lines { len, stride } => (1, len, 0, stride),
    };
    // A constant where it is one, so that a row's address needs no register.
    let (len, stride) = if BLOCKED { (BLOCK, BLOCK) } else { (len, stride) };
    // SAFETY: the caller vouches for rows `row..row + ROWS` of `a` and `c`, and for the panel of `b` and `c`.
    unsafe {
        // One chain that starts from nothing needs no totals.
        let short = matches!(p.start, Start::Zero) && p.segments.len() * blocks * len <= CHAIN;
        let mut totals = [[S::zero(); VECTORS]; ROWS];
        match p.start {
            Start::Zero => {}
            Start::Add => {
                for (r, total) in totals.iter_mut().enumerate() {
                    for (v, total) in total.iter_mut().enumerate() {
                        *total = S::load(at(r, v));
                    }
                }
            }
            Start::Row(values) => {
                let mut start = [S::zero(); VECTORS];
                for (v, start) in start.iter_mut().enumerate() {
                    *start = S::load(values.add(v * S::LANES));
                }
                totals = [start; ROWS];
            }
        }
        let mut sums = [[S::zero(); VECTORS]; ROWS];
        let mut terms = 0;
        for segment in p.segments {
            let mut a = segment.a.wrapping_add(row * stride);
            let mut b = segment.b;
            for _ in 0..blocks {
                let mut from = a;
                let mut left = len;
                while left > 0 {
                    let steps = if BLOCKED { BLOCK } else { left.min(CHAIN - terms) };
                    for step in 0..steps {
                        if BLOCKED {
                            // The next block's rows, one a step, and weights some steps ahead.
                            S::prefetch(a.wrapping_add(plane + step * BLOCK));
                            for block in 0..VECTORS / in_block {
                                S::prefetch(b.wrapping_add(AHEAD * VECTORS * S::LANES + block * BLOCK));
                            }
                        }
                        let mut right = [S::zero(); VECTORS];
                        for (v, right) in right.iter_mut().enumerate() {
                            *right = S::load(b.add(v * S::LANES));
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let left = S::splat(*from.add(r * stride));
                            for (sum, right) in sums.iter_mut().zip(right) {
                                *sum = S::mul_add(left, right, *sum);
                            }
                        }
                        from = from.wrapping_add(1);
                        b = b.wrapping_add(VECTORS * S::LANES);
                    }
                    left -= steps;
                    terms += steps;
                    if terms == CHAIN && !short {
                        for (totals, sums) in totals.iter_mut().zip(&mut sums) {
                            for (total, sum) in totals.iter_mut().zip(sums) {
                                *total = S::add(*total, *sum);
                                *sum = S::zero();
                            }
                        }
                        terms = 0;
                    }
                }
                a = a.wrapping_add(plane);
            }
        }
        for (r, (totals, sums)) in totals.iter().zip(sums).enumerate() {
            for (v, (total, sum)) in totals.iter().zip(sums).enumerate() {
                S::store(at(r, v), if short { sum } else { S::add(*total, sum) });
            }
        }
    }
}

/// # Safety
/// As [`Kernel::outer`], for `INPUTS` inputs from `x` values into `x` and from `dw` on; the machine must have `S`.
#[inline(always)]
unsafe fn outer<S: Simd, const INPUTS: usize, const VECTORS: usize, const BLOCKED: bool>(
    p: &Outer<'_>,
    x: usize,
    dw: *mut f32,
) {
    let in_block = BLOCK / S::LANES;
    let stride = match p.inputs {
        Rows::Lines { stride, .. } if !BLOCKED => stride,
        _ => BLOCK,
    };
    // SAFETY: the caller vouches for every stretch's rows of `INPUTS` values of `x` and of a panel of `dy`, and for
    // `INPUTS` rows of a panel of `dw`.
    unsafe {
        // Read last, and by then often gone from the first-level cache.
        for line in 0..INPUTS * VECTORS * S::LANES / BLOCK {
            S::prefetch(dw.wrapping_add(line * BLOCK));
        }
        let mut sums = [[S::zero(); VECTORS]; INPUTS];
        for stretch in p.stretches {
            let mut left = stretch.x.wrapping_add(x);
            let mut dy = stretch.dy;
            for _ in 0..stretch.rows {
                let mut right = [S::zero(); VECTORS];
                for (v, right) in right.iter_mut().enumerate() {
                    *right = S::load(dy.wrapping_add(v / in_block * p.dy_plane + v % in_block * S::LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = S::splat(*left.add(i));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = S::mul_add(left, right, *sum);
                    }
                }
                left = left.wrapping_add(stride);
                dy = dy.wrapping_add(BLOCK);
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let to = dw.add((i * VECTORS + v) * S::LANES);
                S::store(to, if p.add { S::add(S::load(to), *sum) } else { *sum });
            }
        }
    }
}

/// The functions of one instruction set, compiled for it: `$wide` vectors are a full panel, `$narrow` one block.
macro_rules! kernel {
    (
        $static:ident, $module:ident, $simd:ty, $(#[$feature:meta])?,
        panel $wide:literal $narrow:literal, rows [$($rows:literal)*], inputs $inputs:literal
    ) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn tile<const ROWS: usize, const VECTORS: usize, const BLOCKED: bool>(
                p: &Product<'_>,
                row: usize,
            ) {
                // SAFETY: passed on to the caller.
                unsafe { super::tile::<$simd, ROWS, VECTORS, BLOCKED>(p, row) }
            }

            $(#[$feature])?
            unsafe fn outer<const INPUTS: usize, const VECTORS: usize, const BLOCKED: bool>(
                p: &Outer<'_>,
                x: usize,
                dw: *mut f32,
            ) {
                // SAFETY: passed on to the caller.
                unsafe { super::outer::<$simd, INPUTS, VECTORS, BLOCKED>(p, x, dw) }
            }

            const fn tiles<const VECTORS: usize>() -> Tiles {
                Tiles {
                    products: [
                        const { &[$(tile::<$rows, VECTORS, true>),*] },
                        const { &[$(tile::<$rows, VECTORS, false>),*] },
                    ],
                    blocked: outer::<$inputs, VECTORS, true>,
                    lines: const { &[$(outer::<$rows, VECTORS, false>),*] },
                }
            }

            pub(super) static $static: Kernel = Kernel {
                blocks: $wide * <$simd as Simd>::LANES / BLOCK,
                inputs: $inputs,
                tiles: [tiles::<$narrow>(), tiles::<$wide>()],
            };
        }
        use $module::$static;
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(AVX512, avx512, Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")],
    panel 2 1, rows [1 2 3 4 5 6 7 8 9 10 11 12 13 14], inputs 8);
#[cfg(target_arch = "x86_64")]
kernel!(AVX2, avx2, Avx2, #[target_feature(enable = "avx2,fma")],
    panel 2 2, rows [1 2 3 4 5 6], inputs 4);
#[cfg(not(target_arch = "aarch64"))]
kernel!(PORTABLE, portable, Portable, , panel 4 4, rows [1 2 3], inputs 2);
#[cfg(target_arch = "aarch64")]
kernel!(PORTABLE, portable, Portable, , panel 4 4, rows [1 2 3 4 5 6], inputs 4);

#[cfg(test)]
mod tests;
