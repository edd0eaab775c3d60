//! What is not plain SGD on everything: clipped and tilted gradients, frozen parameters, statistics measured afresh.

use fedper_core::params::Params;

use super::{Batch, Network};
use crate::NnError;
use crate::kernel::elementwise::Sgd;
use crate::layer::Mode;
use crate::layer::loss::StepMetrics;
use crate::parameter::{Array, Sink};

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
        self.step_kept(batch, sgd, Some(max_norm))
    }

    /// A step that keeps the whole gradient first: clipped, tilted.
    pub(super) fn step_kept(
        &mut self,
        batch: Batch<'_>,
        sgd: &Sgd,
        max_norm: Option<f64>,
    ) -> Result<StepMetrics, NnError> {
        let metrics = self.forward_backward(batch, Sink::Keep, self.first_trained)?;
        let factor = max_norm.map_or(1.0, |max_norm| self.clip_factor(max_norm));
        self.each(|parameter| parameter.step_kept(sgd, factor));
        Ok(metrics)
    }

    /// What the kept gradients are multiplied with.
    fn clip_factor(&mut self, max_norm: f64) -> f32 {
        let mut squares = 0.0;
        self.each(|parameter| squares += parameter.squares());
        let factor = max_norm / (squares.sqrt() + 1e-6);
        // Written so that a gradient that is not a number stays one, and shows.
        if factor > 1.0 { 1.0 } else { factor as f32 }
    }

    /// From now on [`Network::train_step`] and [`Network::train_step_clipped`] correct each trainable parameter's gradient,
    /// after clipping and before weight decay and momentum, until [`Network::untilt`] or the next call:
    /// `gradient += pull * (w - toward) + add`.
    ///
    /// FedProx, Ditto, SCAFFOLD and FedDyn train so. `toward` and `add` may hold a part of the network's parameters: what
    /// `toward` leaves out is not pulled, and what `add` leaves out gets nothing added. Running statistics and frozen
    /// parameters are never tilted. Where `w` is `toward` and nothing is added, the correction is exactly 0.
    ///
    /// The arrays are copied, in the order the layers work in; the first call, and the first step after it, allocate their
    /// memory. As with clipping, a step then keeps the whole gradient. A `pull` of 0 and no `add` is no tilt at all: the
    /// steps are those of a network that never had one, in time and in every bit.
    ///
    /// # Errors
    /// [`NnError::Params`] if `toward` or `add` holds a name that the network does not have, or another shape; nothing is
    /// changed then.
    pub fn tilt(&mut self, pull: f32, toward: Option<&Params>, add: Option<&Params>) -> Result<(), NnError> {
        for params in toward.iter().chain(&add) {
            self.check_part(params.layout())?;
        }
        let toward = toward.filter(|_| pull != 0.0);
        self.tilted = toward.is_some() || add.is_some();
        self.each(|parameter| parameter.tilt(pull));
        for (params, array) in [(toward, Array::Toward), (add, Array::Add)] {
            params.into_iter().for_each(|params| self.load_array(params, array));
        }
        Ok(())
    }

    /// Steps are on the plain gradient again. Memory of a tilt is kept for the next one.
    pub fn untilt(&mut self) {
        self.tilted = false;
        self.each(|parameter| parameter.tilt(0.0));
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
        let share = samples as f32 / (seen + samples) as f32;
        self.logits_in(Mode::Measure(share), images, samples).map(|_| ())
    }

    /// From now on training leaves alone the parameters that `frozen` names, until it is called again.
    ///
    /// A batch norm whose `running_mean` is frozen normalises with its running statistics, as in eval mode, and does not
    /// move them. (In PyTorch `requires_grad = False` alone does not do that: there it goes on normalising with the batch's
    /// statistics and moving the running ones.) No gradient is computed for the layers before the first that trains.
    ///
    /// Velocities of what is frozen stay as they are. To train one part and then another, as FedRep does with the personal
    /// layers and the base, call [`Network::reset_momentum`] between the two: then each phase is that of a network which was
    /// loaded, and frozen so, afresh.
    pub fn freeze(&mut self, frozen: impl Fn(&str) -> bool) {
        let nodes = &mut self.program.nodes;
        self.first_trained = nodes.len();
        for (i, node) in nodes.iter_mut().enumerate() {
            let mut trains = false;
            node.layer.parameters_mut(&mut |parameter| {
                parameter.frozen = frozen(&parameter.name);
                trains |= parameter.trains();
            });
            if trains {
                self.first_trained = self.first_trained.min(i);
            }
        }
    }
}
