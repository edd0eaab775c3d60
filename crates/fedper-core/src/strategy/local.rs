//! Local training: what a device reaches alone.

use super::{LearnError, Learner, LocalRound, Strategy, Trained, train_jointly};
use crate::split::{BaseParams, PersonalParams, Split};

/// Nothing is averaged, nothing is sent.
pub struct Local;

impl Strategy for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn about(&self) -> &'static str {
        "every device trains alone, nothing is sent"
    }

    /// Everything is personal, whatever cut is configured.
    fn split(&self, requested: &Split) -> Split {
        Split::all_personal(requested.whole())
    }

    /// e more epochs of SGD on the device's own model.
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
