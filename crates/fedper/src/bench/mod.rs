//! Measurements of what the program spends its time on.
//!
//! Every report holds the same [`Figures`], so that programs can read any of them, and what else belongs to it.

pub mod aggregate;
pub mod round;
pub mod scale;
pub mod train;

use fedper_nn::Architecture;
use serde::Serialize;

/// What every measurement reports; in JSON `null` where a quantity does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Training images per second, over all workers.
    pub images_per_second: Option<f64>,
    /// The arithmetic of these images in 10^9 floating-point operations per second, two for a multiply-add, as if taps
    /// on padding were computed too: comparable between programs, whatever they leave out.
    pub gflops_nominal: Option<f64>,
    /// Median wall time in seconds of what was measured: one training step, one round, one aggregation.
    pub seconds: f64,
    /// Worker threads.
    pub workers: usize,
    /// Largest resident memory of the process so far, in bytes, where the system tells.
    pub peak_rss_bytes: Option<u64>,
}

/// Nominal 10^9 floating-point operations a second of training `images_per_second` images: forward, gradient of the
/// input and gradient of the weights.
fn gflops_nominal(architecture: &Architecture, images_per_second: f64) -> f64 {
    3.0 * 2.0 * architecture.multiply_adds() as f64 * images_per_second / 1e9
}

/// The median; of an even number the mean of the two in the middle.
///
/// # Panics
/// If there is no value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}
