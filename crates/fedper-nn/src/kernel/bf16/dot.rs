//! Products of pairs in vectors: by the instruction for it, or widened to f32.

use std::marker::PhantomData;

use super::{BLOCK, Call, DEPTH, Half, Simd, TERMS, TILE};

/// Pairs of bf16 and their products.
///
/// # Safety
/// Of every function: the machine must have the instruction set, and pointers must be valid for what is touched.
pub(super) trait Dot: Copy {
    /// The vectors that sums are in.
    type S: Simd;
    /// A vector of pairs.
    type Pairs: Copy;
    /// Rounds 16 values and 16 more, in this order, or writes their parts, `part` apart.
    unsafe fn join<const PARTS: usize>(low: *const f32, high: *const f32, to: *mut Half, part: usize);
    /// As [`Dot::join`], pair by pair.
    unsafe fn weave<const PARTS: usize>(even: *const f32, odd: *const f32, to: *mut Half, part: usize);
    /// As many pairs as `S` has lanes.
    unsafe fn load(from: *const Half) -> Self::Pairs;
    /// The same pair in every lane.
    unsafe fn splat(from: *const Half) -> Self::Pairs;
    /// `sum + a[0] * b[0] + a[1] * b[1]`.
    unsafe fn dot(a: Self::Pairs, b: Self::Pairs, sum: <Self::S as Simd>::V) -> <Self::S as Simd>::V;
}

/// Rounds to the nearest, ties to even; what is subnormal becomes 0, and NaN stays NaN.
#[inline(always)]
pub(super) fn narrow(value: f32) -> Half {
    const EXPONENT: u32 = f32::INFINITY.to_bits();
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
    let upper = (bits >> 16) as u16;
    let quiet = if bits & !(1 << 31) > EXPONENT { upper | 0x40 } else { rounded };
    if bits & EXPONENT == 0 { upper & 0x8000 } else { quiet }
}

/// The rounded value, and of every other part what those before have left.
#[inline(always)]
pub(super) fn parts<const PARTS: usize>(mut value: f32) -> [Half; PARTS] {
    std::array::from_fn(|_| {
        let half = narrow(value);
        value -= widen(half);
        half
    })
}

pub(super) fn widen(half: Half) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// In f32.
#[derive(Clone, Copy)]
pub(super) struct Widened<S>(PhantomData<S>);

impl<S: Simd> Dot for Widened<S> {
    type S = S;
    type Pairs = [S::V; 2];
    #[inline(always)]
    unsafe fn join<const PARTS: usize>(low: *const f32, high: *const f32, to: *mut Half, part: usize) {
        for i in 0..BLOCK {
            // SAFETY: the caller vouches for 16 values of each, here and below, and for room for every part.
            unsafe {
                let both = parts::<PARTS>(*low.add(i)).into_iter().zip(parts::<PARTS>(*high.add(i)));
                for (p, (low, high)) in both.enumerate() {
                    *to.add(p * part + i) = low;
                    *to.add(p * part + BLOCK + i) = high;
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn weave<const PARTS: usize>(even: *const f32, odd: *const f32, to: *mut Half, part: usize) {
        for i in 0..BLOCK {
            // SAFETY: as in `join`.
            unsafe {
                let both = parts::<PARTS>(*even.add(i)).into_iter().zip(parts::<PARTS>(*odd.add(i)));
                for (p, (even, odd)) in both.enumerate() {
                    *to.add(p * part + 2 * i) = even;
                    *to.add(p * part + 2 * i + 1) = odd;
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const Half) -> [S::V; 2] {
        // SAFETY: the caller vouches for `LANES` pairs, and has `S`.
        unsafe { S::halves(from) }
    }
    #[inline(always)]
    unsafe fn splat(from: *const Half) -> [S::V; 2] {
        // SAFETY: the caller vouches for a pair, and has `S`.
        unsafe { S::splat_halves(from) }
    }
    #[inline(always)]
    unsafe fn dot(a: [S::V; 2], b: [S::V; 2], sum: S::V) -> S::V {
        // SAFETY: the caller has `S`.
        unsafe { S::mul_add(a[1], b[1], S::mul_add(a[0], b[0], sum)) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::Dot512;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Dot, Half};
    use crate::kernel::simd::Avx512;
    use std::arch::x86_64::*;

    /// AVX-512 with BF16.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Dot512;

    /// Halves of two vectors, pair by pair: lane `i` of the first, then of the second.
    const WOVEN: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        order
    };

    impl Dot for Dot512 {
        type S = Avx512;
        type Pairs = __m512bh;
        #[inline(always)]
        unsafe fn join<const PARTS: usize>(low: *const f32, high: *const f32, to: *mut Half, part: usize) {
            // SAFETY: the caller has AVX512-BF16, here and below, and vouches for 16 values of each and room for every part.
            unsafe {
                let mut rest = [_mm512_loadu_ps(low), _mm512_loadu_ps(high)];
                for p in 0..PARTS {
                    let halves = _mm512_cvtne2ps_pbh(rest[1], rest[0]);
                    let halves = std::mem::transmute::<__m512bh, __m512i>(halves);
                    _mm512_storeu_si512(to.add(p * part).cast(), halves);
                    let halves = [_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves)];
                    for (rest, halves) in rest.iter_mut().zip(halves) {
                        let wide = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves));
                        *rest = _mm512_sub_ps(*rest, _mm512_castsi512_ps(wide));
                    }
                }
            }
        }
        #[inline(always)]
        unsafe fn weave<const PARTS: usize>(even: *const f32, odd: *const f32, to: *mut Half, part: usize) {
            // SAFETY: as in `join`.
            unsafe {
                let (mut even, mut odd) = (_mm512_loadu_ps(even), _mm512_loadu_ps(odd));
                let order = _mm512_loadu_si512(WOVEN.as_ptr().cast());
                for p in 0..PARTS {
                    let halves = _mm512_cvtne2ps_pbh(odd, even);
                    let halves = std::mem::transmute::<__m512bh, __m512i>(halves);
                    let halves = _mm512_permutexvar_epi16(order, halves);
                    _mm512_storeu_si512(to.add(p * part).cast(), halves);
                    let wide = _mm512_slli_epi32::<16>(halves);
                    even = _mm512_sub_ps(even, _mm512_castsi512_ps(wide));
                    let wide = _mm512_and_si512(halves, _mm512_set1_epi32(-1 << 16));
                    odd = _mm512_sub_ps(odd, _mm512_castsi512_ps(wide));
                }
            }
        }
        #[inline(always)]
        unsafe fn load(from: *const Half) -> __m512bh {
            // SAFETY: the caller vouches for 16 pairs.
            unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast())) }
        }
        #[inline(always)]
        unsafe fn splat(from: *const Half) -> __m512bh {
            // SAFETY: the caller vouches for a pair.
            unsafe {
                let pair = from.cast::<i32>().read_unaligned();
                std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair))
            }
        }
        #[inline(always)]
        unsafe fn dot(a: __m512bh, b: __m512bh, sum: __m512) -> __m512 {
            // SAFETY: as in `join`.
            unsafe { _mm512_dpbf16_ps(sum, a, b) }
        }
    }
}

