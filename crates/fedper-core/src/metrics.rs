//! What is measured on devices, and how it is put together over devices.
//!
//! Everything summed is a `(sum, weight)` pair that merges (a commutative monoid with [`Sum::default`] as its zero), is
//! accumulated in f64 in device order, and is divided once at the end.

use serde::{Deserialize, Serialize};

/// A mergeable sum with its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// Sum of the values, each times its weight.
    pub sum: f64,
    /// Sum of the weights.
    pub weight: f64,
}

impl Sum {
    /// Adds one value with a weight.
    pub fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    /// Adds what another one has collected.
    pub fn merge(&mut self, other: Self) {
        self.sum += other.sum;
        self.weight += other.weight;
    }

    /// The weighted mean, unless nothing was added.
    pub fn mean(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// What local training reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainMetrics {
    /// Sum of the cross-entropy over all samples trained on, as met during training.
    pub loss_sum: f64,
    /// Samples trained on, counted once per epoch.
    pub samples: u64,
    /// Steps of the optimizer.
    #[serde(default)]
    pub steps: u64,
}

impl TrainMetrics {
    /// Adds what another part of the training reports.
    pub fn merge(&mut self, other: Self) {
        self.loss_sum += other.loss_sum;
        self.samples += other.samples;
        self.steps += other.steps;
    }
}

/// What an evaluation on a device's test samples reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalMetrics {
    /// Samples classified right.
    pub correct: u64,
    /// Sum of the cross-entropy over the samples.
    pub loss_sum: f64,
    /// Test samples.
    pub samples: u64,
}

impl EvalMetrics {
    /// Adds what another batch reports.
    pub fn merge(&mut self, other: Self) {
        self.correct += other.correct;
        self.loss_sum += other.loss_sum;
        self.samples += other.samples;
    }

    /// Fraction classified right; 0 without samples.
    pub fn accuracy(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.correct as f64 / self.samples as f64 }
    }

    /// Mean cross-entropy; 0 without samples.
    pub fn loss(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.loss_sum / self.samples as f64 }
    }
}

/// How a quantity is spread over devices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Unweighted mean over devices, as the FedPer paper reports it.
    pub mean: f64,
    /// Mean weighted by the devices' test samples.
    pub weighted: f64,
    /// Standard deviation over devices (of the population: divided by their number).
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// Mean over the worst-off tenth of the devices (at least one): the smallest accuracies, or the largest losses.
    pub worst_decile: f64,
}

/// Which end of a quantity is the bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worst {
    /// Accuracy.
    Low,
    /// Loss.
    High,
}

impl Spread {
    /// The spread of `(value, weight)` pairs given in device order; `None` if there are none.
    pub fn of(values: &[(f64, f64)], worst: Worst) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mut weighted = Sum::default();
        let mut total = 0.0;
        for &(value, weight) in values {
            weighted.add(value, weight);
            total += value;
        }
        let mean = total / n;
        let variance = values.iter().map(|&(value, _)| (value - mean).powi(2)).sum::<f64>() / n;
        let mut sorted: Vec<f64> = values.iter().map(|&(value, _)| value).collect();
        sorted.sort_by(f64::total_cmp);
        let min = sorted[0];
        if worst == Worst::High {
            sorted.reverse();
        }
        let decile = &sorted[..values.len().div_ceil(10)];
        Some(Self {
            mean,
            weighted: weighted.mean().unwrap_or(mean),
            std: variance.sqrt(),
            min,
            worst_decile: decile.iter().sum::<f64>() / decile.len() as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_three_devices_by_hand() {
        let spread = Spread::of(&[(0.5, 10.0), (1.0, 30.0), (0.75, 0.0)], Worst::Low).unwrap();
        assert_eq!(spread.mean, 0.75);
        assert_eq!(spread.weighted, 0.875);
        assert!((spread.std - (0.125f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!((spread.min, spread.worst_decile), (0.5, 0.5));
        assert_eq!(Spread::of(&[], Worst::Low), None);
    }

    #[test]
    fn the_worst_decile_is_the_bad_end() {
        let values: Vec<(f64, f64)> = (0..20).map(|v| (f64::from(v), 1.0)).collect();
        assert_eq!(Spread::of(&values, Worst::Low).unwrap().worst_decile, 0.5);
        assert_eq!(Spread::of(&values, Worst::High).unwrap().worst_decile, 18.5);
    }

    #[test]
    fn sums_merge_like_one_sum() {
        let (mut left, mut right, mut whole) = (Sum::default(), Sum::default(), Sum::default());
        left.add(1.0, 2.0);
        right.add(4.0, 1.0);
        whole.add(1.0, 2.0);
        whole.add(4.0, 1.0);
        left.merge(right);
        assert_eq!(left, whole);
        assert_eq!(left.mean(), Some(2.0));
        assert_eq!(Sum::default().mean(), None);
    }
}
