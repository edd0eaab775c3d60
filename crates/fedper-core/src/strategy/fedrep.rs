//! FedRep: shared representation, personal heads.
//!
//! L. Collins, H. Hassani, A. Mokhtari, S. Shakkottai, *Exploiting Shared Representations for Personalized Federated
//! Learning*, arXiv:2102.07078, algorithm 1. In a round a device
//!
//! 1. trains its head for tau epochs on top of the received base, which stays as it is,
//! 2. trains the base for e epochs under that new head, which stays as it is, and sends it.
//!
//! Choices where the paper leaves one: velocities start from zero in each phase, and a layer that does not train has its
//! batch norm in eval mode (`requires_grad = False` in PyTorch would let the statistics move). The head phase draws its
//! batches from a sequence of its own; the base sees FedPer's. The training loss is over both.

use std::sync::Arc;

use super::{About, Entry, LearnError, Learner, LocalRound, Pass, Setting, Strategy, Trained};
use crate::metrics::TrainMetrics;
use crate::split::{Kept, Shared};

/// The base is averaged as in FedPer; head and base train one after the other.
pub struct FedRep {
    /// tau: epochs of the head alone. The base trains for the round's epochs.
    pub head_epochs: u32,
}

impl FedRep {
    pub(super) const ENTRY: Entry = Entry::new(
        "fedrep",
        &[Setting::whole(
            "head_epochs",
            "epochs that the head trains alone before the base does",
            Some(10.0),
        )],
        |values| Arc::new(FedRep { head_epochs: values.count("head_epochs") }),
    );
}

impl Strategy for FedRep {
    fn name(&self) -> &'static str {
        "fedrep"
    }

    fn about(&self) -> About {
        About {
            line: "as fedper, but the head trains first and the base after it, each alone",
            source: "2102.07078",
            kept: "the personal layers",
            learns: "the base that a device has trained, and how many samples it has",
        }
    }

    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<Trained, LearnError> {
        device.load(&round.assemble(received, own))?;
        let (base, head) = (round.parts.split.base(), round.parts.split.personal());
        let mut metrics = TrainMetrics::default();
        if !head.is_empty() {
            let epochs = self.head_epochs;
            metrics.merge(device.train(&Pass { epochs, ..round.pass() }.only(head).stream("head"))?);
        }
        if !base.is_empty() {
            metrics.merge(device.train(&round.pass().only(base))?);
        }
        round.answer_with_model(device, metrics)
    }

    /// A head's epoch is a forward pass of the base, and little more.
    fn work(&self, epochs: u32) -> f64 {
        f64::from(epochs) + f64::from(self.head_epochs) / 3.0
    }
}
