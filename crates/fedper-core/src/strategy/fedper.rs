//! FedPer: federated learning with personalization layers.
//!
//! M. G. Arivazhagan, V. Aggarwal, A. K. Singh, S. Choudhary, *Federated Learning with Personalization Layers*,
//! arXiv:1912.00818, algorithms 1 and 2.

use super::{LearnError, Learner, LocalRound, Strategy, Trained, train_jointly};
use crate::split::{BaseParams, PersonalParams, Split};

/// The base layers are averaged, the last K_P blocks never leave the device.
///
/// K_P = 0 is [`super::FedAvg`], K_P = all is [`super::Local`], bit for bit.
pub struct FedPer;

impl Strategy for FedPer {
    fn name(&self) -> &'static str {
        "fedper"
    }

    fn about(&self) -> &'static str {
        "base layers averaged, the last K_P blocks personal (arXiv:1912.00818)"
    }

    /// The configured cut, as it is.
    fn split(&self, requested: &Split) -> Split {
        requested.clone()
    }

    /// Puts W_B(k-1) under the device's own W_P,j(k-1), runs e epochs of SGD on both jointly, sends W_B,j(k) and n_j,
    /// keeps W_P,j(k).
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
