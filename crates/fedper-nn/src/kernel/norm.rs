//! The loops of batch norm, over the rows of one block of channels.
//!
//! Sums are taken in f32 over a few rows at a time and merged in f64. Values are shifted before they are squared, so
//! that a mean that is large against the deviation does not cancel.

use super::{BLOCK, Row, vectorised};

/// Sums of a block, in f64.
pub(crate) type Sums = [f64; BLOCK];

/// Rows that are summed side by side, so that one sum need not wait for the one before.
const SIDES: usize = 4;
/// Rows whose sums are taken in f32: few enough that little is lost.
const AT_ONCE: usize = 64;

/// What normalises a block: `scale * (y - mean) + shift`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine {
    pub(crate) mean: Row,
    pub(crate) scale: Row,
    pub(crate) shift: Row,
}

/// The gradient through batch norm: `scale * g + slope * (y - mean) + offset`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    pub(crate) slope: Row,
    pub(crate) offset: Row,
}

/// Calls `$each` with the sides and the row of `$count` rows, in turns; then merges the sums of the sides into totals.
/// `$v` goes through the vectors of a block.
macro_rules! sums {
    ($s:ident, $count:expr, $v:ident, [$($sums:ident => $total:expr),*], |$side:ident, $row:ident| $each:block) => {
        for first in (0..$count).step_by(AT_ONCE) {
            let last = $count.min(first + AT_ONCE);
            $(let mut $sums = [$s::zero(); SIDES];)*
            let mut $row = first;
            while $row + SIDES <= last {
                for $side in 0..SIDES {
                    $each
                    $row += 1;
                }
            }
            while $row < last {
                let $side = 0;
                $each
                $row += 1;
            }
            $({
                let sum = $s::add($s::add($sums[0], $sums[2]), $s::add($sums[1], $sums[3]));
                let mut lanes = [0.0; BLOCK];
                $s::store(lanes.as_mut_ptr(), sum);
                for l in 0..$s::LANES {
                    $total[$v + l] += f64::from(lanes[l]);
                }
            })*
        }
    };
}

vectorised! {
    /// Adds the sums of `y - pivot` and of its square.
    pub(crate) fn shifted_sums<S>(y: &[Row], pivot: &Row, sum: &mut Sums, squares: &mut Sums) {
        for v in (0..BLOCK).step_by(S::LANES) {
            let pivot = S::load(pivot.as_ptr().add(v));
            let y_at = y.as_ptr().cast::<f32>().add(v);
            sums!(S, y.len(), v, [s => sum, q => squares], |side, row| {
                let d = S::sub(S::load(y_at.add(row * BLOCK)), pivot);
                s[side] = S::add(s[side], d);
                q[side] = S::add(q[side], S::mul(d, d));
            });
        }
    }
}

vectorised! {
    /// `z = activation(scale * (y - mean) + shift)`
    pub(crate) fn normalise<S>(y: &[Row], z: &mut [Row], affine: &Affine, range: (f32, f32)) {
        assert_eq!(y.len(), z.len());
        for v in (0..BLOCK).step_by(S::LANES) {
            let [mean, scale, shift] =
                [&affine.mean, &affine.scale, &affine.shift].map(|row| S::load(row.as_ptr().add(v)));
            let (y, z_at) = (y.as_ptr().cast::<f32>().add(v), z.as_mut_ptr().cast::<f32>().add(v));
            for row in 0..z.len() {
                let d = S::sub(S::load(y.add(row * BLOCK)), mean);
                let value = S::add(S::mul(d, scale), shift);
                S::store(z_at.add(row * BLOCK), S::clamp(value, range.0, range.1));
            }
        }
    }
}

vectorised! {
    /// `z = activation(scale * (y - mean) + shift + residual)`
    pub(crate) fn normalise_add<S>(
        y: &[Row],
        residual: &[Row],
        z: &mut [Row],
        affine: &Affine,
        range: (f32, f32),
    ) {
        assert!(y.len() == z.len() && residual.len() == z.len());
        for v in (0..BLOCK).step_by(S::LANES) {
            let [mean, scale, shift] =
                [&affine.mean, &affine.scale, &affine.shift].map(|row| S::load(row.as_ptr().add(v)));
            let [y, r] = [y, residual].map(|rows| rows.as_ptr().cast::<f32>().add(v));
            let z_at = z.as_mut_ptr().cast::<f32>().add(v);
            for row in 0..z.len() {
                let d = S::sub(S::load(y.add(row * BLOCK)), mean);
                let value = S::add(S::add(S::mul(d, scale), shift), S::load(r.add(row * BLOCK)));
                S::store(z_at.add(row * BLOCK), S::clamp(value, range.0, range.1));
            }
        }
    }
}

