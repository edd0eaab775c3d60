//! From what a round came to, to the lines that are written about it.

use std::collections::BTreeMap;

use fedper_core::coordinator::Outcome;
use fedper_core::metrics::{EvalMetrics, Spread, Worst};
use fedper_core::round::DeviceId;
use fedper_records::{DeviceRecord, RoundRecord};

/// The line in `rounds.jsonl` of a round that came to nothing, for `reason`, and after which there is none.
pub(crate) fn record_of_end(algorithm: &str, outcome: &Outcome, seconds: f64, reason: String) -> RoundRecord {
    let empty = Outcome { tests: BTreeMap::new(), local_tests: BTreeMap::new(), ..outcome.clone() };
    let (record, _) = records_of(algorithm, &empty, seconds);
    RoundRecord { ended: Some(reason), ..record }
}

/// The round's line in `rounds.jsonl`, and those of its devices in `devices.jsonl`.
pub fn records_of(algorithm: &str, outcome: &Outcome, seconds: f64) -> (RoundRecord, Vec<DeviceRecord>) {
    let spread = |tests: &BTreeMap<DeviceId, EvalMetrics>, of: fn(&EvalMetrics) -> f64, worst| {
        let values: Vec<(f64, f64)> = tests
            .values()
            .filter(|test| test.samples > 0)
            .map(|test| (of(test), test.samples as f64))
            .collect();
        Spread::of(&values, worst)
    };
    let trained = outcome.train.samples;
    let record = RoundRecord {
        algorithm: algorithm.to_owned(),
        round: outcome.round,
        accuracy: spread(&outcome.tests, EvalMetrics::accuracy, Worst::Low),
        accuracy_local: spread(&outcome.local_tests, EvalMetrics::accuracy, Worst::Low),
        loss: spread(&outcome.tests, EvalMetrics::loss, Worst::High),
        train_loss: (trained > 0).then(|| outcome.train.loss_sum / trained as f64),
        bytes_down: outcome.bytes_down,
        bytes_up: outcome.bytes_up,
        wire_down: None,
        wire_up: None,
        seconds,
        devices: outcome.answered,
        failed: outcome.failed,
        samples_trained: trained,
        participants: outcome.participants.as_ref().map(|list| list.iter().map(|device| device.0).collect()),
        failed_devices: outcome.failed_devices.iter().map(|device| device.0).collect(),
        untested: outcome.tests.values().filter(|test| test.samples == 0).count() as u32,
        ended: None,
    };
    let devices = outcome
        .tests
        .iter()
        .filter(|(_, test)| test.samples > 0)
        .map(|(device, test)| DeviceRecord {
            algorithm: algorithm.to_owned(),
            round: outcome.round,
            device: device.0,
            samples: test.samples,
            accuracy: test.accuracy(),
            loss: test.loss(),
        })
        .collect();
    (record, devices)
}
