//! The last round of each device that counted.
//!
//! A device that has trained keeps its new state before its answer is counted, and the answer may come too late, be refused, or
//! be lost with its server. So a question says after which round the device's state is the one that the server goes on from.

use std::collections::BTreeMap;

use fedper_core::coordinator::{Coordinator, Outcome};
use fedper_core::round::DeviceId;

use fedper_run::error::Error;
use fedper_run::rundir::RunDir;
use fedper_run::rundir::records::RoundRecord;

/// By algorithm.
#[derive(Default)]
pub(super) struct Counted(BTreeMap<String, Rounds>);

/// Rounds by device; one that is not here has never counted.
type Rounds = BTreeMap<DeviceId, u32>;

impl Counted {
    /// As the run's records have it; `devices` is how many take part if all do.
    pub(super) fn read(dir: &RunDir, devices: u64) -> Result<Self, Error> {
        let mut counted = Self::default();
        for record in RunDir::rounds(dir.path())? {
            counted.add(&record, devices);
        }
        Ok(counted)
    }

    fn add(&mut self, record: &RoundRecord, devices: u64) {
        if record.ended.is_none() {
            let asked = record.participants.clone().unwrap_or_else(|| (0..devices).collect());
            let failed = |device: &u64| record.failed_devices.contains(device);
            let answered = asked.into_iter().filter(|device| !failed(device)).map(DeviceId);
            self.count(&record.algorithm, record.round, answered);
        }
    }

    /// A round of `algorithm` is over.
    pub(super) fn note(&mut self, algorithm: &str, outcome: &Outcome, devices: u64) {
        let asked = outcome.participants.clone();
        let asked = asked.unwrap_or_else(|| (0..devices).map(DeviceId).collect());
        let answered = asked.into_iter().filter(|device| !outcome.failed_devices.contains(device));
        self.count(algorithm, outcome.round, answered);
    }

    fn count(&mut self, algorithm: &str, round: u32, answered: impl Iterator<Item = DeviceId>) {
        self.0.entry(algorithm.to_owned()).or_default().extend(answered.map(|device| (device, round)));
    }

    /// The last round of `algorithm` in which `device` trained and was counted, the one that is under way included; 0 if there
    /// is none.
    pub(super) fn last(&self, algorithm: &str, device: DeviceId, coordinator: &Coordinator) -> u32 {
        if coordinator.has_counted(device) {
            return coordinator.round();
        }
        self.0.get(algorithm).and_then(|rounds| rounds.get(&device)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedper_run::rundir::records_of;

    #[test]
    fn who_failed_is_where_it_was() {
        let mut counted = Counted::default();
        let outcome = |round: u32, participants: Option<&[u64]>, failed: &[u64]| Outcome {
            participants: participants.map(|list| list.iter().copied().map(DeviceId).collect()),
            failed_devices: failed.iter().copied().map(DeviceId).collect(),
            ..Outcome::nothing(round)
        };
        let record =
            |round, participants, failed| records_of("fedper", &outcome(round, participants, failed), 0.0).0;
        counted.add(&record(1, None, &[2]), 3);
        counted.add(&record(2, Some(&[0, 2]), &[0]), 3);
        let rounds = |counted: &Counted| -> Vec<u32> {
            (0..3).map(|device| counted.0["fedper"].get(&DeviceId(device)).copied().unwrap_or(0)).collect()
        };
        assert_eq!(rounds(&counted), [1, 1, 2]);
        counted.note("fedper", &outcome(3, Some(&[0, 1]), &[0]), 3);
        assert_eq!(rounds(&counted), [1, 3, 2]);
        counted.add(&RoundRecord { ended: Some("diverged".into()), ..record(4, None, &[]) }, 3);
        assert_eq!(rounds(&counted), [1, 3, 2]);
    }
}