vectorised! {
    /// Adds the sums of the gradient `g`, where [`normalise`]'s activation let it pass, and of `g * (y - mean)`.
    pub(crate) fn gradient_sums<S>(
        g: &[Row],
        y: &[Row],
        affine: &Affine,
        range: (f32, f32),
        sum: &mut Sums,
        products: &mut Sums,
    ) {
        assert_eq!(g.len(), y.len());
        for v in (0..BLOCK).step_by(S::LANES) {
            let [mean, scale, shift] =
                [&affine.mean, &affine.scale, &affine.shift].map(|row| S::load(row.as_ptr().add(v)));
            let [g_at, y] = [g, y].map(|rows| rows.as_ptr().cast::<f32>().add(v));
            sums!(S, g.len(), v, [s => sum, q => products], |side, row| {
                let d = S::sub(S::load(y.add(row * BLOCK)), mean);
                let value = S::add(S::mul(d, scale), shift);
                let passed = S::pass(S::load(g_at.add(row * BLOCK)), value, range.0, range.1);
                s[side] = S::add(s[side], passed);
                q[side] = S::add(q[side], S::mul(passed, d));
            });
        }
    }
}

vectorised! {
    /// [`gradient_sums`] where a residual was added: stops `g` in place where the output `z` says so.
    pub(crate) fn masked_gradient_sums<S>(
        g: &mut [Row],
        y: &[Row],
        z: &[Row],
        mean: &Row,
        range: (f32, f32),
        sum: &mut Sums,
        products: &mut Sums,
    ) {
        assert!(y.len() == g.len() && z.len() == g.len());
        for v in (0..BLOCK).step_by(S::LANES) {
            let mean = S::load(mean.as_ptr().add(v));
            let [y, z] = [y, z].map(|rows| rows.as_ptr().cast::<f32>().add(v));
            let g_at = g.as_mut_ptr().cast::<f32>().add(v);
            sums!(S, g.len(), v, [s => sum, q => products], |side, row| {
                let d = S::sub(S::load(y.add(row * BLOCK)), mean);
                let to = g_at.add(row * BLOCK);
                let passed = S::pass(S::load(to), S::load(z.add(row * BLOCK)), range.0, range.1);
                S::store(to, passed);
                s[side] = S::add(s[side], passed);
                q[side] = S::add(q[side], S::mul(passed, d));
            });
        }
    }
}

vectorised! {
    /// Turns the gradient of [`normalise`]'s output into that of its input, in place.
    pub(crate) fn denormalise<S>(
        g: &mut [Row],
        y: &[Row],
        affine: &Affine,
        slope: &Slope,
        range: (f32, f32),
    ) {
        assert_eq!(y.len(), g.len());
        for v in (0..BLOCK).step_by(S::LANES) {
            let [mean, scale, shift, slope, offset] =
                [&affine.mean, &affine.scale, &affine.shift, &slope.slope, &slope.offset]
                    .map(|row| S::load(row.as_ptr().add(v)));
            let (y, g_at) = (y.as_ptr().cast::<f32>().add(v), g.as_mut_ptr().cast::<f32>().add(v));
            for row in 0..g.len() {
                let to = g_at.add(row * BLOCK);
                let d = S::sub(S::load(y.add(row * BLOCK)), mean);
                let value = S::add(S::mul(d, scale), shift);
                let passed = S::pass(S::load(to), value, range.0, range.1);
                S::store(to, S::add(S::mul(scale, passed), S::add(S::mul(slope, d), offset)));
            }
        }
    }
}

vectorised! {
    /// [`denormalise`] of a gradient that has been stopped already, into another buffer.
    pub(crate) fn denormalise_into<S>(
        g: &[Row],
        y: &[Row],
        to: &mut [Row],
        affine: &Affine,
        slope: &Slope,
    ) {
        assert!(y.len() == to.len() && g.len() == to.len());
        for v in (0..BLOCK).step_by(S::LANES) {
            let [mean, scale, slope, offset] = [&affine.mean, &affine.scale, &slope.slope, &slope.offset]
                .map(|row| S::load(row.as_ptr().add(v)));
            let [g, y] = [g, y].map(|rows| rows.as_ptr().cast::<f32>().add(v));
            let to_at = to.as_mut_ptr().cast::<f32>().add(v);
            for row in 0..to.len() {
                let d = S::sub(S::load(y.add(row * BLOCK)), mean);
                let g = S::load(g.add(row * BLOCK));
                let value = S::add(S::mul(scale, g), S::add(S::mul(slope, d), offset));
                S::store(to_at.add(row * BLOCK), value);
            }
        }
    }
}

