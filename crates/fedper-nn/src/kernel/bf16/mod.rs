//! Products of matrices in bf16, the upper half of an f32, added up in f32.
//!
//! Operands lie in *tiles* of 16 rows of 32 values (AMX's): a left tile is 16 rows of the product by 32 of its depth, a
//! right tile is `[pair of the depth][column][2]`.
//!
//! There are two kinds of kernels. One *rounds* its operands: to the nearest, ties to even; what is subnormal becomes 0,
//! as the instructions have it, so every instruction set rounds to the same values. One is as *exact* as f32: it cuts every
//! operand into three parts of 8 bits of mantissa each, whose sum it is, and multiplies those whose product is not below
//! what an f32 would keep: six of nine ([`TERMS`]; Henry, Tang and Heinecke, *Leveraging the bfloat16 Artificial
//! Intelligence Datatype For Higher-Precision Computations*, arXiv:1904.06376). An infinite operand makes NaN there, since
//! what is left after its first part is NaN.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
mod dot;
mod pack;
mod shapes;

use super::gemm::Start;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};
use super::{BLOCK, Row};
use crate::InstructionSet;
#[cfg(target_arch = "x86_64")]
use dot::Dot512;
use dot::Widened;
pub(crate) use shapes::{Left, Outcome, Product, Right, Segment};

/// The upper half of an f32.
pub(crate) type Half = u16;

/// How far one step goes along the depth of a product.
pub(crate) const DEPTH: usize = 32;
/// Values of a tile.
pub(crate) const TILE: usize = BLOCK * DEPTH;

/// Parts of an operand that is not rounded.
const PARTS: usize = 3;
/// Which parts of the left and of the right matrix are multiplied, by what they add, least first: all small terms are summed
/// before the large one, so that they do not round its sum. Each of the two largest terms that are left out is at most 2^-24
/// of a product, as is what rounding it to f32 loses.
const TERMS: [[usize; 2]; 6] = [[0, 2], [0, 1], [1, 1], [1, 0], [2, 0], [0, 0]];

/// One or two tiles of rows by one or two of columns, distances in bytes.
#[derive(Debug)]
#[repr(C)]
struct Call {
    segments: *const Segment,
    count: usize,
    steps: usize,
    a_row: usize,
    a_tile: usize,
    a_step: usize,
    a_part: usize,
    b_block: usize,
    b_step: usize,
    start_row: usize,
    c_row: usize,
    /// By tile of rows and of columns; null to start from nothing.
    start: [*const f32; 4],
    c: [*mut f32; 4],
    /// From where a segment's `a` begins to the first row.
    a_first: usize,
}

/// What a tile that is not whole is computed in.
#[repr(align(64))]
struct Partial([[f32; BLOCK * BLOCK]; 2]);

type Tile = unsafe fn(&Call);

/// The functions of one instruction set.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// How many an operand has.
    pub(crate) parts: usize,
    /// By tiles of rows and of columns, both less one.
    tiles: [[Tile; 2]; 2],
    begin: unsafe fn(),
    end: unsafe fn(),
    rows: unsafe fn(*const f32, *const f32, usize, *mut Half),
    pairs: unsafe fn(*const f32, usize, usize, *mut Half),
    turned: unsafe fn([*const f32; 2], [usize; 2], usize, *mut Half),
    lines: unsafe fn(*const f32, usize, *mut Half, [usize; 3]),
    round: unsafe fn(*const f32, usize, *mut Half),
    woven: unsafe fn(*const Half, usize, *mut Half),
}

