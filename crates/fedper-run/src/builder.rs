//! An experiment written in Rust: own samples, own shards, an own network, own methods beside the built-in ones.

mod brought;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fedper_core::strategy::Strategy;
use fedper_data::{Dataset, Partition, Scheme, Shard};
use fedper_nn::{Architecture, Network};

use self::brought::{check_names, fits, hash_of_method, own, wrong};
use crate::config::{Config, Settings};
use crate::cores;
use crate::error::Error;
use crate::experiment::{Brought, Experiment, recorded_name};
use crate::outcome::Run;
use crate::simulator::{Observer, PERSONAL_MEMORY, RunOptions};

/// Of samples in memory without a test split of their own, each device tests on this fraction of what it is dealt, unless
/// `test_fraction` says otherwise.
const TEST_FRACTION: f64 = 0.2;

/// Says what an experiment is, and runs it: see [`Experiment::builder`].
#[must_use]
pub struct Builder<'a> {
    settings: Settings,
    data: Option<Dataset>,
    shards: Option<Vec<Shard>>,
    network: Option<Architecture>,
    methods: Vec<Arc<dyn Strategy>>,
    workers: usize,
    personal_memory: u64,
    stop: Option<&'a AtomicBool>,
    observer: Option<&'a mut dyn Observer>,
}

impl Experiment {
    /// An experiment to be written in Rust. What is not said is what `fedper run` does; each of its keys can be [set by its
    /// name](Builder::set).
    ///
    /// ```
    /// use fedper_run::{Error, experiment::Experiment};
    ///
    /// let run = Experiment::builder()
    ///     .model("mlp")
    ///     .algorithm(&["fedper", "fedavg"])
    ///     .clients(4)
    ///     .rounds(2)
    ///     .set("samples_per_client", "20")?
    ///     .run()?;
    /// assert_eq!(run.rounds().len(), 4);
    /// assert!(run.device(3).accuracy().is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn builder<'a>() -> Builder<'a> {
        Builder {
            settings: Settings::default(),
            data: None,
            shards: None,
            network: None,
            methods: Vec::new(),
            workers: cores::available(),
            personal_memory: PERSONAL_MEMORY,
            stop: None,
            observer: None,
        }
    }
}

