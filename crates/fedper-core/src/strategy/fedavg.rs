//! FedAvg: federated averaging.
//!
//! H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, *Communication-Efficient Learning of Deep
//! Networks from Decentralized Data*, arXiv:1602.05629, algorithm 1: e epochs of SGD from the received model, sent back
//! whole, averaged by samples.

use std::sync::Arc;

use super::{About, Entry, Strategy};
use crate::parts::Parts;
use crate::split::Split;

/// One model for all: every parameter is averaged.
pub struct FedAvg;

impl FedAvg {
    pub(super) const ENTRY: Entry = Entry::new("fedavg", &[], |_| Arc::new(FedAvg));
}

impl Strategy for FedAvg {
    fn name(&self) -> &'static str {
        "fedavg"
    }

    fn about(&self) -> About {
        About {
            line: "every layer averaged: one model for all devices",
            source: "1602.05629",
            kept: "nothing",
            learns: "the whole network that a device has trained, and how many samples it has",
        }
    }

    /// Everything, whatever cut is configured.
    fn parts(&self, cut: &Split) -> Parts {
        Parts::of(Split::all_base(cut.whole()))
    }
}
