//! Max and average pooling over rows of channels.

use super::{BLOCK, vectorised, versions};

versions! {
    /// Takes `x` where it is larger than what `to` holds, and notes `tap` there. NaN wins, as in PyTorch.
    pub(crate) fn max_tap(x: &[f32], to: &mut [f32], winner: &mut [u8], tap: u8) {
        for ((&x, to), winner) in x.iter().zip(to).zip(winner) {
            let larger = (x > *to) | x.is_nan();
            *to = if larger { x } else { *to };
            *winner = if larger { tap } else { *winner };
        }
    }
}

vectorised! {
    /// `to = activation(max(x))` for whole rows, and which of the four it was: the first of those that are equal, or the last
    /// NaN.
    pub(crate) fn max_of_four<S>(x: [&[f32]; 4], to: &mut [f32], winner: &mut [u8], range: (f32, f32)) {
        let x = x.map(|x| x[..to.len()].as_ptr());
        assert!(to.len().is_multiple_of(BLOCK) && winner.len() == to.len());
        for v in (0..to.len()).step_by(S::LANES) {
            let max = S::max_of_four(x.map(|x| S::load(x.add(v))), winner.as_mut_ptr().add(v));
            S::store(to.as_mut_ptr().add(v), S::clamp(max, range.0, range.1));
        }
    }
}

versions! {
    /// `dx (+)=` the gradient where `tap` won, else 0.
    pub(crate) fn max_gradient(dx: &mut [f32], dy: &[f32], winner: &[u8], tap: u8, add: bool) {
        if add {
            for ((dx, &dy), &winner) in dx.iter_mut().zip(dy).zip(winner) {
                *dx += if winner == tap { dy } else { 0.0 };
            }
        } else {
            for ((dx, &dy), &winner) in dx.iter_mut().zip(dy).zip(winner) {
                *dx = if winner == tap { dy } else { 0.0 };
            }
        }
    }
}

versions! {
    /// `to += from * factor`
    pub(crate) fn add_scaled(to: &mut [f32], from: &[f32], factor: f32) {
        for (to, &v) in to.iter_mut().zip(from) {
            *to += v * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::elementwise::clamp;
    use super::*;
    use crate::testing::noise;

    #[test]
    fn one_pass_over_four_rows_is_tap_after_tap() {
        for len in [0, 16, 32, 80] {
            let mut x: [Vec<f32>; 4] = [1, 2, 3, 4].map(|seed| noise(len, seed));
            for i in 0..len {
                match i % 5 {
                    0 => x[2][i] = x[1][i],
                    1 => x[i / 5 % 4][i] = f32::NAN,
                    _ => {}
                }
            }
            let (mut to, mut winner) = (x[0].clone(), vec![0; len]);
            for (tap, x) in x.iter().enumerate().skip(1) {
                max_tap(x, &mut to, &mut winner, tap as u8);
            }
            let (mut at_once, mut winner_at_once) = (vec![0.0; len], vec![9; len]);
            let four = std::array::from_fn(|i| &x[i][..]);
            max_of_four(four, &mut at_once, &mut winner_at_once, (-0.5, 0.5));
            assert_eq!(winner_at_once, winner);
            for (f, e) in at_once.iter().zip(&to) {
                assert!(*f == clamp(*e, (-0.5, 0.5)) || (f.is_nan() && e.is_nan()));
            }
        }
    }
}
