//! What the user typed. Every key is optional, and is a flag and a key of the configuration file alike.

use std::path::PathBuf;

use super::keys::Form::{List, Off, On, Optional, Set, With};
use super::keys::{Key, Range, keys};
use super::value::Value;
use super::{Augment, BatchNorm, LrSchedule, MethodSettings, NewClientLayers, Samples, wrong};
use crate::error::Error;

keys! {
    "Data" {
        /// Dataset: see `fedper data list`
        dataset: String = With("NAME"), default "fashion-mnist-small, embedded in the program";
        /// Folder with the dataset's files
        data_dir: PathBuf = With("DIR"), default "the cache that `fedper data fetch` fills, then system folders";
        /// Resize images to this height and width, in pixels
        image_size: usize = With("PIXELS"), default "as they are; 224 of flickr-aes", range Range::AT_LEAST_1;
        /// Of a folder of images, leave out those that cannot be decoded; they are named
        skip_broken: bool = On, default "refuse the folder";
        /// Number of devices (N)
        clients: u64 = With("N"), default "10; 60 of the embedded dataset", range Range::AT_LEAST_1;
        /// Deal this many classes to each device
        classes_per_client: usize = With("K"), default "3; the embedded dataset is dealt with --iid --own-labels";
        /// Instead: deal each class in proportions drawn from a Dirichlet distribution
        dirichlet: f64 = With("ALPHA"), range Range::POSITIVE;
        /// Instead: deal samples at random
        iid: bool = On;
        /// Instead: each folder of the dataset is a device [default for folders DIR/device/class]
        by_folder: bool = On;
        /// Training samples of each device, or all; drawn with replacement where a class has too few
        samples_per_client: Samples = With("COUNT"),
            default "all, or as many as a run of some minutes can train on; fewer of the embedded dataset",
            range Range::AT_LEAST_1;
        /// Let devices share images: each draws its --samples-per-client from all images of its classes
        with_replacement: bool = On, default "only where there are more devices than images to deal";
        /// Each device names the classes in an order of its own, drawn from the seed, as people do whose labels differ;
        /// goes with every way of dealing
        own_labels: bool = On;
        /// Of flickr-aes, draw users who have rated at least so many photos; each is a device
        min_photos: usize = With("COUNT"), default "60";
        /// ... and at most so many
        max_photos: usize = With("COUNT"), default "290";
        /// ... and have given each score to at least so many
        min_per_score: usize = With("COUNT"), default "4";
        /// Deal train and test images together, and let each device test on this fraction of its own
        test_fraction: f64 = With("FRACTION"),
            default "deal the dataset's own test images, by each device's classes; 0.2 of flickr-aes",
            range Range::PART;
    }
    "Network" {
        /// Network: resnet34, mobilenet_v1, cnn or mlp
        model: String = With("NAME"), default "mobilenet_v1; cnn for the embedded dataset";
        /// First layers of resnet34 and mobilenet_v1: imagenet (stride 2), cifar (stride 1), or auto: cifar for
        /// mobilenet_v1 on images below 64 pixels, imagenet otherwise
        stem: String = With("NAME"), default "auto";
        /// What normalises in resnet34 and mobilenet_v1: batch, group (of 16 channels each), or group:32 (in 32 groups)
        norm: String = With("KIND"), default "batch";
        /// What convolutions compute in: fp32, or bf16, which is faster on a CPU with AMX or AVX512-BF16 and less exact
        precision: String = With("NAME"), default "fp32";
        /// Start from the weights in this safetensors file, on the server and on every device
        init: PathBuf = With("FILE");
        /// How many blocks, counted from the output, are personal (K_P): see `fedper model summary`
        personal_layers: usize = With("K"), default "1";
        /// Instead: parameters whose names match are personal, such as 'fc.*' ('*' is any text)
        personal_pattern: Vec<String> = List("PATTERN,...");
        /// Batch-norm statistics of the base: averaged, kept on the device, reset as a round starts, or averaged and
        /// measured afresh on a device's own images before its network is tested or used
        batch_norm: BatchNorm = With("WAY"), default "recalibrate";
    }
    "Training" {
        /// Methods to compare: `fedper methods` lists them
        algorithm: Vec<String> = List("NAME,..."), default "fedper, fedavg, local; also fedavg-ft of the embedded dataset";
        /// Of a method, set this: `fedper methods NAME` says what there is; in a file, a table [method.ditto]
        method: MethodSettings = Set("METHOD.NAME=VALUE,..."), default "what the method's paper has";
        /// Number of rounds
        rounds: u32 = With("COUNT"), default "15; 10 of the embedded dataset", range Range::AT_LEAST_1;
        /// Epochs that a device trains in a round
        local_epochs: u32 = With("COUNT"), default "1; 4 of the embedded dataset", range Range::AT_LEAST_1;
        /// Epochs that fedavg-ft fine-tunes before an evaluation
        finetune_epochs: u32 = With("COUNT"), default "as local epochs", range Range::AT_LEAST_1;
        /// Samples a step
        batch_size: usize = With("COUNT"), default "10 for cnn and mlp, 20 for others", range Range::AT_LEAST_1;
        /// Leave out a last batch that is not full
        drop_last: bool = On;
        /// Learning rate of SGD
        lr: f64 = With("RATE"), default "by network and dataset, see docs/defaults.md", range Range::POSITIVE;
        /// Course of the learning rate over the run's rounds: constant, cosine (towards 0) or step
        lr_schedule: LrSchedule = With("COURSE"), default "constant";
        /// With --lr-schedule step: rounds from one step to the next
        lr_step_rounds: u32 = With("ROUNDS"), default "a third of all", range Range::AT_LEAST_1;
        /// With --lr-schedule step: what the learning rate is multiplied with
        lr_step_factor: f64 = With("FACTOR"), default "0.1", range Range::POSITIVE;
        /// Rounds in which the learning rate rises evenly to its full height, before its course begins
        warmup_rounds: u32 = With("ROUNDS"), default "0";
        /// Momentum of SGD; starts at zero in each round
        momentum: f64 = With("FACTOR"), default "by network, see docs/defaults.md", range Range::BELOW_1;
        /// L2 weight decay
        weight_decay: f64 = With("FACTOR"), default "0", range Range::NOT_NEGATIVE;
        /// Scale a step's gradient down to this global L2 norm if it exceeds it; takes the memory of a whole gradient
        clip_norm: f64 = With("NORM"), default "do not", range Range::POSITIVE;
        /// Keep each device's samples in order; in a file, shuffle = false
        shuffle: bool = Off;
        /// Change training images at random: crop-flip crops (4 pixels of padding) and mirrors them
        augment: Augment = Optional("HOW", "crop-flip"), default "none";
        /// Fraction of the devices that take part in a round (C)
        participation: f64 = With("FRACTION"), default "1", range Range::SHARE;
        /// Probability that a participant fails in a round
        failure_rate: f64 = With("PROBABILITY"), default "0", range Range::PROBABILITY;
        /// Where all randomness is derived from
        seed: u64 = With("NUMBER"), default "1";
    }
    "Evaluation" {
        /// Evaluate every so many rounds, and after the last
        eval_every: u32 = With("ROUNDS"), default "1", range Range::AT_LEAST_1;
        /// Evaluate a fixed sample of so many devices instead of all
        eval_devices: u64 = With("COUNT"), range Range::AT_LEAST_1;
        /// End an algorithm once its accuracy has not risen for so many rounds. It looks at test accuracy, so the last
        /// round is then chosen on test images
        patience: u32 = With("ROUNDS"), default "run all rounds", range Range::AT_LEAST_1;
        /// With --patience: a rise of the accuracy (a fraction, such as 0.002) up to this does not count
        min_delta: f64 = With("DELTA"), default "0", range Range::NOT_NEGATIVE;
        /// Hold the last so many devices out of training; after it each gets the base, fresh personal layers and some
        /// epochs, and is compared with FedAvg's model and with training alone
        new_clients: u64 = With("COUNT"), default "none", range Range::AT_LEAST_1;
        /// With --new-clients: epochs that each of them trains
        new_client_epochs: u32 = With("COUNT"), default "1", range Range::AT_LEAST_1;
        /// With --new-clients: what each trains, its personal layers (the base stays as it is) or all
        new_client_layers: NewClientLayers = With("WHICH"), default "personal";
    }
}

