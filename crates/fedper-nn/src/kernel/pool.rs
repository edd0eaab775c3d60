//! Max and average pooling over rows of channels.

use super::versions;

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
