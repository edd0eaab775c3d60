//! FedAvg with fine-tuning: the baseline that any personalised method must beat.
//!
//! Trained as FedAvg; before it is evaluated, each device fine-tunes the global model on its own data and forgets the
//! result again. K. Wang et al., *Federated Evaluation of On-device Personalization*, arXiv:1910.10252; G. Cheng,
//! K. Chadha, J. Duchi, *Fine-tuning is Fine in Federated Learning*, arXiv:2108.07313.

use std::sync::Arc;

use super::{About, Entry, FedAvg, LearnError, Learner, LocalRound, Pass, Strategy};
use crate::parts::Parts;
use crate::seed::Purpose;
use crate::split::{Kept, Shared, Split};

/// Federated averaging, personalised at the end by more SGD on the device.
pub struct FedAvgFineTuned;

impl FedAvgFineTuned {
    pub(super) const ENTRY: Entry = Entry::new("fedavg-ft", &[], |_| Arc::new(FedAvgFineTuned));
}

impl Strategy for FedAvgFineTuned {
    fn name(&self) -> &'static str {
        "fedavg-ft"
    }

    fn about(&self) -> About {
        About {
            line: "fedavg, then each device fine-tunes the global model before it is evaluated",
            source: "1910.10252",
            ..FedAvg.about()
        }
    }

    fn parts(&self, cut: &Split) -> Parts {
        FedAvg.parts(cut)
    }

    /// Fine-tunes the received model on the device's training samples.
    fn network(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<(), LearnError> {
        device.load(&round.assemble(received, own))?;
        let epochs = round.finetune_epochs;
        device.train(&Pass { epochs, purpose: Purpose::FineTune, ..round.pass() })?;
        round.settle(device)
    }

    fn network_trains(&self) -> bool {
        true
    }
}