/// What belongs to the experiment.
impl Builder<'_> {
    /// Sets a key of the configuration, as it is typed on the command line (`docs/settings.md` lists them): of a list, all values
    /// with commas between them.
    ///
    /// ```
    /// use fedper_run::{Error, experiment::Experiment};
    ///
    /// let builder = Experiment::builder().set("lr", "0.05")?.set("method", "ditto.lambda=0.1")?;
    /// let error = builder.set("learning_rate", "0.05").err().unwrap();
    /// assert_eq!(error.to_string(), "there is no key `learning_rate`");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such key, or it cannot have that value.
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, Error> {
        self.settings.set(key, value).map_err(|reason| {
            Error::Config(if reason.contains(key) { reason } else { format!("{key}: {reason}") })
        })?;
        Ok(self)
    }

    /// Sets all keys that `settings` has, such as those of a file ([`crate::config::read_settings`]).
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings.over(self.settings);
        self
    }

    /// Samples in memory ([`Dataset::from_memory`]), or of a dataset that was read and changed.
    pub fn data(mut self, dataset: Dataset) -> Self {
        self.data = Some(dataset);
        self
    }

    /// Who holds what: a shard for each device.
    pub fn shards(mut self, shards: Vec<Shard>) -> Self {
        self.shards = Some(shards);
        self
    }

    /// How samples are dealt to devices, instead of [`Builder::shards`].
    pub fn partition(mut self, scheme: Scheme) -> Self {
        let s = &mut self.settings;
        (s.classes_per_client, s.dirichlet, s.iid, s.by_folder) = (None, None, None, None);
        match scheme {
            Scheme::Classes { per_device } => s.classes_per_client = Some(per_device),
            Scheme::Dirichlet { alpha } => s.dirichlet = Some(alpha),
            Scheme::Iid => s.iid = Some(true),
            Scheme::Folder => s.by_folder = Some(true),
        }
        self
    }

    /// A network of one's own ([`Architecture::from_blocks`]); its last `personal_layers` blocks are personal.
    pub fn network(mut self, architecture: Architecture) -> Self {
        self.network = Some(architecture);
        self
    }

    /// A built-in network, by name.
    pub fn model(mut self, name: &str) -> Self {
        self.settings.model = Some(name.to_owned());
        self
    }

    /// A method of one's own. Several can be compared, and built-in ones beside them ([`Builder::algorithm`]).
    pub fn method(mut self, method: impl Strategy + 'static) -> Self {
        self.methods.push(Arc::new(method));
        self
    }

    /// Built-in methods, by name; those of [`Builder::method`] follow, unless they stand among these.
    pub fn algorithm(mut self, names: &[&str]) -> Self {
        self.settings.algorithm = Some(names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// N: how many devices there are. Shards say it themselves.
    pub fn clients(mut self, count: u64) -> Self {
        self.settings.clients = Some(count);
        self
    }

    /// How many rounds.
    pub fn rounds(mut self, count: u32) -> Self {
        self.settings.rounds = Some(count);
        self
    }

    /// Epochs that a device trains in a round.
    pub fn local_epochs(mut self, count: u32) -> Self {
        self.settings.local_epochs = Some(count);
        self
    }

    /// Samples a step.
    pub fn batch_size(mut self, count: usize) -> Self {
        self.settings.batch_size = Some(count);
        self
    }

    /// The learning rate.
    pub fn lr(mut self, rate: f64) -> Self {
        self.settings.lr = Some(rate);
        self
    }

    /// Momentum of a device's SGD.
    pub fn momentum(mut self, factor: f64) -> Self {
        self.settings.momentum = Some(factor);
        self
    }

    /// C: the fraction of the devices that take part in a round.
    pub fn participation(mut self, fraction: f64) -> Self {
        self.settings.participation = Some(fraction);
        self
    }

    /// K_P: how many blocks of the network, from its output, are personal.
    pub fn personal_layers(mut self, count: usize) -> Self {
        self.settings.personal_layers = Some(count);
        self
    }

    /// What all randomness is derived from.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }
}

/// How it is run: none of this changes a result.
impl<'a> Builder<'a> {
    /// Worker threads: by default as many as there are cores.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Memory in bytes for what devices keep between rounds; the rest waits on the disk.
    pub fn personal_memory(mut self, bytes: u64) -> Self {
        self.personal_memory = bytes;
        self
    }

    /// Who is told how the run goes on.
    pub fn watch(mut self, observer: &'a mut dyn Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// What ends the run at its last checkpoint once it is set.
    pub fn stop(mut self, stop: &'a AtomicBool) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Runs it, with its files in a temporary folder that goes with what is returned.
    ///
    /// # Errors
    /// If what was said contradicts itself, no method came through, or a file cannot be written.
    pub fn run(self) -> Result<Run, Error> {
        let folder = tempfile::Builder::new()
            .prefix("fedper-")
            .tempdir()
            .map_err(Error::file("create a folder in", &std::env::temp_dir()))?;
        let path = folder.path().to_owned();
        match self.run_at(&path) {
            Ok(run) => Ok(run.with(folder)),
            Err(Error::Interrupted(_)) => Err(Error::Stopped(
                "interrupted: nothing is left of a run without a directory (run_in keeps its checkpoint)"
                    .into(),
            )),
            Err(error) => Err(error),
        }
    }

    /// Runs it in a run directory: a new or empty one, or one in which the same experiment was begun, which then goes on, or
    /// was run to its end, whose results are then read.
    ///
    /// # Errors
    /// As [`Builder::run`]; if another experiment was begun there.
    pub fn run_in(self, directory: impl AsRef<Path>) -> Result<Run, Error> {
        match self.run_at(directory.as_ref()) {
            Err(Error::Interrupted(path)) => Err(Error::Stopped(format!(
                "interrupted after a checkpoint; run the same program again to go on in {}",
                path.display()
            ))),
            run => run,
        }
    }

    fn run_at(mut self, path: &Path) -> Result<Run, Error> {
        struct Silent;
        impl Observer for Silent {}
        let (mut silent, never) = (Silent, AtomicBool::new(false));
        if self.workers == 0 {
            return Err(Error::Config("workers is 0: it must be at least 1".into()));
        }
        let options = RunOptions {
            workers: self.workers,
            personal_memory: self.personal_memory,
            stop: self.stop.unwrap_or(&never),
        };
        let observer = self.observer.take();
        let experiment = self.build()?;
        Run::to_the_end(experiment, path, &options, observer.unwrap_or(&mut silent))
    }

    /// The experiment, for [`crate::simulator::run`].
    ///
    /// # Errors
    /// If what was said contradicts itself or the data, or a file cannot be read.
    pub fn build(self) -> Result<Experiment, Error> {
        let Self { mut settings, data, shards, network, methods, .. } = self;
        settings.check_nothing_own()?;
        check_names(&methods)?;
        settings.own = Some(own(data.as_ref(), shards.as_deref(), network.as_ref(), &methods)?);
        if let Some(data) = &data {
            settings.dataset = Some(recorded_name(data));
            let untested = data.train_len == data.images.len() && data.devices.is_none();
            if untested && shards.is_none() {
                settings.test_fraction.get_or_insert(TEST_FRACTION);
            }
        }
        if !methods.is_empty() {
            let names = settings.algorithm.get_or_insert_default();
            for method in &methods {
                if !names.iter().any(|name| name == method.name()) {
                    names.push(method.name().to_owned());
                }
            }
        }
        if let Some(shards) = &shards {
            let count = shards.len() as u64;
            if settings.clients.is_some_and(|clients| clients != count) {
                return wrong(format!("there are {count} shards: leave clients out, or give it as {count}"));
            }
            // None at all is refused with the shards.
            settings.clients = Some(count.max(1));
        }
        let config = Config::resolve(&settings)?;
        let known = data.is_none() && shards.is_none() && network.is_none();
        let dataset = match data {
            Some(data) => data,
            None => fedper_data::load(&config.dataset, config.data_dir.as_deref(), &config.load_options())?,
        };
        if let Some(network) = &network {
            fits(network, &dataset)?;
        }
        let partition = shards.map(|shards| Partition::given(&dataset, shards)).transpose()?;
        let brought = Brought { partition, network, methods: methods.clone() };
        let make = if known { Experiment::affordable } else { Experiment::resolved };
        let mut experiment = make(&settings, dataset, brought)?;
        for method in &methods {
            let hash = hash_of_method(&experiment, &**method)?;
            let entry = experiment.config.own.methods.get_mut(method.name());
            entry.expect("noted before").sha256 = hash;
        }
        Network::fits(&experiment.architecture, experiment.config.batch_size)?;
        Ok(experiment)
    }
}
