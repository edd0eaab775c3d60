//! What the unit tests share.

/// Numbers in [-1, 1) that look random and never change.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = fedper_core::seed::derive(seed, fedper_core::seed::Purpose::Init, 0, 0);
    let mut values = vec![0.0; len];
    fedper_core::seed::fill_uniform(&mut rng, 1.0, &mut values);
    values
}

/// The largest difference, relative to the largest expected magnitude.
pub(crate) fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-12f64, |a, e| a.max(e.abs()));
    found.iter().zip(expected).fold(0f64, |a, (&f, e)| {
        assert!(f.is_finite());
        a.max((f64::from(f) - e).abs())
    }) / scale
}
