//! The records of a run directory: what `rounds.jsonl`, `devices.jsonl`, `partition.json` and `summary.json` hold.
//!
//! Other programs read these files. A field is added freely and never renamed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fedper_core::metrics::Spread;
use serde::{Deserialize, Serialize};

use crate::error::RecordError;
use crate::names::SUMMARY;

/// A line of `rounds.jsonl`: one round of one algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Name of the strategy, such as `fedper`.
    pub algorithm: String,
    /// 1 for the first round.
    pub round: u32,
    /// Fraction of a device's test samples classified right, with its own full network after aggregation. Absent in a
    /// round without evaluation.
    pub accuracy: Option<Spread>,
    /// The same right after local training, before aggregation, over the devices that trained in this round.
    pub accuracy_local: Option<Spread>,
    /// Mean cross-entropy on a device's test samples, after aggregation.
    pub loss: Option<Spread>,
    /// Mean cross-entropy over all samples trained on in this round; absent if no device trained.
    pub train_loss: Option<f64>,
    /// Bytes of the values that went to devices to train: four for each value and device asked.
    pub bytes_down: u64,
    /// Bytes of the values that came back from them: four for each value and device that answered.
    pub bytes_up: u64,
    /// Over a network: bytes of the messages to nodes that asked for training, whatever they held. Left out of simulated rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_down: Option<u64>,
    /// Over a network: bytes of their answers. Left out of simulated rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_up: Option<u64>,
    /// Wall time of the round, in seconds, evaluation included.
    pub seconds: f64,
    /// How many devices trained and answered.
    pub devices: u32,
    /// How many devices were asked and failed.
    pub failed: u32,
    /// Training samples processed (samples x local epochs).
    pub samples_trained: u64,
    /// The numbers of the devices that were asked to train, in order. Left out if all were that take part in the run's
    /// training at all (all but those held out, [`NewClients::devices`]); records of older versions never have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participants: Option<Vec<u64>>,
    /// The numbers of those of them that failed, in order. Left out if none did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_devices: Vec<u64>,
    /// How many devices were evaluated without a test sample, and are in none of the means. Left out if none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untested: u32,
    /// Why there is no further round: this one came to nothing, and the algorithm ended as the round before left it. Left
    /// out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A line of `devices.jsonl`: one device in one evaluated round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Name of the strategy.
    pub algorithm: String,
    /// The round, as in [`RoundRecord::round`].
    pub round: u32,
    /// Which device.
    pub device: u64,
    /// How many test samples it was evaluated on.
    pub samples: u64,
    /// Fraction classified right.
    pub accuracy: f64,
    /// Mean cross-entropy.
    pub loss: f64,
}

/// `partition.json`: who holds what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Name of the dataset.
    pub dataset: String,
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// Every device's samples.
    pub devices: Vec<DevicePartition>,
}

/// One device's samples, as indices into the dataset (its own train split first, then its test split), in the order
/// that is used when `shuffle = false`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DevicePartition {
    /// Which device.
    pub device: u64,
    /// Training samples.
    pub train: Vec<u32>,
    /// Test samples.
    pub test: Vec<u32>,
    /// Training samples of each class, by label.
    pub train_classes: Vec<u32>,
    /// Test samples of each class, by label.
    pub test_classes: Vec<u32>,
    /// The device's own number for each class, by label; absent where devices name them all alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<u32>>,
}

/// `summary.json`: where every algorithm ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of fedper.
    pub version: String,
    /// Commit it was built from, if known.
    pub commit: Option<String>,
    /// The run's seed.
    pub seed: u64,
    /// Model name of the CPU.
    pub cpu: String,
    /// The instruction set that the network was computed in; results repeat bit for bit within one.
    #[serde(default)]
    pub kernels: Option<String>,
    /// Worker threads.
    pub workers: usize,
    /// The command line that repeats the run.
    pub command: String,
    /// Whether every round was run that is to be: an algorithm that ended has no further one.
    pub complete: bool,
    /// How many rounds the run was to have. Older summaries do not say.
    #[serde(default)]
    pub rounds: Option<u32>,
    /// Wall time of the run, in seconds, over all its parts if it was resumed.
    pub seconds: f64,
    /// What a reader of a result on this dataset should know.
    #[serde(default)]
    pub dataset_note: Option<String>,
    /// That, and what is to be said of who holds what.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Height, width and channels of the images.
    #[serde(default)]
    pub image_shape: Option<[usize; 3]>,
    /// What is done to their bytes before the network sees them.
    #[serde(default)]
    pub pixels: Option<Pixels>,
    /// The SHA-256 of the file of weights that the run began with (`init`), in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_sha256: Option<String>,
    /// Largest resident memory of the process, in bytes, where the system tells.
    pub peak_rss_bytes: Option<u64>,
    /// By name of the strategy.
    pub algorithms: BTreeMap<String, AlgorithmSummary>,
    /// Devices that were held out of training, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_clients: Option<NewClients>,
}

impl Summary {
    /// Whether it is that of a complete run of so many rounds.
    pub fn is_complete(&self, rounds: u32) -> bool {
        let all = |a: &AlgorithmSummary| a.rounds == rounds || a.stopped_early;
        self.complete && self.rounds.map_or_else(|| self.algorithms.values().all(all), |had| had == rounds)
    }

