//! Work for a device, and what comes of it.

use std::sync::Arc;

use fedper_core::coordinator::Event;
use fedper_core::metrics::EvalMetrics;
use fedper_core::parts::Parts;
use fedper_core::round::{DeviceId, Download, Upload};
use fedper_core::split::Kept;
use fedper_core::strategy::Strategy;

/// Work for one device.
pub struct Job {
    /// The method.
    pub strategy: Arc<dyn Strategy>,
    /// What it sends and keeps.
    pub parts: Arc<Parts>,
    /// Who works.
    pub device: DeviceId,
    /// Whose share of the partition it has.
    pub place: usize,
    /// What it was sent.
    pub message: Download,
    /// What the device keeps; as it begins if it has none yet.
    pub personal: Option<Arc<Kept>>,
    /// What it is asked to do.
    pub task: Task,
}

/// What a device is asked to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Its part of a round.
    Train,
    /// A test of the network that the method gives it.
    Evaluate,
}

/// What a device has done.
pub enum Work {
    /// What the device sends, and what it keeps.
    Trained(Upload, Kept),
    /// What its test measured.
    Evaluated(EvalMetrics),
}

impl Work {
    /// What the coordinator is told, and what stays on the device.
    pub(crate) fn into_event(self, device: DeviceId, round: u32) -> (Event, Option<Kept>) {
        match self {
            Self::Trained(upload, personal) => (Event::Trained(upload), Some(personal)),
            Self::Evaluated(metrics) => (Event::Evaluated { device, round, metrics }, None),
        }
    }
}