impl Settings {
    /// These settings where they are given, `file`'s elsewhere. A partition given here replaces the file's, whichever
    /// kind that is; so do a cut and a learning-rate schedule. What is set of a method replaces that setting alone.
    #[must_use]
    pub fn over(mut self, mut file: Self) -> Self {
        if !self.has_no_partition() {
            (file.classes_per_client, file.dirichlet, file.iid, file.by_folder) = (None, None, None, None);
        }
        if self.personal_layers.is_some() || self.personal_pattern.is_some() {
            (file.personal_layers, file.personal_pattern) = (None, None);
        }
        if self.lr_schedule.is_some_and(|schedule| schedule != LrSchedule::Step) {
            (file.lr_step_rounds, file.lr_step_factor) = (None, None);
        }
        // One setting that is given replaces that one of the file's.
        if let Some(ours) = self.method.take() {
            file.method.get_or_insert_default().set(ours);
        }
        self.or(file)
    }

    /// Whether every number that is given is one that its key can have.
    pub(super) fn check_ranges(&self) -> Result<(), Error> {
        for (key, number) in KEYS.iter().zip(self.numbers()) {
            if let (Some(number), Some(range)) = (number, key.range)
                && !range.contains(number)
            {
                return wrong(format!("{} is {number}: it must be {}", key.name, range.words));
            }
        }
        Ok(())
    }

    /// Whether no way of dealing the samples was chosen.
    pub fn has_no_partition(&self) -> bool {
        self.classes_per_client.is_none()
            && self.dirichlet.is_none()
            && self.iid != Some(true)
            && self.by_folder != Some(true)
    }

    /// Whether nothing at all was set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
