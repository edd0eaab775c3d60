//! What is not typed. `docs/defaults.md` says how these were found, and why.

use fedper_nn::Model;

use super::{EMBEDDED, Settings};

/// Defaults that depend on the dataset and on the network.
pub(super) struct Defaults {
    pub(super) clients: u64,
    /// How samples are dealt if no way is typed.
    pub(super) deal: Deal,
    /// `None` for all that there are.
    pub(super) samples_per_client: Option<usize>,
    pub(super) test_fraction: Option<f64>,
    pub(super) algorithms: &'static [&'static str],
    pub(super) rounds: u32,
    pub(super) local_epochs: u32,
    pub(super) batch_size: usize,
    pub(super) lr: f64,
    pub(super) momentum: f64,
}

/// How samples are dealt.
pub(super) enum Deal {
    /// So many classes to each device.
    Classes(usize),
    /// At random, and each device names the classes in an order of its own.
    OwnLabels,
}

/// The network of a dataset, if none is typed.
pub(super) fn model(dataset: &str) -> Model {
    if dataset == EMBEDDED { Model::Cnn } else { Model::MobilenetV1 }
}

impl Defaults {
    /// Of `dataset` with `model`.
    pub(super) fn of(dataset: &str, model: Model) -> Self {
        let (batch_size, lr, momentum) = match model {
            Model::Cnn | Model::Mlp => (10, 0.01, 0.9),
            Model::MobilenetV1 => (20, 0.05, 0.9),
            Model::Resnet34 => (20, 0.01, 0.9),
        };
        let general = Self {
            clients: 10,
            deal: Deal::Classes(3),
            samples_per_client: None,
            test_fraction: None,
            algorithms: &["fedper", "fedavg", "local"],
            rounds: 15,
            local_epochs: 1,
            batch_size,
            lr,
            momentum,
        };
        match (dataset, model) {
            // The first screen: a minute, on images that are part of the program.
            (EMBEDDED, Model::Cnn | Model::Mlp) => Self {
                clients: 60,
                deal: Deal::OwnLabels,
                samples_per_client: Some(25),
                test_fraction: Some(0.5),
                algorithms: &["fedper", "fedavg", "local", "fedavg-ft"],
                rounds: 10,
                local_epochs: 4,
                lr: 0.05,
                ..general
            },
            (EMBEDDED, _) => Self { samples_per_client: Some(200), ..general },
            _ => general,
        }
    }
}

impl Settings {
    /// Whether a whole configuration was read, as `config.toml` is: then what is not there is not to be filled in.
    pub(super) fn is_complete(&self) -> bool {
        self.seed.is_some()
            && self.rounds.is_some()
            && self.lr.is_some()
            && self.failure_rate.is_some()
            && self.eval_every.is_some()
    }
}
