//! What the unit tests share.

/// Numbers in [-1, 1) that look random and never change.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = fedper_core::seed::derive(seed, fedper_core::seed::Purpose::Init, 0, 0);
    let mut values = vec![0.0; len];
    fedper_core::seed::fill_uniform(&mut rng, 1.0, &mut values);
    values
}
