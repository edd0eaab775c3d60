//! Configuration: [`Settings`] is what the user typed, on the command line or in a file; [`Config`] is what was made and
//! validated of it. Only a `Config` runs.

mod choices;
mod command;
mod defaults;
mod keys;
mod methods;
mod own;
mod raters;
mod samples;
mod settings;
mod training;
mod value;

use std::path::{Path, PathBuf};

use fedper_data::{Dataset, Scheme, TestSplit};
use fedper_nn::{Architecture, InputShape, Model, NnError, Norm, Precision, Stem};
use serde::Serialize;

pub use self::choices::{Augment, BatchNorm, LrSchedule, NewClientLayers};
use self::defaults::{Deal, Defaults};
pub use self::keys::{Form, Key, Range};
pub use self::methods::MethodSettings;
pub use self::own::{Own, OwnMethod};
use self::raters::Rated;
pub use self::samples::Samples;
pub use self::settings::{KEYS, Settings};
pub use self::value::{Value, Word};
use crate::error::Error;

/// The complete configuration of a run: `config.toml`. Its keys are those of [`Settings`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Where all randomness is derived from.
    pub seed: u64,
    /// Name of the dataset.
    pub dataset: String,
    /// Where its files are, if not in the usual places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Height and width that images are resized to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Whether broken images of a folder are left out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_broken: bool,
    /// Name of the network.
    #[serde(serialize_with = "as_text")]
    pub model: Model,
    /// Its first layers.
    #[serde(serialize_with = "as_text")]
    pub stem: Stem,
    /// What normalises in it.
    #[serde(serialize_with = "as_text")]
    pub norm: Norm,
    /// What its convolutions compute in.
    #[serde(serialize_with = "as_text")]
    pub precision: Precision,
    /// Weights to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// The methods to compare, in this order.
    pub algorithm: Vec<String>,
    /// K_P: how many blocks, from the output end, are personal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal_layers: Option<usize>,
    /// Personal parameters by name pattern, instead of K_P.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal_pattern: Option<Vec<String>>,
    /// What happens to the batch-norm statistics of the base.
    pub batch_norm: BatchNorm,
    /// N: number of devices.
    pub clients: u64,
    /// Deal this many classes to each device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes_per_client: Option<usize>,
    /// Deal each class by Dirichlet(alpha) proportions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirichlet: Option<f64>,
    /// Deal at random.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub iid: bool,
    /// Each folder is a device.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_folder: bool,
    /// Training samples of each device, if not all that there are.
    #[serde(serialize_with = "samples::written")]
    pub samples_per_client: Option<usize>,
    /// Each device draws its samples from all of its classes', whatever other devices hold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_replacement: bool,
    /// Each device names the classes in an order of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_labels: bool,
    /// Of a dataset of ratings, the fewest photos that a drawn user has rated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_photos: Option<usize>,
    /// The most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_photos: Option<usize>,
    /// The fewest that it has given each score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_per_score: Option<usize>,
    /// The fraction of its own samples that a device keeps for testing; the dataset's own test split if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// Number of rounds.
    pub rounds: u32,
    /// Epochs of local training a round.
    pub local_epochs: u32,
    /// Epochs that `fedavg-ft` fine-tunes before an evaluation.
    pub finetune_epochs: u32,
    /// Samples a step.
    pub batch_size: usize,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// Learning rate.
    pub lr: f64,
    /// How the learning rate changes over the rounds.
    pub lr_schedule: LrSchedule,
    /// Rounds from one step of the learning rate to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_step_rounds: Option<u32>,
    /// What the learning rate is multiplied with at a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_step_factor: Option<f64>,
    /// Rounds in which the learning rate rises to its full height.
    pub warmup_rounds: u32,
    /// Momentum of SGD.
    pub momentum: f64,
    /// L2 weight decay.
    pub weight_decay: f64,
    /// The global L2 norm that a step's gradient is scaled down to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Whether a device's samples are shuffled in each epoch.
    pub shuffle: bool,
    /// What is done to training images at random.
    pub augment: Augment,
    /// C: fraction of the devices in a round.
    pub participation: f64,
    /// Probability that a device fails in a round.
    pub failure_rate: f64,
    /// Evaluate every so many rounds.
    pub eval_every: u32,
    /// Evaluate a sample of so many devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_devices: Option<u64>,
    /// End an algorithm so many rounds after its accuracy last rose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// What does not count as a rise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_delta: Option<f64>,
    /// How many devices, the last ones, are held out of training and get what it led to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_clients: Option<u64>,
    /// Epochs that such a device trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_client_epochs: Option<u32>,
    /// What of its network it trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_client_layers: Option<NewClientLayers>,
    /// What is set of each method.
    #[serde(skip_serializing_if = "MethodSettings::is_empty")]
    pub method: MethodSettings,
    /// What the program brought along that runs it.
    #[serde(skip_serializing_if = "Own::is_empty")]
    pub own: Own,
}

