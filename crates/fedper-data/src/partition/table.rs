//! How many samples of each class each device holds.

use serde::{Deserialize, Serialize};

use super::{Partition, Shard};
use crate::Dataset;

/// Counts of samples by device and class, for tables and pictures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTable {
    /// The names of the classes.
    pub classes: Vec<String>,
    /// Train samples, `[device][class]`.
    pub train: Vec<Vec<u32>>,
    /// Test samples, `[device][class]`.
    pub test: Vec<Vec<u32>>,
}

impl ClassTable {
    /// Counts the samples of every device. A sample that a device trains on twice counts twice.
    ///
    /// # Panics
    /// If the partition is not one of this dataset.
    pub fn new(dataset: &Dataset, partition: &Partition) -> Self {
        let count = |samples: fn(&Shard) -> &[u32]| {
            let row = |shard| {
                let mut row = vec![0; dataset.classes.len()];
                for &sample in samples(shard) {
                    row[usize::from(dataset.images.labels()[sample as usize])] += 1;
                }
                row
            };
            partition.devices.iter().map(row).collect()
        };
        Self {
            classes: dataset.classes.clone(),
            train: count(|shard| &shard.train),
            test: count(|shard| &shard.test),
        }
    }
}
