//! Loops over values that do not care where a value lies.

use super::versions;

/// Stochastic gradient descent with momentum (dampening 0) and L2 weight decay, as PyTorch's `torch.optim.SGD`:
/// `v = momentum * v + (g + weight_decay * p)`, `p -= lr * v`, `v` zero at first. Weight decay applies to every trainable
/// parameter. Unlike there, a `v` that has become subnormal is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f32,
    /// How much of the last velocity stays.
    pub momentum: f32,
    /// How strongly weights are pulled to zero.
    pub weight_decay: f32,
}

/// What follows a layer, as the range its values are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    Relu,
    Relu6,
}

impl Activation {
    /// Lower and upper end of the range. A gradient passes strictly inside it, as in PyTorch.
    #[inline(always)]
    pub(crate) fn range(self) -> (f32, f32) {
        match self {
            Activation::Identity => (f32::NEG_INFINITY, f32::INFINITY),
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Relu6 => (0.0, 6.0),
        }
    }
}

/// Holds `v` to a range; NaN stays NaN, so that a diverged network is seen to have diverged.
#[inline(always)]
pub(crate) fn clamp(v: f32, (low, high): (f32, f32)) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

/// The gradient `g` through an activation whose output was `z`.
#[inline(always)]
pub(crate) fn pass(g: f32, z: f32, (low, high): (f32, f32)) -> f32 {
    if (z > low) & (z < high) { g } else { 0.0 }
}

versions! {
    /// Applies an activation in place.
    pub(crate) fn activate(values: &mut [f32], range: (f32, f32)) {
        for v in values {
            *v = clamp(*v, range);
        }
    }
}

versions! {
    /// `to = activation(from)`
    pub(crate) fn activate_into(from: &[f32], to: &mut [f32], range: (f32, f32)) {
        for (to, &v) in to.iter_mut().zip(from) {
            *to = clamp(v, range);
        }
    }
}

versions! {
    /// Stops the gradient where the activation's output `z` was at an end of its range.
    pub(crate) fn mask(gradient: &mut [f32], z: &[f32], range: (f32, f32)) {
        for (g, &z) in gradient.iter_mut().zip(z) {
            *g = pass(*g, z, range);
        }
    }
}

versions! {
    /// `to = activation(a + b)`
    pub(crate) fn add_activate(a: &[f32], b: &[f32], to: &mut [f32], range: (f32, f32)) {
        for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
            *to = clamp(a + b, range);
        }
    }
}

versions! {
    /// `to += from`
    pub(crate) fn add(to: &mut [f32], from: &[f32]) {
        for (to, &v) in to.iter_mut().zip(from) {
            *to += v;
        }
    }
}

/// `v`, or 0 if its exponent is that of 0. The velocities of units that get no gradient shrink step by step to the smallest
/// numbers there are and stay there, as rounding keeps these from shrinking on; and each product with one of them takes a
/// processor a hundred cycles or more.
#[inline(always)]
pub(crate) fn flush(v: f32) -> f32 {
    if v.to_bits() & f32::INFINITY.to_bits() == 0 { 0.0 } else { v }
}

versions! {
    /// One SGD step as in PyTorch, dampening 0: `v = momentum * v + (g + decay * p)`, `p -= lr * v`; but a subnormal
    /// velocity is 0.
    pub(crate) fn sgd(
        values: &mut [f32],
        velocity: &mut [f32],
        gradient: &[f32],
        lr: f32,
        momentum: f32,
        decay: f32,
    ) {
        for ((p, v), &g) in values.iter_mut().zip(velocity).zip(gradient) {
            *v = flush(momentum * *v + (g + decay * *p));
            *p -= lr * *v;
        }
    }
}

versions! {
    /// [`sgd`] without momentum, which needs no velocity: `p -= lr * (g + decay * p)`.
    pub(crate) fn sgd_plain(values: &mut [f32], gradient: &[f32], lr: f32, decay: f32) {
        for (p, &g) in values.iter_mut().zip(gradient) {
            *p -= lr * (g + decay * *p);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn activations_hold_values_and_stop_gradients_at_the_ends_of_their_range() {
        let z = [-1.0, 0.0, 0.5, 5.9, 6.0, 7.0];
        let out = |activation: Activation| {
            let (mut forward, mut gradient) = (z, [1.0; 6]);
            activate(&mut forward, activation.range());
            mask(&mut gradient, &forward, activation.range());
            let mut into = [9.0; 6];
            activate_into(&z, &mut into, activation.range());
            assert_eq!(into, forward);
            (forward, gradient)
        };
        assert_eq!(out(Activation::Identity), (z, [1.0; 6]));
        assert_eq!(out(Activation::Relu), ([0.0, 0.0, 0.5, 5.9, 6.0, 7.0], [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]));
        assert_eq!(out(Activation::Relu6), ([0.0, 0.0, 0.5, 5.9, 6.0, 6.0], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
    }

    #[test]
    fn nan_stays_nan() {
        let mut values = [f32::NAN; 19];
        activate(&mut values, Activation::Relu6.range());
        assert!(values.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn sums_match_plain_loops_on_odd_lengths() {
        for len in [0, 1, 7, 16, 17, 67] {
            let (a, b) = (noise(len, 1), noise(len, 2));
            let (mut sum, mut to) = (a.clone(), vec![0.0; len]);
            add(&mut sum, &b);
            add_activate(&a, &b, &mut to, Activation::Relu.range());
            for i in 0..len {
                assert_eq!(sum[i], a[i] + b[i]);
                assert_eq!(to[i], (a[i] + b[i]).max(0.0));
            }
        }
    }

    #[test]
    fn sgd_without_momentum_is_the_same() {
        let (gradient, mut with, mut velocity) = (noise(37, 1), noise(37, 2), noise(37, 3));
        let mut without = with.clone();
        sgd(&mut with, &mut velocity, &gradient, 0.1, 0.0, 0.01);
        sgd_plain(&mut without, &gradient, 0.1, 0.01);
        assert_eq!(with, without);
    }

    #[test]
    fn velocities_without_gradient_end_at_zero() {
        let (mut p, mut v) = ([1.0; 19], [1.0; 19]);
        for _ in 0..1000 {
            sgd(&mut p, &mut v, &[0.0; 19], 0.1, 0.9, 0.0);
            assert!(v.iter().all(|v| *v == 0.0 || v.is_normal()));
        }
        assert_eq!(v, [0.0; 19]);
        assert!(flush(f32::NAN).is_nan());
        assert_eq!([1e-37, -1e-37, 1e-39, f32::INFINITY].map(flush), [1e-37, -1e-37, 0.0, f32::INFINITY]);
    }

    #[test]
    fn sgd_by_hand() {
        let (mut p, mut v) = ([1.0, -2.0], [0.0, 0.0]);
        // g + decay p = 0.5 + 0.1, and 0.25 - 0.2; the first velocity is that itself.
        sgd(&mut p, &mut v, &[0.5, 0.25], 0.5, 0.9, 0.1);
        for (found, expected) in p.iter().chain(&v).zip([0.7f32, -2.025, 0.6, 0.05]) {
            assert!((found - expected).abs() < 1e-6);
        }
        // 0.9 * 0.6 - 0.5 + 0.07 = 0.11; 0.9 * 0.05 + 1 - 0.2025 = 0.8425
        sgd(&mut p, &mut v, &[-0.5, 1.0], 0.5, 0.9, 0.1);
        for (found, expected) in p.iter().chain(&v).zip([0.645f32, -2.44625, 0.11, 0.8425]) {
            assert!((found - expected).abs() < 1e-6);
        }
    }
}
