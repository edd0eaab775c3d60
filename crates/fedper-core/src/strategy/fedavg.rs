//! FedAvg: federated averaging.
//!
//! H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, *Communication-Efficient Learning of Deep
//! Networks from Decentralized Data*, arXiv:1602.05629, algorithm 1.

use super::{LearnError, Learner, LocalRound, Strategy, Trained, train_jointly};
use crate::split::{BaseParams, PersonalParams, Split};

/// One model for all: every parameter is averaged.
pub struct FedAvg;

impl Strategy for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn about(&self) -> &'static str {
        "every layer averaged: one model for all devices (arXiv:1602.05629)"
    }

    /// Everything, whatever cut is configured.
    fn split(&self, requested: &Split) -> Split {
        Split::all_base(requested.whole())
    }

    /// ClientUpdate(k, w): e epochs of SGD from the received model, sent back whole.
    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &BaseParams,
        own: &PersonalParams,
    ) -> Result<Trained, LearnError> {
        train_jointly(device, round, received, own)
    }
}