    /// Why no algorithm came through to its last round, if none did.
    pub fn failure(&self) -> Option<String> {
        let reasons = self.algorithms.iter().map(|(name, a)| Some(format!("{name}: {}", a.ended.as_ref()?)));
        let reasons: Option<Vec<String>> = reasons.collect();
        reasons.filter(|reasons| !reasons.is_empty()).map(|reasons| reasons.join("; "))
    }
}

/// From a byte of an image to a network's input, by channel: (byte / scale - mean) / std.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pixels {
    /// What a byte is divided by first.
    pub scale: f64,
    /// What is subtracted then, of each channel.
    pub mean: Vec<f64>,
    /// What is divided by at last, of each channel.
    pub std: Vec<f64>,
}

/// Reads `summary.json` of the run in `run`.
///
/// # Errors
/// [`RecordError::File`] if there is none, [`RecordError::Foreign`] if it is not a summary.
pub fn read_summary(run: &Path) -> Result<Summary, RecordError> {
    let path = run.join(SUMMARY);
    let bytes = fs::read(&path).map_err(RecordError::file("read", &path))?;
    serde_json::from_slice(&bytes).map_err(RecordError::foreign(&path))
}

/// A line of `new_clients.jsonl`: a device that was held out of training, after some epochs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewClientRecord {
    /// What it began with: an algorithm's base under fresh personal layers (`fedper`), FedAvg's model as it is (`fedavg`)
    /// or trained on (`fedavg-ft`), or nothing (`local`).
    pub algorithm: String,
    /// Which device.
    pub device: u64,
    /// Epochs that it has trained; 0 before the first.
    pub epoch: u32,
    /// How many test samples it was evaluated on.
    pub samples: u64,
    /// Fraction classified right.
    pub accuracy: f64,
    /// Mean cross-entropy.
    pub loss: f64,
}

/// What held-out devices came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewClients {
    /// Which devices were held out.
    pub devices: Vec<u64>,
    /// Epochs that each trained.
    pub epochs: u32,
    /// `personal` or `all`: what of an algorithm's network trained. `fedavg-ft` and `local` train everything.
    pub layers: String,
    /// By what they began with, as in [`NewClientRecord::algorithm`].
    pub algorithms: BTreeMap<String, NewClientSummary>,
}

impl NewClients {
    /// What a device begins with under this name, in words.
    pub fn begins_with(&self, name: &str) -> String {
        match name {
            "fedavg" | "fedavg-ft" => "FedAvg's model".to_owned(),
            "local" => "nothing".to_owned(),
            "fedper" => "FedPer's base".to_owned(),
            other => format!("{other}'s base"),
        }
    }

    /// What of its network it trains under this name, in words.
    pub fn trains(&self, name: &str) -> &'static str {
        match (self.algorithms.get(name).map_or(0, |a| a.epochs), name) {
            (0, _) => "nothing",
            (_, "fedavg-ft" | "local") => "all layers",
            _ if self.layers == "all" => "all layers",
            _ => "personal layers",
        }
    }
}

/// What held-out devices came to from one beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewClientSummary {
    /// Epochs that a device trained: 0 for a model as it is.
    pub epochs: u32,
    /// Accuracy over those devices that did not diverge, after the last epoch.
    pub accuracy: Option<Spread>,
    /// Mean accuracy before the first epoch and after each.
    pub by_epoch: Vec<f64>,
    /// The accuracy of each device after the last epoch.
    pub devices: BTreeMap<u64, f64>,
}

impl Summary {
    /// Its notes; of an older run, that on the dataset.
    pub fn all_notes(&self) -> Vec<String> {
        if self.notes.is_empty() { self.dataset_note.iter().cloned().collect() } else { self.notes.clone() }
    }
}

/// Where one algorithm ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlgorithmSummary {
    /// Rounds run.
    pub rounds: u32,
    /// Whether it ended before the run's last round, because its accuracy had stopped rising (`patience`).
    #[serde(default)]
    pub stopped_early: bool,
    /// Why it ended before the run's last round although its accuracy was no reason to: its last round came to nothing. Its
    /// weights are those of the round before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How many devices had no test sample in the last evaluated round: they are in none of the means.
    #[serde(default)]
    pub untested: u32,
    /// Mean device accuracy of the last evaluated round.
    pub last: Option<f64>,
    /// The best mean device accuracy of any evaluated round. Chosen on test samples: an upper bound, not a result.
    pub best: Option<f64>,
    /// The round of `best`.
    pub best_round: Option<u32>,
    /// Mean of the mean device accuracy over the last ten evaluated rounds.
    pub mean_last_10: Option<f64>,
    /// Accuracy over devices at the last evaluated round.
    pub accuracy: Option<Spread>,
    /// Every evaluated device's accuracy at the last evaluated round, by device number.
    pub devices: BTreeMap<u64, f64>,
    /// Bytes of the values that went to devices to train, over all rounds.
    pub bytes_down: u64,
    /// Bytes of the values that came back from them, over all rounds.
    pub bytes_up: u64,
    /// Bytes of the messages that carried the first, over all rounds of a network. Left out of simulated runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_down: Option<u64>,
    /// Bytes of the messages that carried the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_up: Option<u64>,
    /// Wall time of its rounds, in seconds.
    pub seconds: f64,
    /// Training samples processed per second of its rounds, evaluation included.
    pub images_per_second: f64,
}
