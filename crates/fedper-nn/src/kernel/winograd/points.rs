//! One-dimensional transforms: which points polynomials are evaluated at, and how.

use crate::kernel::simd::Simd;

/// `factor * v + to`
///
/// # Safety
/// The machine must have `S`.
#[inline(always)]
unsafe fn times<S: Simd>(factor: f32, v: S::V, to: S::V) -> S::V {
    // SAFETY: passed on to the caller.
    unsafe {
        match factor {
            1.0 => S::add(to, v),
            -1.0 => S::sub(to, v),
            _ => S::mul_add(S::splat(factor), v, to),
        }
    }
}

/// The points 0 and infinity, then `p` and `-p` for each of [`Points::PAIRS`].
///
/// # Safety
/// Of every function: the machine must have `S`.
pub(super) trait Points<const SIDE: usize> {
    const PAIRS: &'static [f32];
    /// What the filter's values are multiplied by, so that [`Points::input`] has few multiplications.
    const SCALE: [f32; SIDE];

    /// The transform of inputs.
    unsafe fn input<S: Simd>(x: [S::V; SIDE]) -> [S::V; SIDE];

    /// [`Points::input`], transposed.
    unsafe fn input_gradient<S: Simd>(values: [S::V; SIDE]) -> [S::V; SIDE];

    /// The values of a polynomial: the transposed transform of outputs, and that of the filter but for the scale.
    #[inline(always)]
    unsafe fn evaluate<S: Simd, const N: usize>(c: [S::V; N]) -> [S::V; SIDE] {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut values = [c[0]; SIDE];
            for pair in 0..SIDE / 2 {
                [values[2 * pair], values[2 * pair + 1]] = Self::evaluate_pair::<S, N>(c, pair);
            }
            values
        }
    }

    /// [`Points::evaluate`] at two of the points.
    #[inline(always)]
    unsafe fn evaluate_pair<S: Simd, const N: usize>(c: [S::V; N], pair: usize) -> [S::V; 2] {
        // SAFETY: passed on to the caller.
        unsafe {
            if pair == 0 {
                return [c[0], c[N - 1]];
            }
            let point = Self::PAIRS[pair - 1];
            // Those of even and of odd degree, from the highest down.
            let top = N - 1;
            let mut sums = [c[top - top % 2], c[top - (top + 1) % 2]];
            for (j, &c) in c[..N - 2].iter().enumerate().rev() {
                sums[j % 2] = times::<S>(point * point, sums[j % 2], c);
            }
            [times::<S>(point, sums[1], sums[0]), times::<S>(-point, sums[1], sums[0])]
        }
    }

    /// [`Points::evaluate`], transposed: the transform of outputs.
    #[inline(always)]
    unsafe fn combine<S: Simd, const N: usize>(values: [S::V; SIDE]) -> [S::V; N] {
        // SAFETY: passed on to the caller.
        unsafe {
            let mut c = [S::zero(); N];
            for (k, &point) in Self::PAIRS.iter().enumerate() {
                let [a, b] = [values[2 + 2 * k], values[3 + 2 * k]];
                let sums = [S::add(a, b), S::sub(a, b)];
                let mut power = 1.0;
                for (j, c) in c.iter_mut().enumerate() {
                    *c = if k == 0 { sums[j % 2] } else { times::<S>(power, sums[j % 2], *c) };
                    power *= point;
                }
            }
            c[0] = S::add(c[0], values[0]);
            c[N - 1] = S::add(c[N - 1], values[1]);
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

pub(super) struct Four;

impl Points<4> for Four {
    // `combine` takes the first to be 1.
    const PAIRS: &'static [f32] = &[1.0];
    const SCALE: [f32; 4] = [1.0, 1.0, 0.5, 0.5];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: passed on to the caller.
        unsafe { [S::sub(a, c), S::sub(d, b), S::add(b, c), S::sub(c, b)] }
    }

    #[inline(always)]
    unsafe fn input_gradient<S: Simd>([zero, infinity, a, b]: [S::V; 4]) -> [S::V; 4] {
        // SAFETY: passed on to the caller.
        unsafe { [zero, S::sub(S::sub(a, b), infinity), S::sub(S::add(a, b), zero), infinity] }
    }
}

pub(super) struct Eight;

impl Points<8> for Eight {
    const PAIRS: &'static [f32] = &[1.0, 0.5, 2.0];
    const SCALE: [f32; 8] =
        [1.0, 1.0, -2.0 / 9.0, -2.0 / 9.0, 32.0 / 45.0, 32.0 / 45.0, 1.0 / 90.0, 1.0 / 90.0];

    #[inline(always)]
    unsafe fn input<S: Simd>([a, b, c, d, e, f, g, h]: [S::V; 8]) -> [S::V; 8] {
        // SAFETY: passed on to the caller.
        unsafe {
            // Of even and of odd degree, for each pair.
            let one = [times::<S>(-4.25, e, S::add(c, g)), times::<S>(-4.25, d, S::add(b, f))];
            let half =
                [times::<S>(4.0, c, times::<S>(-5.0, e, g)), times::<S>(0.25, f, times::<S>(-1.25, d, b))];
            let two =
                [times::<S>(0.25, c, times::<S>(-1.25, e, g)), times::<S>(0.25, b, times::<S>(-1.25, d, f))];
            [
                times::<S>(5.25, S::sub(e, c), S::sub(a, g)),
                times::<S>(5.25, S::sub(d, f), S::sub(h, b)),
                S::add(one[0], one[1]),
                S::sub(one[0], one[1]),
                times::<S>(2.0, half[1], half[0]),
                times::<S>(-2.0, half[1], half[0]),
                times::<S>(2.0, two[1], two[0]),
                times::<S>(-2.0, two[1], two[0]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn input_gradient<S: Simd>(values: [S::V; 8]) -> [S::V; 8] {
        let [zero, infinity, a, b, c, d, e, f] = values;
        // SAFETY: passed on to the caller.
        unsafe {
            let [one, half, two] = [[a, b], [c, d], [e, f]].map(|[a, b]| [S::add(a, b), S::sub(a, b)]);
            let ends = times::<S>(0.5, two[1], S::sub(one[1], infinity));
            let middle = S::mul(S::splat(5.25), infinity);
            let low = S::mul(S::splat(-4.25), one[0]);
            let high = times::<S>(-4.25, one[1], middle);
            let sixth = S::add(S::add(half[0], two[0]), one[0]);
            [
                zero,
                times::<S>(2.0, half[1], ends),
                times::<S>(-5.25, zero, times::<S>(4.0, half[0], times::<S>(0.25, two[0], one[0]))),
                times::<S>(-2.5, S::add(half[1], two[1]), high),
                times::<S>(5.25, zero, times::<S>(-5.0, half[0], times::<S>(-1.25, two[0], low))),
                S::sub(times::<S>(0.5, half[1], times::<S>(2.0, two[1], one[1])), middle),
                S::sub(sixth, zero),
                infinity,
            ]
        }
    }
}
