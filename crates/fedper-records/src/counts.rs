//! What a reader needs of `partition.json`: classes and counts, without the samples, which may be many.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::RecordError;
use crate::names::PARTITION;

/// `partition.json` without its sample indices: how many training samples of each class each device holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// Name of the dataset.
    pub dataset: String,
    /// Names of the classes, by label.
    pub classes: Vec<String>,
    /// Every device's counts.
    pub devices: Vec<DeviceCounts>,
}

/// One device's training samples by label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// Which device.
    pub device: u64,
    /// Training samples of each class, by label.
    pub train_classes: Vec<u32>,
}

/// The names of the classes in the run directory `run`, by label.
///
/// # Errors
/// [`RecordError::File`] if there is no partition, [`RecordError::Foreign`] if the file is none.
pub fn read_classes(run: &Path) -> Result<Vec<String>, RecordError> {
    #[derive(Deserialize)]
    struct Classes {
        classes: Vec<String>,
    }
    let path = run.join(PARTITION);
    let file = File::open(&path).map_err(RecordError::file("read", &path))?;
    let read: Classes = serde_json::from_reader(BufReader::new(file)).map_err(RecordError::foreign(&path))?;
    Ok(read.classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{DevicePartition, PartitionRecord};

    fn partition() -> PartitionRecord {
        let device = |device, train: Vec<u32>, train_classes| DevicePartition {
            device,
            train,
            test: vec![9],
            train_classes,
            test_classes: vec![0, 1],
            labels: None,
        };
        PartitionRecord {
            dataset: "mnist".into(),
            classes: vec!["zero".into(), "one".into()],
            devices: vec![device(0, vec![1, 4], vec![2, 0]), device(1, vec![5], vec![0, 1])],
        }
    }

    #[test]
    fn counts_are_read_from_a_whole_partition() {
        let json = serde_json::to_string(&partition()).unwrap();
        let counts: ClassCounts = serde_json::from_str(&json).unwrap();
        assert_eq!((counts.dataset.as_str(), counts.classes.len()), ("mnist", 2));
        let device = |device, train_classes| DeviceCounts { device, train_classes };
        assert_eq!(counts.devices, [device(0, vec![2, 0]), device(1, vec![0, 1])]);
    }

    #[test]
    fn the_classes_of_a_run_or_the_file_that_has_none() {
        let run = tempfile::tempdir().unwrap();
        let missing = read_classes(run.path()).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read ") && missing.contains(PARTITION), "{missing}");
        std::fs::write(run.path().join(PARTITION), serde_json::to_vec(&partition()).unwrap()).unwrap();
        assert_eq!(read_classes(run.path()).unwrap(), ["zero", "one"]);
        std::fs::write(run.path().join(PARTITION), "{}").unwrap();
        let foreign = read_classes(run.path()).unwrap_err().to_string();
        assert!(foreign.contains("partition.json: missing field `classes`"), "{foreign}");
    }
}
