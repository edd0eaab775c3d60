//! A dataset: samples, and how they come in splits or devices' folders.

use std::ops::Range;

use crate::Images;
use crate::left_out::LeftOut;

/// Images with labels, in train and test splits or in devices' folders.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What `--dataset` calls it.
    pub name: String,
    /// The names of the classes, by label.
    pub classes: Vec<String>,
    /// All samples: the train split, then the test split.
    pub images: Images,
    /// How many samples belong to the dataset's own train split; the rest is its test split.
    pub train_len: usize,
    /// The samples of each device, if the dataset comes as a folder for each device.
    pub devices: Option<Vec<DeviceFolder>>,
    /// What a reader of a result on this dataset should know.
    pub note: Option<String>,
    /// What was in the files and is not in the dataset.
    pub left_out: LeftOut,
}

/// The samples of one device's folder, in [`Dataset::images`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFolder {
    /// The folder's name.
    pub name: String,
    /// Those to train on, or all of them where the folder does not say.
    pub train: Range<u32>,
    /// Those to be tested on: part of the dataset's test split. Empty where the folder does not say.
    pub test: Range<u32>,
}
