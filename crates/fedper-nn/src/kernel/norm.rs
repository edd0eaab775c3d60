//! The loops of batch norm, over the rows of one block of channels.
//!
//! Sums are taken in f32 over a few rows at a time and merged in f64. Values are shifted before they are squared, so
//! that a mean that is large against the deviation does not cancel.

use super::elementwise::{clamp, pass};
use super::{BLOCK, Row, versions};

/// Sums of a block, in f64.
pub(crate) type Sums = [f64; BLOCK];

/// Rows that are summed side by side, so that one sum need not wait for the one before.
const SIDE_BY_SIDE: usize = 4;
/// Rows whose sums are taken in f32: few enough that little is lost.
const AT_ONCE: usize = 64;

/// Adds the sums of a few rows to the totals.
#[inline(always)]
fn merge(total: &mut Sums, sums: &[Row; SIDE_BY_SIDE]) {
    for l in 0..BLOCK {
        total[l] += f64::from((sums[0][l] + sums[2][l]) + (sums[1][l] + sums[3][l]));
    }
}

versions! {
    /// Adds the sums of `y - pivot` and of its square.
    pub(crate) fn shifted_sums(y: &[Row], pivot: &Row, sum: &mut Sums, squares: &mut Sums) {
        let pivot = *pivot;
        for rows in y.chunks(AT_ONCE) {
            let mut s = [[0f32; BLOCK]; SIDE_BY_SIDE];
            let mut q = [[0f32; BLOCK]; SIDE_BY_SIDE];
            let mut add = |side: usize, row: &Row| {
                for l in 0..BLOCK {
                    let d = row[l] - pivot[l];
                    s[side][l] += d;
                    q[side][l] += d * d;
                }
            };
            let (fours, rest) = rows.as_chunks::<SIDE_BY_SIDE>();
            for four in fours {
                add(0, &four[0]);
                add(1, &four[1]);
                add(2, &four[2]);
                add(3, &four[3]);
            }
            for row in rest {
                add(0, row);
            }
            merge(sum, &s);
            merge(squares, &q);
        }
    }
}

/// What normalises a block: `scale * (y - mean) + shift`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine {
    pub(crate) mean: Row,
    pub(crate) scale: Row,
    pub(crate) shift: Row,
}

impl Affine {
    #[inline(always)]
    fn of(&self, y: f32, l: usize) -> f32 {
        (y - self.mean[l]) * self.scale[l] + self.shift[l]
    }
}

versions! {
    /// `z = activation(scale * (y - mean) + shift)`
    pub(crate) fn normalise(y: &[Row], z: &mut [Row], affine: &Affine, range: (f32, f32)) {
        let affine = *affine;
        for (y, z) in y.iter().zip(z) {
            for l in 0..BLOCK {
                z[l] = clamp(affine.of(y[l], l), range);
            }
        }
    }
}

versions! {
    /// `z = activation(scale * (y - mean) + shift + residual)`
    pub(crate) fn normalise_add(
        y: &[Row],
        residual: &[Row],
        z: &mut [Row],
        affine: &Affine,
        range: (f32, f32),
    ) {
        let affine = *affine;
        for ((y, r), z) in y.iter().zip(residual).zip(z) {
            for l in 0..BLOCK {
                z[l] = clamp(affine.of(y[l], l) + r[l], range);
            }
        }
    }
}

versions! {
    /// Adds the sums of the gradient `g`, where [`normalise`]'s activation let it pass, and of `g * (y - mean)`.
    pub(crate) fn gradient_sums(
        g: &[Row],
        y: &[Row],
        affine: &Affine,
        range: (f32, f32),
        sum: &mut Sums,
        products: &mut Sums,
    ) {
        let affine = *affine;
        for (g, y) in g.chunks(AT_ONCE).zip(y.chunks(AT_ONCE)) {
            let mut s = [[0f32; BLOCK]; SIDE_BY_SIDE];
            let mut q = [[0f32; BLOCK]; SIDE_BY_SIDE];
            let mut add = |side: usize, g: &Row, y: &Row| {
                for l in 0..BLOCK {
                    let v = pass(g[l], affine.of(y[l], l), range);
                    s[side][l] += v;
                    q[side][l] += v * (y[l] - affine.mean[l]);
                }
            };
            let ((g_fours, g_rest), (y_fours, y_rest)) =
                (g.as_chunks::<SIDE_BY_SIDE>(), y.as_chunks::<SIDE_BY_SIDE>());
            for (g, y) in g_fours.iter().zip(y_fours) {
                add(0, &g[0], &y[0]);
                add(1, &g[1], &y[1]);
                add(2, &g[2], &y[2]);
                add(3, &g[3], &y[3]);
            }
            for (g, y) in g_rest.iter().zip(y_rest) {
                add(0, g, y);
            }
            merge(sum, &s);
            merge(products, &q);
        }
    }
}

