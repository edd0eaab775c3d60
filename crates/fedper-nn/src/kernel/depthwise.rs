//! Depthwise convolution: each channel by its own kernel, so every tap is a product of rows with one row of weights.

use super::versions;

/// Channels that one pass over the rows keeps in registers.
const LANES: usize = 16;

/// One tap: where its rows begin in the source, in values, and which row of weights it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    pub(crate) from: usize,
    pub(crate) weight: usize,
}

versions! {
    /// `to[row][c] (+)= sum over taps of source[from + row * channels + c] * weights[weight][c]`
    ///
    /// # Shapes
    /// `to` `[rows][channels]`, `weights` `[taps][channels]`.
    pub(crate) fn taps(
        source: &[f32],
        weights: &[f32],
        channels: usize,
        taps: &[Tap],
        to: &mut [f32],
        add: bool,
    ) {
        let rows = to.len() / channels;
        let mut c = 0;
        while c < channels {
            let lanes = LANES.min(channels - c);
            if lanes == LANES {
                for row in 0..rows {
                    let at = row * channels + c;
                    let to = &mut to[at..at + LANES];
                    let mut sum = [0f32; LANES];
                    if add {
                        sum.copy_from_slice(to);
                    }
                    for tap in taps {
                        let x = &source[tap.from + at..tap.from + at + LANES];
                        let w = &weights[tap.weight * channels + c..tap.weight * channels + c + LANES];
                        for l in 0..LANES {
                            sum[l] += x[l] * w[l];
                        }
                    }
                    to.copy_from_slice(&sum);
                }
            } else {
                for row in 0..rows {
                    for l in c..channels {
                        let at = row * channels + l;
                        let mut sum = if add { to[at] } else { 0.0 };
                        for tap in taps {
                            sum += source[tap.from + at] * weights[tap.weight * channels + l];
                        }
                        to[at] = sum;
                    }
                }
            }
            c += LANES;
        }
    }
}

versions! {
    /// `gradient[c] += sum over rows of x[row][c] * dy[row][c]`: the weight gradient of one tap.
    ///
    /// # Shapes
    /// `x`, `dy` `[rows][channels]`, `gradient` `[channels]`.
    pub(crate) fn tap_gradient(x: &[f32], dy: &[f32], gradient: &mut [f32]) {
        let channels = gradient.len();
        let mut c = 0;
        while c < channels {
            let end = (c + LANES).min(channels);
            let mut sum = [0f32; LANES];
            let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            if end == c + LANES {
                for (x, dy) in rows {
                    let (x, dy) = (&x[c..c + LANES], &dy[c..c + LANES]);
                    for l in 0..LANES {
                        sum[l] += x[l] * dy[l];
                    }
                }
            } else {
                for (x, dy) in rows {
                    for (sum, (x, dy)) in sum.iter_mut().zip(x[c..].iter().zip(&dy[c..])) {
                        *sum += x * dy;
                    }
                }
            }
            for (g, s) in gradient[c..end].iter_mut().zip(sum) {
                *g += s;
            }
            c += LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn taps_match_plain_loops_on_odd_shapes() {
        for (rows, channels) in [(1, 1), (3, 5), (7, 16), (5, 17), (2, 47), (9, 64)] {
            let len = rows * channels;
            let source = noise(4 * len, 1);
            let weights = noise(3 * channels, 2);
            for count in 0..3 {
                let list = [Tap { from: len, weight: 2 }, Tap { from: 3 * len, weight: 0 }];
                for add in [false, true] {
                    let before = noise(len, 3);
                    let mut to = before.clone();
                    taps(&source, &weights, channels, &list[..count], &mut to, add);
                    for i in 0..len {
                        let start = if add { before[i] } else { 0.0 };
                        let expected = list[..count].iter().fold(start, |sum, tap| {
                            sum + source[tap.from + i] * weights[tap.weight * channels + i % channels]
                        });
                        assert_eq!(to[i], expected);
                    }
                }
            }
            let mut gradient = vec![1.0; channels];
            tap_gradient(&source[..len], &source[len..2 * len], &mut gradient);
            for (c, g) in gradient.iter().enumerate() {
                let at = |r: usize| {
                    f64::from(source[r * channels + c]) * f64::from(source[len + r * channels + c])
                };
                assert!((f64::from(*g) - 1.0 - (0..rows).map(at).sum::<f64>()).abs() < 1e-5);
            }
        }
    }
}
