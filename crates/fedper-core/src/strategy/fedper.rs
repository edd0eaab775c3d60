//! FedPer: federated learning with personalization layers.
//!
//! M. G. Arivazhagan, V. Aggarwal, A. K. Singh, S. Choudhary, *Federated Learning with Personalization Layers*,
//! arXiv:1912.00818, algorithms 1 and 2:
//!
//! A device puts W_B(k-1) under its own W_P,j(k-1), runs e epochs of SGD on both jointly, sends W_B,j(k) and n_j, keeps
//! W_P,j(k). The server averages: W_B(k) = sum_j n_j W_B,j(k) / sum_j n_j. That is what [`Strategy`] does by default.

use std::sync::Arc;

use super::{About, Entry, Strategy};

/// The base layers are averaged, the last K_P blocks never leave the device.
///
/// K_P = 0 is [`super::FedAvg`], K_P = all is [`super::Local`], bit for bit.
pub struct FedPer;

impl FedPer {
    pub(super) const ENTRY: Entry = Entry::new("fedper", &[], |_| Arc::new(FedPer));
}

impl Strategy for FedPer {
    fn name(&self) -> &'static str {
        "fedper"
    }

    fn about(&self) -> About {
        About {
            line: "base layers averaged, the last K_P blocks personal",
            source: "1912.00818",
            kept: "the personal layers",
            learns: "the base that a device has trained, and how many samples it has",
        }
    }
}
