//! The loops of batch norm, over rows of `channels` values.
//!
//! Sums are taken in f32 over a few rows at a time and merged in f64. Values are shifted before they are squared, so
//! that a mean that is large against the deviation does not cancel.

use super::elementwise::{clamp, pass};
use super::versions;

/// Channels that one pass over the rows keeps in registers.
const LANES: usize = 16;

/// How many rows are summed in f32: few enough that they stay in the first-level cache from one group of channels to
/// the next, and that little is lost.
#[inline(always)]
fn rows_at_once(channels: usize) -> usize {
    (8192 / channels).clamp(8, 64)
}

versions! {
    /// Adds, per channel, the sums of `y - pivot` and of its square.
    ///
    /// # Shapes
    /// `y` `[rows][channels]`; the others `[channels]`.
    pub(crate) fn shifted_sums(y: &[f32], pivot: &[f32], sum: &mut [f64], squares: &mut [f64]) {
        let channels = pivot.len();
        for rows in y.chunks(rows_at_once(channels) * channels) {
            let mut c = 0;
            while c < channels {
                let (mut s, mut q) = ([0f32; LANES], [0f32; LANES]);
                if c + LANES <= channels {
                    let p: [f32; LANES] = pivot[c..c + LANES].try_into().expect("of this length");
                    for row in rows.chunks_exact(channels) {
                        let row = &row[c..c + LANES];
                        for l in 0..LANES {
                            let d = row[l] - p[l];
                            s[l] += d;
                            q[l] += d * d;
                        }
                    }
                } else {
                    for row in rows.chunks_exact(channels) {
                        for (l, (v, p)) in row[c..].iter().zip(&pivot[c..]).enumerate() {
                            let d = v - p;
                            s[l] += d;
                            q[l] += d * d;
                        }
                    }
                }
                let end = (c + LANES).min(channels);
                for (sum, s) in sum[c..end].iter_mut().zip(s) {
                    *sum += f64::from(s);
                }
                for (square, q) in squares[c..end].iter_mut().zip(q) {
                    *square += f64::from(q);
                }
                c += LANES;
            }
        }
    }
}

versions! {
    /// `z = activation(scale * (y - mean) + shift)`
    ///
    /// # Shapes
    /// `y`, `z` `[rows][channels]`; the others `[channels]`.
    pub(crate) fn normalise(
        y: &[f32],
        z: &mut [f32],
        mean: &[f32],
        scale: &[f32],
        shift: &[f32],
        range: (f32, f32),
    ) {
        let channels = scale.len();
        let (mean, shift) = (&mean[..channels], &shift[..channels]);
        for (y, z) in y.chunks_exact(channels).zip(z.chunks_exact_mut(channels)) {
            for c in 0..channels {
                z[c] = clamp((y[c] - mean[c]) * scale[c] + shift[c], range);
            }
        }
    }
}

versions! {
    /// `z = activation(scale * (y - mean) + shift + residual)`
    ///
    /// # Shapes
    /// `y`, `z`, `residual` `[rows][channels]`; the others `[channels]`.
    pub(crate) fn normalise_add(
        y: &[f32],
        residual: &[f32],
        z: &mut [f32],
        mean: &[f32],
        scale: &[f32],
        shift: &[f32],
        range: (f32, f32),
    ) {
        let channels = scale.len();
        let (mean, shift) = (&mean[..channels], &shift[..channels]);
        let rows = y.chunks_exact(channels).zip(residual.chunks_exact(channels));
        for ((y, r), z) in rows.zip(z.chunks_exact_mut(channels)) {
            for c in 0..channels {
                z[c] = clamp((y[c] - mean[c]) * scale[c] + shift[c] + r[c], range);
            }
        }
    }
}

