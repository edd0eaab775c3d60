//! Vectors of `f32`, as much as the kernels need of them.

use super::BLOCK;

/// A vector instruction set.
///
/// # Safety
/// Of every function: the machine must have the instruction set, and pointers must be valid for the lanes touched.
pub(crate) trait Simd: Copy {
    /// `f32` per vector.
    const LANES: usize;
    type V: Copy;
    unsafe fn zero() -> Self::V;
    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// The first and the second values of as many pairs of bf16 as there are lanes.
    unsafe fn halves(pairs: *const u16) -> [Self::V; 2];
    /// The same pair in every lane.
    unsafe fn splat_halves(pair: *const u16) -> [Self::V; 2];
    /// Asks for a cache line that will be read soon; the address need not be valid.
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        let _ = from;
    }
    /// As [`super::elementwise::flush`].
    unsafe fn flush(v: Self::V) -> Self::V;
    /// `v` held to `low..=high`; NaN stays NaN, so that a diverged network is seen to have diverged.
    unsafe fn clamp(v: Self::V, low: f32, high: f32) -> Self::V;
    /// `g` where `z` lies strictly between `low` and `high`, else 0.
    unsafe fn pass(g: Self::V, z: Self::V, low: f32, high: f32) -> Self::V;
    /// `v` in the lanes whose byte is `value`, else 0.
    unsafe fn where_equal(bytes: *const u8, value: u8, v: Self::V) -> Self::V;
    /// The largest of four in each lane, and, a byte each, which it was: the first of those that are equal, or the last NaN.
    unsafe fn max_of_four(x: [Self::V; 4], winner: *mut u8) -> Self::V;
    /// `to[i] = ` the sum of the lanes of vector `i`; vectors lie [`BLOCK`] apart.
    #[inline(always)]
    unsafe fn sum_lanes(from: *const f32, to: &mut [f32; BLOCK]) {
        for (i, to) in to.iter_mut().enumerate() {
            let mut sums = [0.0; 4];
            for lane in 0..Self::LANES {
                // SAFETY: the caller vouches for `BLOCK` vectors.
                sums[lane % 4] += unsafe { *from.add(i * BLOCK + lane) };
            }
            *to = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    }
    /// `to[j * to_width + i] = from[i * from_width + j]` for [`BLOCK`] rows and columns, whatever lies there: bits stay, and
    /// need not be aligned.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
        for i in 0..BLOCK {
            for j in 0..BLOCK {
                // SAFETY: the caller vouches for `BLOCK` rows of `BLOCK` values of both, which need not be aligned.
                unsafe {
                    to.add(j * to_width + i).write_unaligned(from.add(i * from_width + j).read_unaligned())
                };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86;

/// Four lanes in plain Rust: SSE2 or NEON by the compiler's own doing.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Simd for Portable {
    const LANES: usize = 4;
    type V = [f32; 4];
    #[inline(always)]
    unsafe fn zero() -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller vouches for four lanes; the read does not need alignment.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        // SAFETY: as in `load`.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn halves(pairs: *const u16) -> [[f32; 4]; 2] {
        // SAFETY: as in `load`. The first value of a pair is the lower half: x86-64 and aarch64 are little-endian.
        let pairs = unsafe { pairs.cast::<[u32; 4]>().read_unaligned() };
        [pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & 0xffff_0000))]
    }
    #[inline(always)]
    unsafe fn splat_halves(pair: *const u16) -> [[f32; 4]; 2] {
        // SAFETY: the caller vouches for a pair; the read does not need alignment.
        let pair = unsafe { pair.cast::<u32>().read_unaligned() };
        [[f32::from_bits(pair << 16); 4], [f32::from_bits(pair & 0xffff_0000); 4]]
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // aarch64 always has a fused multiply-add; on baseline x86-64 `mul_add` would be a library call.
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn where_equal(bytes: *const u8, value: u8, v: [f32; 4]) -> [f32; 4] {
        // SAFETY: the caller vouches for a byte a lane.
        let bytes = unsafe { bytes.cast::<[u8; 4]>().read_unaligned() };
        std::array::from_fn(|i| if bytes[i] == value { v[i] } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn max_of_four(x: [[f32; 4]; 4], winner: *mut u8) -> [f32; 4] {
        let (mut max, mut tap) = (x[0], [0; 4]);
        for (other, x) in (1..).zip(&x[1..]) {
            for ((max, tap), &x) in max.iter_mut().zip(&mut tap).zip(x) {
                let larger = (x > *max) | x.is_nan();
                *max = if larger { x } else { *max };
                *tap = if larger { other } else { *tap };
            }
        }
        // SAFETY: as in `where_equal`.
        unsafe { winner.cast::<[u8; 4]>().write_unaligned(tap) };
        max
    }
    #[inline(always)]
    unsafe fn flush(v: [f32; 4]) -> [f32; 4] {
        v.map(super::elementwise::flush)
    }
    #[inline(always)]
    unsafe fn clamp(v: [f32; 4], low: f32, high: f32) -> [f32; 4] {
        v.map(|v| super::elementwise::clamp(v, (low, high)))
    }
    #[inline(always)]
    unsafe fn pass(g: [f32; 4], z: [f32; 4], low: f32, high: f32) -> [f32; 4] {
        std::array::from_fn(|i| super::elementwise::pass(g[i], z[i], (low, high)))
    }
}
