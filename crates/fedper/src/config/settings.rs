//! What the user typed: every key is optional, and is a flag and a key of the configuration file alike.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::{Augment, BatchNorm, LrSchedule, MethodSettings, NewClientLayers, Samples};

/// The keys of a configuration, as flags and as a TOML file.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Dataset: see `fedper data list` [default: fashion-mnist-small, embedded in the program]
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dataset: Option<String>,
    /// Folder with the dataset's files [default: the cache that `fedper data fetch` fills, then system folders]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Resize images to this height and width, in pixels [default: as they are; 224 of flickr-aes]
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    pub image_size: Option<usize>,
    /// Of a folder of images, leave out those that cannot be decoded; they are named [default: refuse the folder]
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Data")]
    pub skip_broken: Option<bool>,
    /// Number of devices (N) [default: 10; 60 of the embedded dataset]
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub clients: Option<u64>,
    /// Deal this many classes to each device [default: 3; the embedded dataset is dealt with --iid --own-labels]
    #[arg(long, value_name = "K", help_heading = "Data")]
    pub classes_per_client: Option<usize>,
    /// Instead: deal each class in proportions drawn from a Dirichlet distribution
    #[arg(long, value_name = "ALPHA", help_heading = "Data")]
    pub dirichlet: Option<f64>,
    /// Instead: deal samples at random
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Data")]
    pub iid: Option<bool>,
    /// Instead: each folder of the dataset is a device [default for folders DIR/device/class]
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Data")]
    pub by_folder: Option<bool>,
    /// Training samples of each device, or all; drawn with replacement where a class has too few [default: all, or as many
    /// as a run of some minutes can train on; fewer of the embedded dataset]
    #[arg(long, value_name = "COUNT", help_heading = "Data")]
    pub samples_per_client: Option<Samples>,
    /// Let devices share images: each draws its --samples-per-client from all images of its classes [default: only where
    /// there are more devices than images to deal]
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Data")]
    pub with_replacement: Option<bool>,
    /// Each device names the classes in an order of its own, drawn from the seed, as people do whose labels differ; goes with
    /// every way of dealing
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Data")]
    pub own_labels: Option<bool>,
    /// Of flickr-aes, draw users who have rated at least so many photos; each is a device [default: 60]
    #[arg(long, value_name = "COUNT", help_heading = "Data")]
    pub min_photos: Option<usize>,
    /// ... and at most so many [default: 290]
    #[arg(long, value_name = "COUNT", help_heading = "Data")]
    pub max_photos: Option<usize>,
    /// ... and have given each score to at least so many [default: 4]
    #[arg(long, value_name = "COUNT", help_heading = "Data")]
    pub min_per_score: Option<usize>,
    /// Deal train and test images together, and let each device test on this fraction of its own [default: deal the
    /// dataset's own test images, by each device's classes; 0.2 of flickr-aes]
    #[arg(long, value_name = "FRACTION", help_heading = "Data")]
    pub test_fraction: Option<f64>,

    /// Network: resnet34, mobilenet_v1, cnn or mlp [default: mobilenet_v1; cnn for the embedded dataset]
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub model: Option<String>,
    /// First layers of resnet34 and mobilenet_v1: imagenet (stride 2), cifar (stride 1), or auto: cifar for mobilenet_v1 on
    /// images below 64 pixels, imagenet otherwise [default: auto]
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub stem: Option<String>,
    /// What convolutions compute in: fp32, or bf16, which is faster on a CPU with AMX or AVX512-BF16 and less exact
    /// [default: fp32]
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub precision: Option<String>,
    /// Start from the weights in this safetensors file, on the server and on every device
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub init: Option<PathBuf>,
    /// How many blocks, counted from the output, are personal (K_P): see `fedper model summary` [default: 1]
    #[arg(long, value_name = "K", help_heading = "Network")]
    pub personal_layers: Option<usize>,
    /// Instead: parameters whose names match are personal, such as 'fc.*' ('*' is any text)
    #[arg(long, value_name = "PATTERN,...", value_delimiter = ',', help_heading = "Network")]
    pub personal_pattern: Option<Vec<String>>,
    /// Batch-norm statistics of the base: averaged, kept on the device, reset as a round starts, or averaged and measured
    /// afresh on a device's own images before its network is tested or used [default: recalibrate]
    #[arg(long, value_name = "WAY", help_heading = "Network")]
    pub batch_norm: Option<BatchNorm>,

    /// Methods to compare: `fedper methods` lists them [default: fedper, fedavg, local; also fedavg-ft of the embedded
    /// dataset]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "Training")]
    pub algorithm: Option<Vec<String>>,
    /// Of a method, set this: `fedper methods` names what each has
    #[arg(long, value_name = "METHOD.NAME=VALUE,...", value_delimiter = ',', help_heading = "Training")]
    #[serde(skip)]
    pub set: Option<Vec<String>>,
    /// The table behind `--set`: `[method.ditto]`.
    #[arg(skip)]
    pub method: Option<MethodSettings>,
    /// Number of rounds [default: 15; 10 of the embedded dataset]
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub rounds: Option<u32>,
    /// Epochs that a device trains in a round [default: 1; 4 of the embedded dataset]
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub local_epochs: Option<u32>,
    /// Epochs that fedavg-ft fine-tunes before an evaluation [default: as local epochs]
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub finetune_epochs: Option<u32>,
    /// Samples a step [default: 10 for cnn and mlp, 20 for others]
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    pub batch_size: Option<usize>,
    /// Leave out a last batch that is not full
    #[arg(long, num_args = 0, default_missing_value = "true", help_heading = "Training")]
    pub drop_last: Option<bool>,
    /// Learning rate of SGD [default: by network and dataset, see docs/defaults.md]
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub lr: Option<f64>,
    /// Course of the learning rate over the run's rounds: constant, cosine (towards 0) or step [default: constant]
    #[arg(long, value_name = "COURSE", help_heading = "Training")]
    pub lr_schedule: Option<LrSchedule>,
    /// With --lr-schedule step: rounds from one step to the next [default: a third of all]
    #[arg(long, value_name = "ROUNDS", help_heading = "Training")]
    pub lr_step_rounds: Option<u32>,
    /// With --lr-schedule step: what the learning rate is multiplied with [default: 0.1]
    #[arg(long, value_name = "FACTOR", help_heading = "Training")]
    pub lr_step_factor: Option<f64>,
    /// Rounds in which the learning rate rises evenly to its full height, before its course begins [default: 0]
    #[arg(long, value_name = "ROUNDS", help_heading = "Training")]
    pub warmup_rounds: Option<u32>,
    /// Momentum of SGD; starts at zero in each round [default: by network, see docs/defaults.md]
    #[arg(long, value_name = "FACTOR", help_heading = "Training")]
    pub momentum: Option<f64>,
    /// L2 weight decay [default: 0]
    #[arg(long, value_name = "FACTOR", help_heading = "Training")]
    pub weight_decay: Option<f64>,
    /// Scale a step's gradient down to this global L2 norm if it exceeds it; takes the memory of a whole gradient
    /// [default: do not]
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    pub clip_norm: Option<f64>,
    /// Keep each device's samples in order
    #[arg(long, help_heading = "Training")]
    #[serde(skip)]
    pub no_shuffle: bool,
    /// The key behind `--no-shuffle`.
    #[arg(skip)]
    pub shuffle: Option<bool>,
    /// Change training images at random: crop-flip crops (4 pixels of padding) and mirrors them [default: none]
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "crop-flip", help_heading = "Training")]
    pub augment: Option<Augment>,
    /// Fraction of the devices that take part in a round (C) [default: 1]
    #[arg(long, value_name = "FRACTION", help_heading = "Training")]
    pub participation: Option<f64>,
    /// Probability that a participant fails in a round [default: 0]
    #[arg(long, value_name = "PROBABILITY", help_heading = "Training")]
    pub failure_rate: Option<f64>,
    /// Where all randomness is derived from [default: 1]
    #[arg(long, value_name = "NUMBER", help_heading = "Training")]
    pub seed: Option<u64>,

    /// Evaluate every so many rounds, and after the last [default: 1]
    #[arg(long, value_name = "ROUNDS", help_heading = "Evaluation")]
    pub eval_every: Option<u32>,
    /// Evaluate a fixed sample of so many devices instead of all
    #[arg(long, value_name = "COUNT", help_heading = "Evaluation")]
    pub eval_devices: Option<u64>,
    /// End an algorithm once its accuracy has not risen for so many rounds. It looks at test accuracy, so the last round is
    /// then chosen on test images [default: run all rounds]
    #[arg(long, value_name = "ROUNDS", help_heading = "Evaluation")]
    pub patience: Option<u32>,
    /// With --patience: a rise of the accuracy (a fraction, such as 0.002) up to this does not count [default: 0]
    #[arg(long, value_name = "DELTA", help_heading = "Evaluation")]
    pub min_delta: Option<f64>,
    /// Hold the last so many devices out of training; after it each gets the base, fresh personal layers and some epochs,
    /// and is compared with FedAvg's model and with training alone [default: none]
    #[arg(long, value_name = "COUNT", help_heading = "Evaluation")]
    pub new_clients: Option<u64>,
    /// With --new-clients: epochs that each of them trains [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = "Evaluation")]
    pub new_client_epochs: Option<u32>,
    /// With --new-clients: what each trains, its personal layers (the base stays as it is) or all [default: personal]
    #[arg(long, value_name = "WHICH", help_heading = "Evaluation")]
    pub new_client_layers: Option<NewClientLayers>,
}

impl Settings {
    /// These settings where they are given, `file`'s elsewhere. A partition given here replaces the file's, whichever
    /// kind that is; so do a cut and a learning-rate schedule.
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
        if self.no_shuffle {
            (self.no_shuffle, self.shuffle) = (false, Some(false));
        }
        // One setting that is given replaces that one of the file's.
        let mut method = file.method.take().unwrap_or_default();
        for (name, values) in self.method.take().unwrap_or_default() {
            method.entry(name).or_default().extend(values);
        }
        self.method = (!method.is_empty()).then_some(method);
        macro_rules! merge {
            ($($key:ident)*) => { Self { no_shuffle: false, $($key: self.$key.or(file.$key)),* } };
        }
        merge!(dataset data_dir image_size skip_broken clients classes_per_client dirichlet iid by_folder samples_per_client
            with_replacement own_labels min_photos max_photos min_per_score test_fraction model stem precision init personal_layers personal_pattern batch_norm algorithm rounds local_epochs
            finetune_epochs batch_size drop_last lr lr_schedule lr_step_rounds lr_step_factor warmup_rounds momentum
            weight_decay clip_norm shuffle augment participation failure_rate seed eval_every eval_devices patience
            min_delta new_clients new_client_epochs new_client_layers set method)
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
