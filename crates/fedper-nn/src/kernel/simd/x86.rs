//! AVX2 and AVX-512.

use super::{BLOCK, Simd};
use std::arch::x86_64::*;

/// AVX-512F.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Simd for Avx512 {
    const LANES: usize = 16;
    type V = __m512;
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller has AVX-512F, here and below, and vouches for pointers.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m512) {
        // SAFETY: as in `zero`.
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn halves(pairs: *const u16) -> [__m512; 2] {
        // SAFETY: as in `zero`.
        unsafe { halves_512(_mm512_loadu_si512(pairs.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_halves(pair: *const u16) -> [__m512; 2] {
        // SAFETY: as in `zero`; the read does not need alignment.
        unsafe { halves_512(_mm512_set1_epi32(pair.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        // SAFETY: a hint, which does not touch memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn flush(v: __m512) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe {
            let exponent = _mm512_set1_epi32(f32::INFINITY.to_bits() as i32);
            _mm512_maskz_mov_ps(_mm512_test_epi32_mask(_mm512_castps_si512(v), exponent), v)
        }
    }
    #[inline(always)]
    unsafe fn clamp(v: __m512, low: f32, high: f32) -> __m512 {
        // SAFETY: as in `zero`. Of two operands the second is the result if one is NaN.
        unsafe { _mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), v)) }
    }
    #[inline(always)]
    unsafe fn pass(g: __m512, z: __m512, low: f32, high: f32) -> __m512 {
        // SAFETY: as in `zero`.
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(z, _mm512_set1_ps(low));
            let inside = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, z, _mm512_set1_ps(high));
            _mm512_maskz_mov_ps(inside, g)
        }
    }
    #[inline(always)]
    unsafe fn where_equal(bytes: *const u8, value: u8, v: __m512) -> __m512 {
        // SAFETY: as in `zero`, and the caller vouches for a byte a lane.
        unsafe {
            let bytes = _mm_loadu_si128(bytes.cast());
            _mm512_maskz_mov_ps(_mm_cmpeq_epi8_mask(bytes, _mm_set1_epi8(value as i8)), v)
        }
    }
    #[inline(always)]
    unsafe fn max_of_four([first, rest @ ..]: [__m512; 4], winner: *mut u8) -> __m512 {
        // SAFETY: as in `where_equal`.
        unsafe {
            let (mut largest, mut tap) = (first, _mm_setzero_si128());
            for (other, x) in (1..).zip(rest) {
                let larger =
                    _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, largest) | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
                largest = _mm512_mask_mov_ps(largest, larger, x);
                tap = _mm_mask_mov_epi8(tap, larger, _mm_set1_epi8(other));
            }
            _mm_storeu_si128(winner.cast(), tap);
            largest
        }
    }
    #[inline(always)]
    unsafe fn sum_lanes(from: *const f32, to: &mut [f32; BLOCK]) {
        // SAFETY: as in `zero`, and the caller vouches for 16 vectors.
        unsafe {
            // Of each two vectors, two sums of two lanes in each quarter; of each four, four sums of all lanes of it.
            let mut pairs = [_mm512_setzero_pd(); 8];
            for (i, pair) in pairs.iter_mut().enumerate() {
                let a = _mm512_loadu_ps(from.add(2 * i * BLOCK));
                let b = _mm512_loadu_ps(from.add((2 * i + 1) * BLOCK));
                let sum = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                *pair = _mm512_castps_pd(sum);
            }
            let mut fours = [_mm512_setzero_ps(); 4];
            for (i, four) in fours.iter_mut().enumerate() {
                let (a, b) = (pairs[2 * i], pairs[2 * i + 1]);
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                *four = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            // Then the quarters, of which the even ones and the odd ones go together.
            let [a, b, c, d] = fours;
            let low = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            let high = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
            let even = _mm512_shuffle_f32x4::<0x88>(low, high);
            let sums = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0xdd>(low, high));
            _mm512_storeu_ps(to.as_mut_ptr(), sums);
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_width: usize, to: *mut f32, to_width: usize) {
        // SAFETY: as in `zero`, and the caller vouches for 16 rows of 16 values of both.
        unsafe {
            // Four columns at a time: vector `j` is made of these columns of rows j, 4 + j, 8 + j and 12 + j, a quarter
            // each; loading quarters leaves only the exchange within them.
            for column in (0..16).step_by(4) {
                let quarter = |row: usize| _mm_loadu_ps(from.add(row * from_width + column));
                let [a, b, c, d] = std::array::from_fn(|j| {
                    let v = _mm512_castps128_ps512(quarter(j));
                    let v = _mm512_insertf32x4::<1>(v, quarter(4 + j));
                    let v = _mm512_insertf32x4::<2>(v, quarter(8 + j));
                    _mm512_insertf32x4::<3>(v, quarter(12 + j))
                });
                let low = [_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d)].map(|v| _mm512_castps_pd(v));
                let high = [_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d)].map(|v| _mm512_castps_pd(v));
                let columns = [
                    _mm512_unpacklo_pd(low[0], low[1]),
                    _mm512_unpackhi_pd(low[0], low[1]),
                    _mm512_unpacklo_pd(high[0], high[1]),
                    _mm512_unpackhi_pd(high[0], high[1]),
                ];
                for (k, v) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((column + k) * to_width), _mm512_castpd_ps(v));
                }
            }
        }
    }
}

