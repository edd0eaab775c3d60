//! FedAvg with fine-tuning: the baseline that any personalised method must beat.
//!
//! Trained as FedAvg; before it is evaluated, each device fine-tunes the global model on its own data and forgets the
//! result again. K. Wang et al., *Federated Evaluation of On-device Personalization*, arXiv:1910.10252; G. Cheng,
//! K. Chadha, J. Duchi, *Fine-tuning is Fine in Federated Learning*, arXiv:2108.07313.

use super::{FedAvg, LearnError, Learner, LocalRound, Strategy, Trained};
use crate::metrics::EvalMetrics;
use crate::seed::Purpose;
use crate::split::{BaseParams, PersonalParams, Split};

/// Federated averaging, personalised at the end by more SGD on the device.
pub struct FedAvgFineTuned;

impl Strategy for FedAvgFineTuned {
    fn name(&self) -> &'static str {
        "fedavg-ft"
    }

    fn about(&self) -> &'static str {
        "fedavg, then each device fine-tunes the global model before it is evaluated (arXiv:1910.10252)"
    }

    fn split(&self, requested: &Split) -> Split {
        FedAvg.split(requested)
    }

    /// Exactly FedAvg's.
    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &BaseParams,
        own: &PersonalParams,
    ) -> Result<Trained, LearnError> {
        FedAvg.train(device, round, received, own)
    }

    /// Fine-tunes the received model on the device's training samples, then tests it.
    fn evaluate(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &BaseParams,
        own: &PersonalParams,
    ) -> Result<EvalMetrics, LearnError> {
        device.load(&round.assemble(received, own))?;
        device.train(round.finetune_epochs, Purpose::FineTune)?;
        round.settle(device)?;
        device.test()
    }
}