/// While it lives, a thread can call [`Kernel::product`].
pub(crate) struct Ready(&'static Kernel);

impl Drop for Ready {
    fn drop(&mut self) {
        // SAFETY: the kernel is one that this machine can run.
        unsafe { (self.0.end)() };
    }
}

/// A value as it is multiplied by a kernel that rounds.
#[cfg(test)]
pub(crate) fn rounded(value: f32) -> f32 {
    dot::widen(dot::narrow(value))
}

const ZEROS: Row = [0.0; BLOCK];

impl Kernel {
    /// The one that rounds of an instruction set that this machine has.
    pub(crate) fn rounding(set: InstructionSet) -> &'static Self {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => &AMX,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => &AVX512BF16,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => &AVX512,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => &AVX2,
            _ => &PORTABLE,
        }
    }

    /// The exact one of an instruction set that this machine has, where it is faster than [`super::gemm`].
    pub(crate) fn exact(set: InstructionSet) -> Option<&'static Self> {
        match set {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => Some(&AMX_EXACT),
            // So that tests of what uses it run on every machine.
            #[cfg(test)]
            InstructionSet::Portable => Some(&PORTABLE_EXACT),
            _ => None,
        }
    }

    /// Whether it rounds its operands.
    pub(crate) fn rounds(&self) -> bool {
        self.parts < PARTS
    }

    /// Readies this thread.
    pub(crate) fn ready(&'static self) -> Ready {
        // SAFETY: the kernel is one that this machine can run.
        unsafe { (self.begin)() };
        Ready(self)
    }

    /// Computes `rows` rows of a product for one block of columns or two.
    ///
    /// # Safety
    /// The thread must be [`Ready`]. All pointers of `product` must be valid for what its formula touches, `a` for whole
    /// tiles of rows, and `c` must not overlap `a` and `b`. If the last tile is not whole, rows of `c` must be
    /// [`BLOCK`] apart.
    pub(crate) unsafe fn product(&self, product: &Product<'_>, blocks: usize, rows: usize) {
        let Product { segments, steps, left, right, c, outcome, start } = *product;
        assert!((1..=2).contains(&blocks) && (rows.is_multiple_of(BLOCK) || outcome.row == BLOCK));
        let halves = size_of::<Half>();
        let add = matches!(start, Start::Add);
        let mut call = Call {
            segments: segments.as_ptr(),
            count: segments.len(),
            steps,
            a_row: left.row * halves,
            a_tile: left.tile * halves,
            a_step: left.step * halves,
            a_part: left.part * halves,
            b_block: right.block * halves,
            b_step: right.step * halves,
            start_row: if add { outcome.row * size_of::<f32>() } else { 0 },
            c_row: outcome.row * size_of::<f32>(),
            start: match start {
                Start::Row(values) => {
                    [values, values.wrapping_add(BLOCK), values, values.wrapping_add(BLOCK)]
                }
                _ => [std::ptr::null(); 4],
            },
            c: [std::ptr::null_mut(); 4],
            a_first: 0,
        };
        let mut partial = Partial([[0.0; BLOCK * BLOCK]; 2]);
        for first in (0..rows).step_by(2 * BLOCK) {
            let tiles = (rows - first).div_ceil(BLOCK).min(2);
            let at = |tile: usize, block: usize| {
                c.wrapping_add((first / BLOCK + tile) * outcome.tile + block * outcome.block)
            };
            call.c = [at(0, 0), at(0, 1), at(1, 0), at(1, 1)];
            // Rows of the last tile, if it is not whole.
            let rest = if first + tiles * BLOCK > rows { rows % BLOCK } else { 0 };
            if rest > 0 {
                for (block, partial) in partial.0.iter_mut().enumerate().take(blocks) {
                    let to = partial.as_mut_ptr();
                    if add {
                        // SAFETY: the caller vouches for the rows there are, which follow each other.
                        unsafe { to.copy_from_nonoverlapping(at(tiles - 1, block), rest * BLOCK) };
                    }
                    call.c[2 * (tiles - 1) + block] = to;
                }
            }
            if add {
                call.start = call.c.map(<*mut f32>::cast_const);
            }
            // SAFETY: the caller vouches for the pointers; the kernel is one that this machine can run.
            unsafe { (self.tiles[tiles - 1][blocks - 1])(&call) };
            if rest > 0 {
                for (block, partial) in partial.0.iter().enumerate().take(blocks) {
                    // SAFETY: as above.
                    unsafe { at(tiles - 1, block).copy_from_nonoverlapping(partial.as_ptr(), rest * BLOCK) };
                }
            }
            call.a_first += 2 * call.a_tile;
        }
    }

    /// Packs rows of one block of channels, and of the block after it if there is one, into rows of [`DEPTH`] values, whose
    /// parts follow each other.
    pub(crate) fn rows(&self, low: &[Row], high: Option<&[Row]>, to: &mut [Half]) {
        assert!(
            to.len() == low.len() * self.parts * DEPTH && high.is_none_or(|high| high.len() == low.len())
        );
        let high = high.map_or(std::ptr::null(), |high| high.as_ptr().cast());
        // SAFETY: there are so many rows of each; the kernel is one that this machine can run.
        unsafe { (self.rows)(low.as_ptr().cast(), high, low.len(), to.as_mut_ptr()) };
    }

    /// Packs `rows` rows of 16 values, `stride` apart, into right tiles. What is left of the last one becomes zero.
    pub(crate) fn pairs(&self, from: &[f32], stride: usize, rows: usize, to: &mut [Half]) {
        assert!(rows > 0 && from.len() >= (rows - 1) * stride + BLOCK);
        assert!(to.len() >= rows.div_ceil(DEPTH) * self.parts * TILE);
        // SAFETY: asserted.
        unsafe { (self.pairs)(from.as_ptr(), stride, rows, to.as_mut_ptr()) };
    }

    /// Packs 16 rows of 16 values, `stride` apart, and 16 more, into a right tile, with rows and columns exchanged: what
    /// lies in a row is the depth. What lies `ahead` will be read soon.
    pub(crate) fn turned(
        &self,
        low: &[f32],
        high: Option<&[f32]>,
        stride: usize,
        ahead: usize,
        to: &mut [Half],
    ) {
        let long = |from: &[f32]| from.len() >= (BLOCK - 1) * stride + BLOCK;
        assert!(long(low) && high.is_none_or(long) && to.len() >= self.parts * TILE);
        let strides = [stride, if high.is_some() { stride } else { 0 }];
        let high = high.map_or(ZEROS.as_ptr(), <[f32]>::as_ptr);
        // SAFETY: asserted.
        unsafe { (self.turned)([low.as_ptr(), high], strides, ahead, to.as_mut_ptr()) };
    }

    /// Rounds values, as many of both.
    pub(crate) fn round(&self, from: &[f32], to: &mut [Half]) {
        assert_eq!(from.len(), to.len());
        // SAFETY: asserted.
        unsafe { (self.round)(from.as_ptr(), from.len(), to.as_mut_ptr()) };
    }

    /// Moves [`DEPTH`] rows of rounded values into pairs of rows: a right tile for each block of columns.
    pub(crate) fn woven(&self, from: &[Half], row: usize, to: &mut [Half]) {
        assert!(row.is_multiple_of(BLOCK) && from.len() >= DEPTH * row && to.len() >= row / BLOCK * TILE);
        // SAFETY: asserted.
        unsafe { (self.woven)(from.as_ptr(), row, to.as_mut_ptr()) };
    }

    /// Packs rows of a block of channels with rows and channels exchanged: the rows are the depth of a left matrix, whose
    /// rows, steps and parts lie as `distance` says. Fills the last step up with zeros.
    pub(crate) fn lines(&self, from: &[Row], to: &mut [Half], distance: [usize; 3]) {
        let [row, step, part] = distance;
        let steps = from.len().div_ceil(DEPTH);
        let last = (BLOCK - 1) * row + steps.saturating_sub(1) * step + (self.parts - 1) * part;
        assert!(steps == 0 || to.len() >= last + DEPTH);
        // SAFETY: asserted.
        unsafe { (self.lines)(from.as_ptr().cast(), from.len(), to.as_mut_ptr(), distance) };
    }
}