versions! {
    /// Stops the gradient `g` in place where the activation did, and adds, per channel, the sums of `g` and of
    /// `g * (y - mean)`.
    ///
    /// # Shapes
    /// `g`, `z`, `y` `[rows][channels]`; the others `[channels]`.
    pub(crate) fn gradient_sums(
        g: &mut [f32],
        z: &[f32],
        y: &[f32],
        mean: &[f32],
        range: (f32, f32),
        sum: &mut [f64],
        products: &mut [f64],
    ) {
        let channels = mean.len();
        let step = rows_at_once(channels) * channels;
        for ((g, z), y) in g.chunks_mut(step).zip(z.chunks(step)).zip(y.chunks(step)) {
            let mut c = 0;
            while c < channels {
                let (mut s, mut q) = ([0f32; LANES], [0f32; LANES]);
                let rows = g.chunks_exact_mut(channels).zip(z.chunks_exact(channels)).zip(y.chunks_exact(channels));
                if c + LANES <= channels {
                    let m: [f32; LANES] = mean[c..c + LANES].try_into().expect("of this length");
                    for ((g, z), y) in rows {
                        let (g, z, y) = (&mut g[c..c + LANES], &z[c..c + LANES], &y[c..c + LANES]);
                        for l in 0..LANES {
                            let v = pass(g[l], z[l], range);
                            g[l] = v;
                            s[l] += v;
                            q[l] += v * (y[l] - m[l]);
                        }
                    }
                } else {
                    for ((g, z), y) in rows {
                        for l in 0..channels - c {
                            let v = pass(g[c + l], z[c + l], range);
                            g[c + l] = v;
                            s[l] += v;
                            q[l] += v * (y[c + l] - mean[c + l]);
                        }
                    }
                }
                let end = (c + LANES).min(channels);
                for (sum, s) in sum[c..end].iter_mut().zip(s) {
                    *sum += f64::from(s);
                }
                for (product, q) in products[c..end].iter_mut().zip(q) {
                    *product += f64::from(q);
                }
                c += LANES;
            }
        }
    }
}

versions! {
    /// `g = scale * g + slope * (y - mean) + offset`, in place: the gradient through batch norm.
    ///
    /// # Shapes
    /// `g`, `y` `[rows][channels]`; the others `[channels]`.
    pub(crate) fn denormalise(
        g: &mut [f32],
        y: &[f32],
        mean: &[f32],
        scale: &[f32],
        slope: &[f32],
        offset: &[f32],
    ) {
        let channels = scale.len();
        let (mean, slope, offset) = (&mean[..channels], &slope[..channels], &offset[..channels]);
        for (g, y) in g.chunks_exact_mut(channels).zip(y.chunks_exact(channels)) {
            for c in 0..channels {
                g[c] = scale[c] * g[c] + (slope[c] * (y[c] - mean[c]) + offset[c]);
            }
        }
    }
}

versions! {
    /// `to = scale * g + slope * (y - mean) + offset`: as [`denormalise`], into another buffer.
    ///
    /// # Shapes
    /// `g`, `y`, `to` `[rows][channels]`; the others `[channels]`.
    pub(crate) fn denormalise_into(
        g: &[f32],
        y: &[f32],
        to: &mut [f32],
        mean: &[f32],
        scale: &[f32],
        slope: &[f32],
        offset: &[f32],
    ) {
        let channels = scale.len();
        let (mean, slope, offset) = (&mean[..channels], &slope[..channels], &offset[..channels]);
        let rows = g.chunks_exact(channels).zip(y.chunks_exact(channels));
        for ((g, y), to) in rows.zip(to.chunks_exact_mut(channels)) {
            for c in 0..channels {
                to[c] = scale[c] * g[c] + (slope[c] * (y[c] - mean[c]) + offset[c]);
            }
        }
    }
}

