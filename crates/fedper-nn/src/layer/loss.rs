//! Cross-entropy of the softmax, averaged over the batch.

/// What one batch came to. Sums, so that batches add up; divide by `samples` at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepMetrics {
    /// Cross-entropy, summed over samples.
    pub loss_sum: f64,
    /// How many samples had their largest logit at their label.
    pub correct: u64,
    /// How many samples there were.
    pub samples: u64,
}

/// Loss and accuracy.
///
/// # Shapes
/// `logits` `[batch][classes]`, `labels` `[batch]`, each below `classes`.
pub(crate) fn cross_entropy(logits: &[f32], labels: &[u32], classes: usize) -> StepMetrics {
    let mut metrics = StepMetrics { samples: labels.len() as u64, ..StepMetrics::default() };
    for (logits, &label) in logits.chunks_exact(classes).zip(labels) {
        measure(logits, label as usize, &mut metrics);
    }
    metrics
}

/// [`cross_entropy`], and turns the logits into the gradient of the mean loss, `(softmax - onehot) / batch`.
pub(crate) fn cross_entropy_gradient(logits: &mut [f32], labels: &[u32], classes: usize) -> StepMetrics {
    let mut metrics = StepMetrics { samples: labels.len() as u64, ..StepMetrics::default() };
    for (logits, &label) in logits.chunks_exact_mut(classes).zip(labels) {
        let (max, total) = measure(logits, label as usize, &mut metrics);
        for (class, logit) in logits.iter_mut().enumerate() {
            let target = f64::from(u8::from(class == label as usize));
            *logit = ((exp(*logit, max) / total - target) / labels.len() as f64) as f32;
        }
    }
    metrics
}

fn exp(logit: f32, max: f32) -> f64 {
    (f64::from(logit) - f64::from(max)).exp()
}

/// Adds one sample. Returns the largest logit and the sum of the exponentials of the others' distances from it.
fn measure(logits: &[f32], label: usize, metrics: &mut StepMetrics) -> (f32, f64) {
    let (mut best, mut max) = (0, f32::NEG_INFINITY);
    for (class, &logit) in logits.iter().enumerate() {
        if logit > max {
            (best, max) = (class, logit);
        }
    }
    metrics.correct += u64::from(best == label && logits[label] == max);
    let total: f64 = logits.iter().map(|&logit| exp(logit, max)).sum();
    metrics.loss_sum += total.ln() + f64::from(max) - f64::from(logits[label]);
    (max, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // softmax(0, ln 3) = (1/4, 3/4)
        let mut gradient = [0.0, 3f32.ln(), 0.0, 3f32.ln()];
        let before = cross_entropy(&gradient, &[0, 1], 2);
        let metrics = cross_entropy_gradient(&mut gradient, &[0, 1], 2);
        assert_eq!(before, metrics);
        assert!((metrics.loss_sum - (4f64.ln() + (4.0 / 3.0f64).ln())).abs() < 1e-6);
        assert_eq!((metrics.correct, metrics.samples), (1, 2));
        for (g, expected) in gradient.iter().zip([-0.375, 0.375, 0.125, -0.125]) {
            assert!((g - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn huge_logits_do_not_overflow_and_nan_is_not_hidden() {
        let metrics = cross_entropy(&[1e30, -1e30, 500.0], &[0], 3);
        assert_eq!((metrics.loss_sum, metrics.correct), (0.0, 1));
        let metrics = cross_entropy(&[f32::NAN, 0.0], &[0], 2);
        assert!(metrics.loss_sum.is_nan());
        assert_eq!(metrics.correct, 0);
    }
}