unsafe fn nothing() {}

/// The functions of one instruction set for operands in so many parts, compiled for it; `tiles` are its own where they are
/// not made of [`dot::Dot`].
macro_rules! kernel {
    ($static:ident, $module:ident, $parts:expr, $dot:ty, $(#[$feature:meta])?) => {
        kernel!($static, $module, $parts, $dot, $(#[$feature])?, [
            [dot::<1, 1>, dot::<1, 2>],
            [dot::<2, 1>, dot::<2, 2>],
        ], nothing, nothing);
    };
    ($static:ident, $module:ident, $parts:expr, $dot:ty, $(#[$feature:meta])?,
     $tiles:expr, $begin:expr, $end:expr) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            #[allow(dead_code, reason = "unused where tiles are not made of `Dot`")]
            unsafe fn dot<const TILES: usize, const BLOCKS: usize>(call: &Call) {
                // SAFETY: passed on to the caller, here and below.
                unsafe { super::dot::tile::<$dot, { $parts }, TILES, BLOCKS>(call) }
            }
            $(#[$feature])?
            unsafe fn rows(low: *const f32, high: *const f32, count: usize, to: *mut Half) {
                // SAFETY: as above.
                unsafe { super::pack::rows::<$dot, { $parts }>(low, high, count, to) }
            }
            $(#[$feature])?
            unsafe fn pairs(from: *const f32, stride: usize, rows: usize, to: *mut Half) {
                // SAFETY: as above.
                unsafe { super::pack::pairs::<$dot, { $parts }>(from, stride, rows, to) }
            }
            $(#[$feature])?
            unsafe fn turned(from: [*const f32; 2], strides: [usize; 2], ahead: usize, to: *mut Half) {
                // SAFETY: as above.
                unsafe { super::pack::turned::<$dot, { $parts }>(from, strides, ahead, to) }
            }
            $(#[$feature])?
            unsafe fn lines(from: *const f32, count: usize, to: *mut Half, distance: [usize; 3]) {
                // SAFETY: as above.
                unsafe { super::pack::lines::<$dot, { $parts }>(from, count, to, distance) }
            }

            $(#[$feature])?
            unsafe fn round(from: *const f32, count: usize, to: *mut Half) {
                // SAFETY: as above.
                unsafe { super::pack::round::<$dot>(from, count, to) }
            }
            $(#[$feature])?
            unsafe fn woven(from: *const Half, row: usize, to: *mut Half) {
                // SAFETY: as above.
                unsafe { super::pack::woven(from, row, to) }
            }

            pub(super) static $static: Kernel = Kernel {
                parts: $parts, tiles: $tiles, begin: $begin, end: $end, rows, pairs, turned, lines, round, woven,
            };
        }
        use $module::$static;
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(AMX, amx_kernel, 1, Dot512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")],
    [[amx::tile_1x1, amx::tile_1x2], [amx::tile_2x1, amx::tile_2x2]], amx::begin, amx::end);
#[cfg(target_arch = "x86_64")]
kernel!(AMX_EXACT, amx_exact, PARTS, Dot512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")],
    [[amx::exact_1x1, amx::exact_1x2], [amx::exact_2x1, amx::exact_2x2]], amx::begin, amx::end);
#[cfg(target_arch = "x86_64")]
kernel!(AVX512BF16, avx512bf16, 1, Dot512,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
kernel!(AVX512, avx512, 1, Widened<Avx512>,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
kernel!(AVX2, avx2, 1, Widened<Avx2>, #[target_feature(enable = "avx2,fma")]);
kernel!(PORTABLE, portable, 1, Widened<Portable>,);
#[cfg(test)]
kernel!(PORTABLE_EXACT, portable_exact, PARTS, Widened<Portable>,);

#[cfg(test)]
mod tests;