/// The lower and the upper half of each lane, as floats.
///
/// # Safety
/// The machine must have AVX-512F.
#[inline(always)]
unsafe fn halves_512(pairs: __m512i) -> [__m512; 2] {
    // SAFETY: as above.
    unsafe {
        let upper = _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(upper)]
    }
}

/// As [`halves_512`].
///
/// # Safety
/// The machine must have AVX2.
#[inline(always)]
unsafe fn halves_256(pairs: __m256i) -> [__m256; 2] {
    // SAFETY: as above.
    unsafe {
        let upper = _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(upper)]
    }
}

/// AVX2 with FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

impl Simd for Avx2 {
    const LANES: usize = 8;
    type V = __m256;
    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the caller has AVX2 and FMA, here and below, and vouches for pointers.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: __m256) {
        // SAFETY: as in `zero`.
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn halves(pairs: *const u16) -> [__m256; 2] {
        // SAFETY: as in `zero`.
        unsafe { halves_256(_mm256_loadu_si256(pairs.cast())) }
    }
    #[inline(always)]
    unsafe fn splat_halves(pair: *const u16) -> [__m256; 2] {
        // SAFETY: as in `zero`; the read does not need alignment.
        unsafe { halves_256(_mm256_set1_epi32(pair.cast::<i32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const f32) {
        // SAFETY: a hint, which does not touch memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn where_equal(bytes: *const u8, value: u8, v: __m256) -> __m256 {
        // SAFETY: as in `zero`, and the caller vouches for a byte a lane.
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.cast()));
            let equal = _mm256_cmpeq_epi32(bytes, _mm256_set1_epi32(value.into()));
            _mm256_and_ps(_mm256_castsi256_ps(equal), v)
        }
    }
    #[inline(always)]
    unsafe fn max_of_four([first, rest @ ..]: [__m256; 4], winner: *mut u8) -> __m256 {
        // SAFETY: as in `where_equal`.
        unsafe {
            let (mut largest, mut tap) = (first, _mm256_setzero_ps());
            for (other, x) in (1..).zip(rest) {
                let larger = _mm256_or_ps(
                    _mm256_cmp_ps::<_CMP_GT_OQ>(x, largest),
                    _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x),
                );
                largest = _mm256_blendv_ps(largest, x, larger);
                tap = _mm256_blendv_ps(tap, _mm256_castsi256_ps(_mm256_set1_epi32(other)), larger);
            }
            let tap = _mm256_castps_si256(tap);
            let words = _mm_packus_epi32(_mm256_castsi256_si128(tap), _mm256_extracti128_si256::<1>(tap));
            _mm_storel_epi64(winner.cast(), _mm_packus_epi16(words, words));
            largest
        }
    }
    #[inline(always)]
    unsafe fn flush(v: __m256) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe {
            let exponent = _mm256_set1_epi32(f32::INFINITY.to_bits() as i32);
            let bits = _mm256_and_si256(_mm256_castps_si256(v), exponent);
            let none = _mm256_cmpeq_epi32(bits, _mm256_setzero_si256());
            _mm256_andnot_ps(_mm256_castsi256_ps(none), v)
        }
    }
    #[inline(always)]
    unsafe fn clamp(v: __m256, low: f32, high: f32) -> __m256 {
        // SAFETY: as in `zero`. Of two operands the second is the result if one is NaN.
        unsafe { _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), v)) }
    }
    #[inline(always)]
    unsafe fn pass(g: __m256, z: __m256, low: f32, high: f32) -> __m256 {
        // SAFETY: as in `zero`.
        unsafe {
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(z, _mm256_set1_ps(low));
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(z, _mm256_set1_ps(high));
            _mm256_and_ps(_mm256_and_ps(above, below), g)
        }
    }
}
