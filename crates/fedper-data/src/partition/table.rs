//! How many samples of each class each device holds.

use serde::{Deserialize, Serialize};

use super::Partition;
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
        let rows = partition
            .shards()
            .map(|shard| (class_counts(dataset, &shard.train), class_counts(dataset, &shard.test)));
        let (train, test) = rows.unzip();
        Self { classes: dataset.classes.clone(), train, test }
    }
}

/// How many of `samples` there are of each class, by label.
///
/// # Panics
/// If a sample is not in the dataset.
pub fn class_counts(dataset: &Dataset, samples: &[u32]) -> Vec<u32> {
    let mut counts = vec![0; dataset.classes.len()];
    for &sample in samples {
        counts[usize::from(dataset.images.labels()[sample as usize])] += 1;
    }
    counts
}