vectorised! {
    /// Adds the sums of `g`.
    pub(crate) fn column_sums<S>(g: &[Row], sum: &mut Sums) {
        for v in (0..BLOCK).step_by(S::LANES) {
            let g_at = g.as_ptr().cast::<f32>().add(v);
            sums!(S, g.len(), v, [s => sum], |side, row| {
                s[side] = S::add(s[side], S::load(g_at.add(row * BLOCK)));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{rows, rows_mut};
    use crate::testing::noise;

    const COUNTS: [usize; 8] = [1, 2, 3, 5, 64, 65, 67, 300];

    fn row(seed: u64) -> Row {
        noise(BLOCK, seed).try_into().unwrap()
    }

    fn of(affine: &Affine, y: f32, l: usize) -> f32 {
        (y - affine.mean[l]) * affine.scale[l] + affine.shift[l]
    }

    fn affine() -> Affine {
        Affine { mean: row(3), scale: row(4), shift: row(5) }
    }

    #[test]
    fn sums_match_plain_loops() {
        let range = (0.0, 0.5);
        for count in COUNTS {
            let [y, z, g] = [1, 2, 6].map(|seed| noise(count * BLOCK, seed));
            let affine = affine();
            let [mut s, mut q, mut gs, mut gq, mut ms, mut mq, mut columns] = [[0.0; BLOCK]; 7];
            shifted_sums(rows(&y), &affine.mean, &mut s, &mut q);
            gradient_sums(rows(&g), rows(&y), &affine, range, &mut gs, &mut gq);
            let mut masked = g.clone();
            let (m, sums) = (rows_mut(&mut masked), (&mut ms, &mut mq));
            masked_gradient_sums(m, rows(&y), rows(&z), &affine.mean, range, sums.0, sums.1);
            column_sums(rows(&g), &mut columns);
            for l in 0..BLOCK {
                let at = |r: usize| r * BLOCK + l;
                let d = |r: usize| f64::from(y[at(r)]) - f64::from(affine.mean[l]);
                let inside = |v: f32| v > range.0 && v < range.1;
                let by_y = |r: usize| match inside(of(&affine, y[at(r)], l)) {
                    true => f64::from(g[at(r)]),
                    false => 0.0,
                };
                let by_z = |r: usize| if inside(z[at(r)]) { f64::from(g[at(r)]) } else { 0.0 };
                let sum = |f: &dyn Fn(usize) -> f64| (0..count).map(f).sum::<f64>();
                let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6 * (1.0 + count as f64), "{a} {b}");
                close(s[l], sum(&d));
                close(q[l], sum(&|r| d(r) * d(r)));
                close(gs[l], sum(&by_y));
                close(gq[l], sum(&|r| by_y(r) * d(r)));
                close(ms[l], sum(&by_z));
                close(mq[l], sum(&|r| by_z(r) * d(r)));
                close(columns[l], sum(&|r| f64::from(g[at(r)])));
                assert!((0..count).all(|r| f64::from(masked[at(r)]) == by_z(r)));
            }
        }
    }

    #[test]
    fn affine_loops_match_plain_loops() {
        let range = (0.0, 0.5);
        for count in COUNTS {
            let [y, r, g] = [1, 2, 9].map(|seed| noise(count * BLOCK, seed));
            let [mut plain, mut added, mut into, mut back] = [6, 7, 8, 9].map(|s| noise(count * BLOCK, s));
            let (affine, slope) = (affine(), Slope { slope: row(10), offset: row(11) });
            normalise(rows(&y), rows_mut(&mut plain), &affine, range);
            normalise_add(rows(&y), rows(&r), rows_mut(&mut added), &affine, range);
            denormalise(rows_mut(&mut back), rows(&y), &affine, &slope, range);
            denormalise_into(rows(&g), rows(&y), rows_mut(&mut into), &affine, &slope);
            for i in 0..y.len() {
                let l = i % BLOCK;
                let v = of(&affine, y[i], l);
                assert_eq!(plain[i], v.clamp(0.0, 0.5));
                assert_eq!(added[i], (v + r[i]).clamp(0.0, 0.5));
                let through = |g: f32| {
                    affine.scale[l] * g + (slope.slope[l] * (y[i] - affine.mean[l]) + slope.offset[l])
                };
                assert_eq!(back[i], through(if v > 0.0 && v < 0.5 { g[i] } else { 0.0 }));
                assert_eq!(into[i], through(g[i]));
            }
        }
    }
}