versions! {
    /// Adds the sum of each column to `sum`.
    ///
    /// # Shapes
    /// `g` `[rows][channels]`, `sum` `[channels]`.
    pub(crate) fn column_sums(g: &[f32], sum: &mut [f64]) {
        let channels = sum.len();
        for rows in g.chunks(rows_at_once(channels) * channels) {
            let mut c = 0;
            while c < channels {
                let mut s = [0f32; LANES];
                let end = (c + LANES).min(channels);
                if end == c + LANES {
                    for row in rows.chunks_exact(channels) {
                        let row = &row[c..c + LANES];
                        for l in 0..LANES {
                            s[l] += row[l];
                        }
                    }
                } else {
                    for row in rows.chunks_exact(channels) {
                        for (s, v) in s.iter_mut().zip(&row[c..]) {
                            *s += v;
                        }
                    }
                }
                for (sum, s) in sum[c..end].iter_mut().zip(s) {
                    *sum += f64::from(s);
                }
                c += LANES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    const SHAPES: [(usize, usize); 8] =
        [(1, 1), (2, 3), (5, 16), (67, 17), (129, 31), (64, 32), (7, 130), (1000, 5)];

    #[test]
    fn sums_match_plain_loops_on_odd_shapes() {
        for (rows, channels) in SHAPES {
            let y = noise(rows * channels, 1);
            let (z, mean) = (noise(rows * channels, 2), noise(channels, 3));
            let [mut s, mut q, mut gs, mut gq, mut columns] =
                [const { Vec::new() }; 5].map(|mut v: Vec<f64>| {
                    v.resize(channels, 0.0);
                    v
                });
            shifted_sums(&y, &mean, &mut s, &mut q);
            column_sums(&y, &mut columns);
            let mut g = noise(rows * channels, 4);
            let before = g.clone();
            gradient_sums(&mut g, &z, &y, &mean, (0.0, 0.5), &mut gs, &mut gq);
            for c in 0..channels {
                let at = |r: usize| r * channels + c;
                let d = |r: usize| f64::from(y[at(r)]) - f64::from(mean[c]);
                let masked = |r: usize| match z[at(r)] > 0.0 && z[at(r)] < 0.5 {
                    true => before[at(r)],
                    false => 0.0,
                };
                let sum = |f: &dyn Fn(usize) -> f64| (0..rows).map(f).sum::<f64>();
                let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6 * rows as f64, "{a} {b}");
                close(s[c], sum(&d));
                close(q[c], sum(&|r| d(r) * d(r)));
                close(columns[c], sum(&|r| f64::from(y[at(r)])));
                close(gs[c], sum(&|r| f64::from(masked(r))));
                close(gq[c], sum(&|r| f64::from(masked(r)) * d(r)));
                assert!((0..rows).all(|r| g[at(r)] == masked(r)));
            }
        }
    }

    #[test]
    fn affine_loops_match_plain_loops_on_odd_shapes() {
        for (rows, channels) in SHAPES {
            let len = rows * channels;
            let (y, r) = (noise(len, 1), noise(len, 2));
            let [mean, scale, shift] = [3, 4, 5].map(|seed| noise(channels, seed));
            let [mut plain, mut added, mut into, mut g] = [6, 7, 8, 9].map(|seed| noise(len, seed));
            let before = g.clone();
            normalise(&y, &mut plain, &mean, &scale, &shift, (0.0, 0.5));
            normalise_add(&y, &r, &mut added, &mean, &scale, &shift, (0.0, 0.5));
            denormalise_into(&g, &y, &mut into, &mean, &scale, &shift, &mean);
            denormalise(&mut g, &y, &mean, &scale, &shift, &mean);
            for i in 0..len {
                let c = i % channels;
                let v = (y[i] - mean[c]) * scale[c] + shift[c];
                assert_eq!(plain[i], v.clamp(0.0, 0.5));
                assert_eq!(added[i], (v + r[i]).clamp(0.0, 0.5));
                assert_eq!(g[i], scale[c] * before[i] + (shift[c] * (y[i] - mean[c]) + mean[c]));
                assert_eq!(into[i], g[i]);
            }
        }
    }
}
