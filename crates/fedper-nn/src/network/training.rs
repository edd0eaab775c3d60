//! What is not plain SGD on everything: clipped gradients, frozen parameters, statistics measured afresh.

use super::compile::Layer;
use super::{Batch, Network};
use crate::NnError;
use crate::layer::loss::StepMetrics;
use crate::layer::norm::MOMENTUM;
use crate::optim::{Sgd, Sink};

impl Network {
    /// [`Network::train_step`] after scaling all gradients together so that their global L2 norm is at most `max_norm`, as
    /// `torch.nn.utils.clip_grad_norm_` does: times `max_norm / (norm + 1e-6)` if that is less than 1. Weight decay is
    /// added after that; frozen parameters do not count.
    ///
    /// The norm must be known before any weight changes, so here the whole gradient is kept, in memory that the first call
    /// allocates. Where nothing is clipped the result is that of [`Network::train_step`], bit for bit.
    ///
    /// # Errors
    /// As [`Network::train_step`].
    pub fn train_step_clipped(
        &mut self,
        batch: Batch<'_>,
        sgd: &Sgd,
        max_norm: f64,
    ) -> Result<StepMetrics, NnError> {
        let metrics = self.forward_backward(batch, &mut Sink::Keep)?;
        let nodes = &mut self.program.nodes;
        let mut squares = 0.0;
        for node in nodes.iter_mut() {
            node.layer.trainable(&mut |parameter| squares += parameter.squares());
        }
        let factor = max_norm / (squares.sqrt() + 1e-6);
        // Written so that a gradient that is not a number stays one, and shows.
        let factor = if factor > 1.0 { 1.0 } else { factor as f32 };
        for node in nodes {
            node.layer.trainable(&mut |parameter| parameter.step_kept(sgd, factor));
        }
        Ok(metrics)
    }

    /// Measures the running statistics of all batch norms afresh: after calls with batches of `samples` images, `seen` being
    /// the images of the calls before, they are the means over those batches, weighted by their images. Nothing else changes.
    ///
    /// As in `torch.optim.swa_utils.update_bn`, each batch is normalised with its own statistics.
    ///
    /// # Shapes
    /// As [`Network::logits`].
    ///
    /// # Errors
    /// As [`Network::train_logits`].
    pub fn measure_statistics(&mut self, images: &[f32], samples: usize, seen: usize) -> Result<(), NnError> {
        self.set_norm_momentum(samples as f32 / (seen + samples) as f32);
        let measured = self.train_logits(images, samples).map(|_| ());
        self.set_norm_momentum(MOMENTUM);
        measured
    }

    fn set_norm_momentum(&mut self, momentum: f32) {
        for node in &mut self.program.nodes {
            if let Layer::Norm(norm) = &mut node.layer {
                norm.momentum = momentum;
            }
        }
    }

    /// From now on training leaves alone the parameters that `frozen` names, until it is called again.
    ///
    /// A batch norm whose `running_mean` is frozen normalises with its running statistics, as in eval mode, and does not
    /// move them. No gradient is computed for the layers before the first that trains.
    pub fn freeze(&mut self, frozen: impl Fn(&str) -> bool) {
        let nodes = &mut self.program.nodes;
        self.first_trained = nodes.len();
        for (i, node) in nodes.iter_mut().enumerate() {
            let mut trains = false;
            node.layer.trainable(&mut |parameter| {
                parameter.frozen = frozen(&parameter.name);
                trains |= !parameter.frozen;
            });
            if let Layer::Norm(norm) = &mut node.layer {
                norm.freeze_statistics(&frozen);
            }
            if trains {
                self.first_trained = self.first_trained.min(i);
            }
        }
    }
}
