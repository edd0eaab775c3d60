//! What a coordinator is told, what it wants done, and what a round came to.

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::round::{DeviceId, Download, Together, Upload};

/// What happens to a coordinator.
#[derive(Clone, Debug)]
pub enum Event {
    /// The driver is ready for the next round.
    Begin,
    /// A device has trained.
    Trained(Upload),
    /// Devices that share a machine have trained, and answer with one base.
    TrainedTogether(Together),
    /// A device has been evaluated.
    Evaluated {
        /// Which one.
        device: DeviceId,
        /// In which round.
        round: u32,
        /// What it measured.
        metrics: EvalMetrics,
    },
    /// A device will not answer in this round.
    Failed {
        /// Which one.
        device: DeviceId,
        /// In which round.
        round: u32,
    },
    /// A device was not heard; asked again, it may answer.
    Lost {
        /// Which one.
        device: DeviceId,
        /// In which round.
        round: u32,
    },
    /// Time has passed.
    Tick,
}

/// What a coordinator wants done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Have a device train; answer with [`Event::Trained`] or [`Event::Failed`].
    Train(DeviceId, Download),
    /// Have a device tested with this base; answer with [`Event::Evaluated`] or [`Event::Failed`].
    Evaluate(DeviceId, Download),
    /// A round is over. The coordinator's state is the new one, and it waits for [`Event::Begin`].
    RoundDone(Outcome),
    /// Too few devices answered. Nothing has changed, and the coordinator waits for [`Event::Begin`] to try again.
    TooFew {
        /// Which round came to nothing.
        round: u32,
        /// How many answered.
        answered: u32,
    },
    /// Too few devices were heard in the evaluation. What was trained stands, and at [`Event::Begin`] the others are asked
    /// again.
    TooFewTests {
        /// Of which round.
        round: u32,
        /// How many were heard.
        heard: u64,
        /// How many have to be.
        needed: u64,
    },
    /// There is no further round.
    Finished,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// 1 for the first.
    pub round: u32,
    /// Training, merged over the devices that answered, in their order.
    pub train: TrainMetrics,
    /// How many devices answered.
    pub answered: u32,
    /// How many were asked to train and did not answer.
    pub failed: u32,
    /// Who was asked to train, in order; `None` if all devices were.
    pub participants: Option<Vec<DeviceId>>,
    /// Who of those did not answer, or not with what was asked for.
    pub failed_devices: BTreeSet<DeviceId>,
    /// Bytes of the values that went to devices to train: four for each value and device asked. The experimenter's
    /// evaluation is not traffic of the method.
    pub bytes_down: u64,
    /// Bytes of the values that came back: four for each value and device that answered, also where several devices
    /// answered with one mean.
    pub bytes_up: u64,
    /// Tests right after local training, by device.
    pub local_tests: BTreeMap<DeviceId, EvalMetrics>,
    /// Tests with the new base, by device; empty if this round does not evaluate.
    pub tests: BTreeMap<DeviceId, EvalMetrics>,
}

impl Outcome {
    /// That of a round in which nothing has happened yet.
    pub fn nothing(round: u32) -> Self {
        Self {
            round,
            train: TrainMetrics::default(),
            answered: 0,
            failed: 0,
            participants: None,
            failed_devices: BTreeSet::new(),
            bytes_down: 0,
            bytes_up: 0,
            local_tests: BTreeMap::new(),
            tests: BTreeMap::new(),
        }
    }

    pub(super) fn fail(&mut self, device: DeviceId) {
        self.failed += 1;
        self.failed_devices.insert(device);
    }
}
