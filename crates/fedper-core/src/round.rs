//! What a round is made of: who takes part, what goes to a device and what comes back.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::split::Shared;

/// A participant of the federation, by number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u64);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// From the server to a device: what it trains on, or is tested with.
#[derive(Clone, Debug, PartialEq)]
pub struct Download {
    /// 1 for the first round.
    pub round: u32,
    /// Whether the device should test its network between its training and its answer.
    pub test_locally: bool,
    /// The slots that the method sends, of FedPer the base; shared by all messages of a round.
    pub base: Arc<Shared>,
}

/// From a device to the server: what it sends after training, and what it measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Whose.
    pub device: DeviceId,
    /// The round it answers.
    pub round: u32,
    /// n_j: how many training samples the device holds.
    pub samples: u64,
    /// What its training measured.
    pub train: TrainMetrics,
    /// Its own test right after training, if it was asked for.
    pub test: Option<EvalMetrics>,
    /// The slots that the method sends, of FedPer the base that it trained.
    pub base: Shared,
}

/// From devices that share a machine: what they send, folded as the server would fold it, and what each measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Together {
    /// The round they answer.
    pub round: u32,
    /// Each device's part but for what it sends; those that failed are not in it.
    pub answers: Vec<Answer>,
    /// Their slots, folded.
    pub base: Shared,
}

/// An [`Upload`] without what is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Whose.
    pub device: DeviceId,
    /// n_j: how many training samples the device holds.
    pub samples: u64,
    /// What its training measured.
    pub train: TrainMetrics,
    /// Its own test right after training, if it was asked for.
    pub test: Option<EvalMetrics>,
}
