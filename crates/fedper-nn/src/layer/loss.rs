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

/// Loss and accuracy; with `gradient`, also the gradient of the mean loss with respect to the logits,
/// `(softmax - onehot) / batch`.
///
/// # Shapes
/// `logits`, `gradient` `[batch][classes]`, `labels` `[batch]`, each below `classes`.
pub(crate) fn cross_entropy(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    mut gradient: Option<&mut [f32]>,
) -> StepMetrics {
    let mut metrics = StepMetrics { samples: labels.len() as u64, ..StepMetrics::default() };
    for (i, (logits, &label)) in logits.chunks_exact(classes).zip(labels).enumerate() {
        let label = label as usize;
        let (mut best, mut max) = (0, f32::NEG_INFINITY);
        for (class, &logit) in logits.iter().enumerate() {
            if logit > max {
                (best, max) = (class, logit);
            }
        }
        metrics.correct += u64::from(best == label && logits[label] == max);
        let exp = |logit: f32| (f64::from(logit) - f64::from(max)).exp();
        let total: f64 = logits.iter().map(|&logit| exp(logit)).sum();
        metrics.loss_sum += total.ln() + f64::from(max) - f64::from(logits[label]);
        if let Some(gradient) = gradient.as_deref_mut() {
            let gradient = &mut gradient[i * classes..(i + 1) * classes];
            for (class, (g, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
                let target = f64::from(u8::from(class == label));
                *g = ((exp(logit) / total - target) / labels.len() as f64) as f32;
            }
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // softmax(0, ln 3) = (1/4, 3/4)
        let logits = [0.0, 3f32.ln(), 0.0, 3f32.ln()];
        let mut gradient = [0.0; 4];
        let metrics = cross_entropy(&logits, &[0, 1], 2, Some(&mut gradient));
        assert!((metrics.loss_sum - (4f64.ln() + (4.0 / 3.0f64).ln())).abs() < 1e-6);
        assert_eq!((metrics.correct, metrics.samples), (1, 2));
        for (g, expected) in gradient.iter().zip([-0.375, 0.375, 0.125, -0.125]) {
            assert!((g - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn huge_logits_do_not_overflow_and_nan_is_not_hidden() {
        let metrics = cross_entropy(&[1e30, -1e30, 500.0], &[0], 3, None);
        assert_eq!((metrics.loss_sum, metrics.correct), (0.0, 1));
        let metrics = cross_entropy(&[f32::NAN, 0.0], &[0], 2, None);
        assert!(metrics.loss_sum.is_nan());
        assert_eq!(metrics.correct, 0);
    }
}