/// # Safety
/// As [`super::Kernel::product`]; the machine must have `D`.
#[inline(always)]
pub(super) unsafe fn tile<D: Dot, const PARTS: usize, const TILES: usize, const BLOCKS: usize>(call: &Call) {
    for tile in 0..TILES {
        // As many rows at a time as there are registers for.
        // SAFETY: passed on to the caller.
        unsafe {
            match D::S::LANES {
                16 => (0..BLOCK).step_by(8).for_each(|row| part::<D, PARTS, 8, BLOCKS>(call, tile, row)),
                _ => (0..BLOCK).step_by(4).for_each(|row| part::<D, PARTS, 4, BLOCKS>(call, tile, row)),
            }
        }
    }
}

/// Some rows of a tile.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn part<D: Dot, const PARTS: usize, const ROWS: usize, const BLOCKS: usize>(
    call: &Call,
    tile: usize,
    first: usize,
) {
    let terms = if PARTS == 1 { &[[0, 0]][..] } else { &TERMS[..] };
    // SAFETY: the caller vouches for the pointers, and has `D`.
    unsafe {
        let segments = std::slice::from_raw_parts(call.segments, call.count);
        for v in (0..BLOCK).step_by(D::S::LANES) {
            let mut sums = [[D::S::zero(); BLOCKS]; ROWS];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (block, sum) in sums.iter_mut().enumerate() {
                    let start = call.start[2 * tile + block];
                    if start.is_null() {
                        continue;
                    }
                    *sum = D::S::load(start.wrapping_byte_add((first + r) * call.start_row).add(v));
                }
            }
            // All of a term before the next, which adds more, so that little is lost to rounding.
            for ([left, right], segment) in
                terms.iter().flat_map(|term| segments.iter().map(move |s| (term, s)))
            {
                let a = segment.a.wrapping_byte_add(left * call.a_part);
                let mut a = a.wrapping_byte_add(call.a_first + tile * call.a_tile + first * call.a_row);
                let mut b = segment.b.wrapping_add(right * TILE + 2 * v);
                for _ in 0..call.steps {
                    for pair in 0..DEPTH / 2 {
                        let mut right = [D::load(b.add(pair * DEPTH)); BLOCKS];
                        for (block, right) in right.iter_mut().enumerate().skip(1) {
                            *right = D::load(b.wrapping_byte_add(block * call.b_block).add(pair * DEPTH));
                        }
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let left = D::splat(a.wrapping_byte_add(r * call.a_row).add(2 * pair));
                            for (sum, right) in sums.iter_mut().zip(right) {
                                *sum = D::dot(left, right, *sum);
                            }
                        }
                    }
                    a = a.wrapping_byte_add(call.a_step);
                    b = b.wrapping_byte_add(call.b_step);
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (block, sum) in sums.iter().enumerate() {
                    let c = call.c[2 * tile + block].wrapping_byte_add((first + r) * call.c_row);
                    D::S::store(c.add(v), *sum);
                }
            }
        }
    }
}
