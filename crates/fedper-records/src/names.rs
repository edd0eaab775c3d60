//! What the files of a run directory are called. Other programs look for them by these names.

/// The complete configuration of the run.
pub const CONFIG: &str = "config.toml";
/// Who holds which samples: a [`PartitionRecord`](crate::PartitionRecord).
pub const PARTITION: &str = "partition.json";
/// A [`RoundRecord`](crate::RoundRecord) a line.
pub const ROUNDS: &str = "rounds.jsonl";
/// A [`DeviceRecord`](crate::DeviceRecord) a line.
pub const DEVICES: &str = "devices.jsonl";
/// A [`NewClientRecord`](crate::NewClientRecord) a line.
pub const NEW_CLIENTS: &str = "new_clients.jsonl";
/// Where every algorithm ended: a [`Summary`](crate::Summary).
pub const SUMMARY: &str = "summary.json";
/// The page that shows the run.
pub const REPORT: &str = "report.html";