versions! {
    /// [`gradient_sums`] where a residual was added: stops `g` in place where the output `z` says so.
    pub(crate) fn masked_gradient_sums(
        g: &mut [Row],
        y: &[Row],
        z: &[Row],
        mean: &Row,
        range: (f32, f32),
        sum: &mut Sums,
        products: &mut Sums,
    ) {
        let mean = *mean;
        for ((g, y), z) in g.chunks_mut(AT_ONCE).zip(y.chunks(AT_ONCE)).zip(z.chunks(AT_ONCE)) {
            let mut s = [[0f32; BLOCK]; SIDE_BY_SIDE];
            let mut q = [[0f32; BLOCK]; SIDE_BY_SIDE];
            let mut add = |side: usize, g: &mut Row, y: &Row, z: &Row| {
                for l in 0..BLOCK {
                    let v = pass(g[l], z[l], range);
                    g[l] = v;
                    s[side][l] += v;
                    q[side][l] += v * (y[l] - mean[l]);
                }
            };
            let (g_fours, g_rest) = g.as_chunks_mut::<SIDE_BY_SIDE>();
            let ((y_fours, y_rest), (z_fours, z_rest)) =
                (y.as_chunks::<SIDE_BY_SIDE>(), z.as_chunks::<SIDE_BY_SIDE>());
            for ((g, y), z) in g_fours.iter_mut().zip(y_fours).zip(z_fours) {
                add(0, &mut g[0], &y[0], &z[0]);
                add(1, &mut g[1], &y[1], &z[1]);
                add(2, &mut g[2], &y[2], &z[2]);
                add(3, &mut g[3], &y[3], &z[3]);
            }
            for ((g, y), z) in g_rest.iter_mut().zip(y_rest).zip(z_rest) {
                add(0, g, y, z);
            }
            merge(sum, &s);
            merge(products, &q);
        }
    }
}

/// The gradient through batch norm: `scale * g + slope * (y - mean) + offset`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slope {
    pub(crate) slope: Row,
    pub(crate) offset: Row,
}

versions! {
    /// Turns the gradient of [`normalise`]'s output into that of its input, in place.
    pub(crate) fn denormalise(g: &mut [Row], y: &[Row], affine: &Affine, slope: &Slope, range: (f32, f32)) {
        let (affine, slope) = (*affine, *slope);
        for (g, y) in g.iter_mut().zip(y) {
            for l in 0..BLOCK {
                let v = pass(g[l], affine.of(y[l], l), range);
                g[l] = affine.scale[l] * v + (slope.slope[l] * (y[l] - affine.mean[l]) + slope.offset[l]);
            }
        }
    }
}

versions! {
    /// [`denormalise`] of a gradient that has been stopped already, into another buffer.
    pub(crate) fn denormalise_into(g: &[Row], y: &[Row], to: &mut [Row], affine: &Affine, slope: &Slope) {
        let (affine, slope) = (*affine, *slope);
        for ((g, y), to) in g.iter().zip(y).zip(to) {
            for l in 0..BLOCK {
                to[l] = affine.scale[l] * g[l] + (slope.slope[l] * (y[l] - affine.mean[l]) + slope.offset[l]);
            }
        }
    }
}

versions! {
    /// Adds the sums of `g`.
    pub(crate) fn column_sums(g: &[Row], sum: &mut Sums) {
        for rows in g.chunks(AT_ONCE) {
            let mut s = [[0f32; BLOCK]; SIDE_BY_SIDE];
            for four in rows.chunks(SIDE_BY_SIDE) {
                for (s, row) in s.iter_mut().zip(four) {
                    for l in 0..BLOCK {
                        s[l] += row[l];
                    }
                }
            }
            merge(sum, &s);
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
                let by_y = |r: usize| match inside(affine.of(y[at(r)], l)) {
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
                let v = affine.of(y[i], l);
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