/// The dataset that is part of the program.
const EMBEDDED: &str = "fashion-mnist-small";

/// What `stem` is to be resolved from the images' size.
pub const AUTO: &str = "auto";

/// The first layers for images of `side` pixels. Small images leave a MobileNet that begins with a stride of 2 next to
/// nothing; ResNet-34 has a long way to go on them, and its small stem costs 15 times as much.
pub(crate) fn auto_stem(model: Model, side: usize) -> Stem {
    if model == Model::MobilenetV1 && side < 64 { Stem::Cifar } else { Stem::Imagenet }
}

fn as_text<S: serde::Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn wrong<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::Config(message.into()))
}

impl Config {
    /// The built-in network that it names, for such images.
    ///
    /// # Errors
    /// If they are too small for it, or it has nothing to normalise as it is asked to.
    pub fn architecture(&self, input: InputShape, classes: usize) -> Result<Architecture, NnError> {
        Architecture::with_norm(self.model, self.stem, self.norm, input, classes)
    }

    /// Fills in the defaults and checks everything that can be checked without the data.
    ///
    /// # Errors
    /// [`Error::Config`] with what is wrong and what to do.
    pub fn resolve(settings: &Settings) -> Result<Self, Error> {
        let mut s = settings.clone();
        let own = s.own.take().unwrap_or_default();
        own.check(settings)?;
        let dealt = own.shards.is_none();
        let dataset = s.dataset.take().unwrap_or_else(|| EMBEDDED.into());
        // Of a network that is not known, the defaults of a small one are as good as any.
        let model = if own.network.is_some() { Model::Cnn } else { defaults::model(&dataset) };
        let model = s.model.as_deref().map(parse).transpose()?.unwrap_or(model);
        let default = Defaults::of(&dataset, model);
        let stem = match &s.stem {
            Some(stem) if stem != AUTO => parse(stem)?,
            _ => auto_stem(model, s.image_size.unwrap_or(usize::MAX)),
        };
        let schemes = [
            s.classes_per_client.is_some(),
            s.dirichlet.is_some(),
            s.iid == Some(true),
            s.by_folder == Some(true),
        ];
        let chosen = schemes.iter().filter(|&&set| set).count();
        if chosen > 1 {
            return wrong(
                "classes_per_client, dirichlet, iid and by_folder contradict each other: give one of them",
            );
        }
        if s.personal_layers.is_some() && s.personal_pattern.is_some() {
            return wrong("personal_layers and personal_pattern contradict each other: give one of them");
        }
        // What belongs to a way of dealing is not mixed with another that is typed.
        let own_labels = dealt && chosen == 0 && matches!(default.deal, Deal::OwnLabels);
        let test_fraction = default.test_fraction.filter(|_| own_labels);
        training::check_pairs(settings)?;
        let default_algorithms = || default.algorithms.iter().map(|&name| name.to_owned()).collect();
        let algorithm: Vec<String> = s.algorithm.take().unwrap_or_else(default_algorithms);
        settings.check_ranges()?;
        let rated = Rated::defaults(&dataset);
        let config = Self {
            seed: s.seed.unwrap_or(1),
            samples_per_client: s
                .samples_per_client
                .map_or(default.samples_per_client.filter(|_| dealt), Samples::count),
            dataset,
            data_dir: s.data_dir.map(absolute),
            image_size: s.image_size.or(rated.image_size),
            skip_broken: s.skip_broken.unwrap_or(false),
            model,
            stem,
            norm: parse(s.norm.as_deref().unwrap_or("batch"))?,
            precision: parse(s.precision.as_deref().unwrap_or("fp32"))?,
            init: s.init.map(absolute),
            momentum: training::momentum(settings, &algorithm, &own, default.momentum)?,
            method: methods::resolve(settings, &algorithm)?,
            algorithm,
            personal_layers: match s.personal_pattern {
                Some(_) => None,
                None => Some(s.personal_layers.unwrap_or(1)),
            },
            personal_pattern: s.personal_pattern,
            batch_norm: s.batch_norm.unwrap_or(BatchNorm::Recalibrate),
            clients: s.clients.unwrap_or(default.clients),
            classes_per_client: match default.deal {
                Deal::Classes(count) if dealt && chosen == 0 => Some(count),
                _ => s.classes_per_client,
            },
            dirichlet: s.dirichlet,
            iid: s.iid.unwrap_or(own_labels),
            by_folder: s.by_folder.unwrap_or(false),
            with_replacement: s.with_replacement.unwrap_or(false),
            own_labels: s.own_labels.unwrap_or(own_labels),
            min_photos: s.min_photos.or(rated.min_photos),
            max_photos: s.max_photos.or(rated.max_photos),
            min_per_score: s.min_per_score.or(rated.min_per_score),
            test_fraction: s.test_fraction.or(rated.test_fraction).or(test_fraction).filter(|_| dealt),
            rounds: s.rounds.unwrap_or(default.rounds),
            local_epochs: s.local_epochs.unwrap_or(default.local_epochs),
            finetune_epochs: s.finetune_epochs.or(s.local_epochs).unwrap_or(default.local_epochs),
            batch_size: s.batch_size.unwrap_or(default.batch_size),
            drop_last: s.drop_last.unwrap_or(false),
            lr: s.lr.unwrap_or(default.lr),
            lr_schedule: s.lr_schedule.unwrap_or(LrSchedule::Constant),
            lr_step_rounds: training::step_rounds(settings, default.rounds),
            lr_step_factor: training::step_factor(settings),
            warmup_rounds: s.warmup_rounds.unwrap_or(0),
            weight_decay: s.weight_decay.unwrap_or(0.0),
            clip_norm: s.clip_norm,
            shuffle: s.shuffle.unwrap_or(true),
            augment: s.augment.unwrap_or(Augment::None),
            participation: s.participation.unwrap_or(1.0),
            failure_rate: s.failure_rate.unwrap_or(0.0),
            eval_every: s.eval_every.unwrap_or(1),
            eval_devices: s.eval_devices,
            patience: s.patience,
            min_delta: s.patience.map(|_| s.min_delta.unwrap_or(0.0)),
            new_clients: s.new_clients,
            new_client_epochs: s.new_clients.map(|_| s.new_client_epochs.unwrap_or(1)),
            new_client_layers: s
                .new_clients
                .map(|_| s.new_client_layers.unwrap_or(NewClientLayers::Personal)),
            own,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        if self.algorithm.is_empty() {
            return wrong("algorithm is empty: give at least one, such as --algorithm fedper,fedavg");
        }
        for (i, name) in self.algorithm.iter().enumerate() {
            if self.method(name).is_none() && !self.own.methods.contains_key(name) {
                return wrong(format!("there is no algorithm `{name}`; there are {}", methods::names()));
            }
            if self.algorithm[..i].contains(name) {
                return wrong(format!("algorithm `{name}` is given twice"));
            }
        }
        self.check_raters()?;
        if self.skip_broken && self.dataset != "folder" {
            return wrong(format!(
                "skip_broken is for the dataset folder, and the dataset is {}: leave it out",
                self.dataset
            ));
        }
        self.check_training()
    }

    /// Takes over what only the data tell: the stem that suits their size, and a dataset in devices' folders is dealt by
    /// folder unless another partition was asked for.
    pub(crate) fn adapt(&mut self, settings: &Settings, dataset: &Dataset) {
        if settings.stem.as_deref().is_none_or(|stem| stem == AUTO) {
            self.stem = auto_stem(self.model, dataset.images.height.min(dataset.images.width));
        }
        if let (Some(folders), None) = (&dataset.devices, &self.own.shards) {
            if settings.has_no_partition() {
                self.by_folder = true;
                self.classes_per_client = None;
            }
            if self.by_folder && settings.clients.is_none() {
                self.clients = folders.len() as u64;
            }
        }
    }

    /// How the samples are dealt.
    pub fn scheme(&self) -> Scheme {
        match (self.classes_per_client, self.dirichlet) {
            (Some(per_device), _) => Scheme::Classes { per_device },
            (_, Some(alpha)) => Scheme::Dirichlet { alpha },
            _ if self.by_folder => Scheme::Folder,
            _ => Scheme::Iid,
        }
    }

    /// Where test samples come from.
    pub fn test_split(&self) -> TestSplit {
        self.test_fraction.map_or(TestSplit::Own, TestSplit::Fraction)
    }

    /// The text of `config.toml`.
    pub fn to_toml(&self) -> String {
        self.without_replaced(toml::to_string(self).expect("a configuration is a flat table"))
    }
}

fn parse<T: std::str::FromStr<Err = fedper_nn::NnError>>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|error: fedper_nn::NnError| Error::Config(error.to_string()))
}

/// A path that means the same when the run is repeated from elsewhere.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Reads a configuration file.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Config`] if it is not a configuration.
pub fn read_settings(path: &Path) -> Result<Settings, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let mut settings: Settings = toml::from_str(&text).map_err(|error| {
        let message = error.message();
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        Error::Config(format!("{}, line {line}: {message}", path.display()))
    })?;
    // A run's own configuration says everything; older ones said that all samples are dealt by saying nothing.
    if settings.is_complete() && settings.samples_per_client.is_none() {
        settings.samples_per_client = Some(Samples::All);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests;
