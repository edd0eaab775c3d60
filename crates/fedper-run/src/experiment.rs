//! An experiment ready to run: a validated configuration with its data, partition, network and initial weights.

mod weights;

use std::collections::BTreeMap;
use std::sync::Arc;

use fedper_core::coordinator::Plan;
use fedper_core::params::{Layout, Params};
use fedper_core::parts::{Begin, Parts};
use fedper_core::round::DeviceId;
use fedper_core::seed::{self, Purpose, SERVER};
use fedper_core::split::{Kept, Shared, Split};
use fedper_core::strategy::Strategy;
use fedper_data::{Dataset, Partition, PartitionOptions};
use fedper_nn::{Architecture, InputShape};

use self::weights::check_init;
pub(crate) use self::weights::read_hashed_weights;
pub use self::weights::read_weights;
use crate::config::{BatchNorm, Config, Settings};
use crate::cost;
use crate::error::Error;

/// Everything that a run needs and that does not change while it runs.
pub struct Experiment {
    /// The configuration, complete.
    pub config: Config,
    /// All images.
    pub dataset: Dataset,
    /// Who holds which.
    pub partition: Partition,
    /// The network, as data.
    pub architecture: Architecture,
    /// Its parameters.
    pub layout: Arc<Layout>,
    /// The cut that the configuration asks for.
    pub cut: Split,
    /// Devices with too few samples to train this network on, ascending: they take no part.
    pub left_out: Vec<u64>,
    /// Parameters to start from instead of random ones, on the server and on every device.
    init: Option<Params>,
    /// What was decided about how much is dealt.
    dealt: Option<String>,
    /// What was decided about momentum.
    momentum: Option<String>,
    /// The SHA-256 of the file that they are from.
    pub init_sha256: Option<String>,
    /// The same for one device, or the server, alone.
    own_init: BTreeMap<u64, Params>,
    /// Methods that the program brought along.
    methods: Vec<Arc<dyn Strategy>>,
}

/// What a program brings along for an experiment, checked; what is not here, the configuration says.
#[derive(Default)]
pub(crate) struct Brought {
    pub(crate) partition: Option<Partition>,
    pub(crate) network: Option<Architecture>,
    pub(crate) methods: Vec<Arc<dyn Strategy>>,
}

impl Experiment {
    /// Loads the data, deals them and builds the network.
    ///
    /// # Errors
    /// If the configuration contradicts itself or the data, or a file cannot be read.
    pub fn prepare(settings: &Settings) -> Result<Self, Error> {
        Self::prepare_watched(settings, &mut |_, _| ())
    }

    /// The same; `progress` is called with how many photos are decoded and how many there are to decode, if the dataset has
    /// such.
    ///
    /// # Errors
    /// As [`Experiment::prepare`].
    pub fn prepare_watched(
        settings: &Settings,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, Error> {
        settings.check_nothing_own()?;
        let config = Config::resolve(settings)?;
        let dir = config.data_dir.as_deref();
        let dataset = fedper_data::load_watched(&config.dataset, dir, &config.load_options(), progress)?;
        Self::affordable(settings, dataset, Brought::default())
    }

    /// The same with samples that are already in memory. The run is recorded under the dataset's own name, whatever the
    /// settings call it; of the defaults of other datasets, none applies.
    ///
    /// # Errors
    /// If the configuration contradicts itself or the data, or a file cannot be read.
    pub fn with_dataset(settings: &Settings, dataset: Dataset) -> Result<Self, Error> {
        settings.check_nothing_own()?;
        let settings = Settings { dataset: Some(recorded_name(&dataset)), ..settings.clone() };
        Self::resolved(&settings, dataset, Brought::default())
    }

    /// As `settings` say; where they say nothing of how much is dealt, and all would take too long, with less.
    pub(crate) fn affordable(settings: &Settings, dataset: Dataset, brought: Brought) -> Result<Self, Error> {
        let Some((samples, note)) = cost::fewer_samples(settings, &dataset)? else {
            return Self::resolved(settings, dataset, brought);
        };
        let settings = Settings { samples_per_client: Some(samples), ..settings.clone() };
        Ok(Self { dealt: Some(note), ..Self::resolved(&settings, dataset, brought)? })
    }

    /// As `settings` say.
    pub(crate) fn resolved(settings: &Settings, dataset: Dataset, brought: Brought) -> Result<Self, Error> {
        let mut config = Config::resolve(settings)?;
        config.adapt(settings, &dataset);
        config.check_new_clients()?;
        let momentum = config.momentum_note(settings);
        let partition = match brought.partition {
            Some(partition) => partition,
            None => dealt(&config, &dataset)?,
        };
        let architecture = match brought.network {
            Some(network) => network,
            None => architecture(&config, &dataset)?,
        };
        let layout = architecture.layout();
        let cut = cut(&config, &architecture, &layout)?;
        let left_out = left_out(&config, &architecture, &partition)?;
        let (init, init_sha256) = config.init.as_deref().map(read_hashed_weights).transpose()?.unzip();
        if let (Some(init), Some(path)) = (&init, &config.init) {
            check_init(init, &layout, path)?;
        }
        Ok(Self {
            config,
            dataset,
            partition,
            architecture,
            layout,
            cut,
            left_out,
            init,
            init_sha256,
            dealt: None,
            momentum,
            own_init: BTreeMap::new(),
            methods: brought.methods,
        })
    }

    /// The method called `name`, as it is set; `None` if there is none.
    pub fn method(&self, name: &str) -> Option<Arc<dyn Strategy>> {
        let own = self.methods.iter().find(|method| method.name() == name);
        own.cloned().or_else(|| self.config.method(name))
    }

    /// The run's methods, in order.
    pub fn methods(&self) -> Vec<Arc<dyn Strategy>> {
        self.config.algorithm.iter().filter_map(|name| self.method(name)).collect()
    }

    /// Starts `owner` (a device's number, or [`SERVER`]) from these values, as far as they are its own to start from.
    ///
    /// # Errors
    /// [`Error::Config`] if they are those of another network.
    pub fn start_from(&mut self, owner: u64, params: Params) -> Result<(), Error> {
        if *params.layout() != self.layout {
            return Err(Error::Config("initial weights of another network".into()));
        }
        self.own_init.insert(owner, params);
        Ok(())
    }

    /// What a reader of the results should know of the data and of who holds them.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.dataset.note.iter().cloned().collect();
        notes.extend(self.dealt.clone());
        notes.extend(self.momentum.clone());
        notes.extend(self.partition.note().map(str::to_owned));
        if !self.left_out.is_empty() {
            let folders = self.dataset.devices.as_ref().filter(|_| self.config.by_folder);
            let name = |&device: &u64| match folders.and_then(|folders| folders.get(device as usize)) {
                Some(folder) => format!("`{}`", folder.name),
                None => device.to_string(),
            };
            const NAMED: usize = 10;
            let mut names: Vec<String> = self.left_out.iter().take(NAMED).map(name).collect();
            if self.left_out.len() > NAMED {
                names.push(format!("and {} more", self.left_out.len() - NAMED));
            }
            notes.push(format!(
                "left out, as they have a single training image and batch norm needs two: device{} {}",
                if self.left_out.len() == 1 { "" } else { "s" },
                names.join(", ")
            ));
        }
        notes
    }

    /// What `strategy` sends and keeps, with the batch-norm statistics where the configuration wants them.
    pub fn parts(&self, strategy: &dyn Strategy) -> Parts {
        parts(&self.config, strategy, &self.cut)
    }

    /// Its rounds: each waits for all of its devices.
    pub fn plan(&self) -> Plan {
        let config = &self.config;
        let devices = config.training_clients();
        Plan {
            devices,
            left_out: self.left_out.iter().copied().take_while(|&device| device < devices).collect(),
            rounds: config.rounds,
            participation: config.participation,
            seed: config.seed,
            eval_every: config.eval_every,
            eval_devices: config.eval_devices,
            round_timeout: None,
            min_answers: 0,
        }
    }

    /// A device's own number for each of the dataset's classes, where devices have such ([`Config::own_labels`]): a
    /// permutation that follows from the seed and the device's number.
    pub(crate) fn own_order(&self, device: DeviceId) -> Option<Vec<u32>> {
        own_order(&self.config, self.dataset.classes.len(), device)
    }

    /// The names of the classes in the order of `device`'s outputs.
    pub fn class_names(&self, device: DeviceId) -> Vec<String> {
        named_in(self.own_order(device), &self.dataset.classes)
    }

    /// What the server begins with. The same for every cut, as far as their bases overlap: each parameter has a random
    /// sequence of its own.
    pub fn initial_state(&self, parts: &Parts) -> Shared {
        let state = parts.server.begin(|layout, _| self.initial(layout, SERVER), None);
        parts.adopt_state(state).expect("made with the state's own layout")
    }

    /// What a device keeps before it has trained; that follows from the seed, the device's number and, where a method wants
    /// it so, what it has `received` first.
    pub fn initial_kept(&self, parts: &Parts, device: DeviceId, received: &Shared) -> Kept {
        initial_kept(parts, received, |layout, begin| {
            self.initial(layout, if begin == Begin::Common { SERVER } else { device.0 })
        })
    }

    fn initial(&self, layout: &Arc<Layout>, owner: u64) -> Params {
        let given = self.init.iter().chain(self.own_init.get(&owner));
        initial(&self.architecture, layout, self.config.seed, owner, given)
    }
}

/// The name that a run is recorded under. A dataset that this program reads may say more behind its name:
/// `flickr-aes (made)`.
pub(crate) fn recorded_name(dataset: &Dataset) -> String {
    let name = dataset.name.split(" (").next().unwrap_or_default();
    let known = fedper_data::catalogue().iter().any(|info| info.name == name);
    (if known { name } else { &dataset.name }).to_owned()
}

/// The samples of each device, as the configuration has them dealt.
fn dealt(config: &Config, dataset: &Dataset) -> Result<Partition, Error> {
    let devices =
        usize::try_from(config.clients).map_err(|_| Error::Config("clients is too large".into()))?;
    let options = PartitionOptions {
        scheme: config.scheme(),
        devices,
        samples_per_device: config.samples_per_client,
        with_replacement: config.with_replacement,
        test: config.test_split(),
        seed: config.seed,
    };
    Ok(fedper_data::partition(dataset, &options)?)
}

/// What `strategy` sends and keeps of a network that is cut as the configuration asks for.
pub fn parts(config: &Config, strategy: &dyn Strategy, cut: &Split) -> Parts {
    let parts = strategy.parts(cut);
    match config.batch_norm {
        BatchNorm::Local => {
            let split = parts.split.with_personal_buffers();
            parts.cut(split)
        }
        BatchNorm::Average | BatchNorm::Reset | BatchNorm::Recalibrate => parts,
    }
}

/// See [`Experiment::initial_kept`].
pub fn initial_kept(parts: &Parts, received: &Shared, drawn: impl Fn(&Arc<Layout>, Begin) -> Params) -> Kept {
    let network = parts.kept.begins_received().then(|| {
        let own = drawn(parts.split.personal(), Begin::Drawn);
        let model = parts.model_of(received);
        parts.split.join_params(&model, &own)
    });
    let kept = parts.kept.begin(drawn, network.as_ref());
    parts.adopt_kept(kept).expect("made with the kept layout")
}

/// What `owner` (a device's number, or [`SERVER`]) begins with in `layout`, a part of the network's: drawn from the seed, but
/// for what is `given`.
pub fn initial<'a>(
    architecture: &Architecture,
    layout: &Arc<Layout>,
    seed: u64,
    owner: u64,
    given: impl Iterator<Item = &'a Params>,
) -> Params {
    let mut params = Params::zeros(layout.clone());
    architecture.init_where(&mut params, |_| true, |name| seed::named(seed, Purpose::Init, owner, 0, name));
    for (spec, values) in given.flat_map(Params::iter) {
        if let Some(position) = layout.position(&spec.name) {
            params.at_mut(position).copy_from_slice(values);
        }
    }
    params
}

/// The network for these images.
///
/// # Errors
/// If they are too small for it.
pub fn architecture(config: &Config, dataset: &Dataset) -> Result<Architecture, Error> {
    let images = &dataset.images;
    let input = InputShape { channels: images.channels, height: images.height, width: images.width };
    Ok(config.architecture(input, dataset.classes.len())?)
}

/// The cut that the configuration asks for.
///
/// # Errors
/// If K_P exceeds the network, or a pattern matches nothing.
pub fn cut(config: &Config, architecture: &Architecture, layout: &Arc<Layout>) -> Result<Split, Error> {
    match (&config.personal_pattern, config.personal_layers) {
        (Some(patterns), _) => Split::by_patterns(layout, patterns).map_err(|error| {
            Error::Config(match config.own.network {
                Some(_) => format!("personal_pattern: {error}"),
                None => format!(
                    "personal_pattern: {error}; see `fedper model summary --model {} --parameters`",
                    config.model
                ),
            })
        }),
        (None, k_p) => {
            let names = architecture.personal_names(k_p.unwrap_or(0))?;
            Ok(Split::by_names(layout, &names).expect("the network names its own parameters"))
        }
    }
}

/// See [`Experiment::own_order`].
pub(crate) fn own_order(config: &Config, classes: usize, device: DeviceId) -> Option<Vec<u32>> {
    config.own_labels.then(|| {
        let mut order: Vec<u32> = (0..classes as u32).collect();
        seed::shuffle(&mut seed::derive(config.seed, Purpose::Labels, device.0, 0), &mut order);
        order
    })
}

/// The names of `classes`, sorted by the numbers that `order` gives them.
pub(crate) fn named_in(order: Option<Vec<u32>>, classes: &[String]) -> Vec<String> {
    let mut names = classes.to_vec();
    for (name, number) in classes.iter().zip(order.into_iter().flatten()) {
        names[number as usize].clone_from(name);
    }
    names
}

/// The devices that cannot train this network: PyTorch refuses a training batch that gives batch norm a single value per
/// channel, and so does the engine.
fn left_out(config: &Config, architecture: &Architecture, partition: &Partition) -> Result<Vec<u64>, Error> {
    let fewest = architecture.min_train_batch();
    if config.batch_size < fewest {
        return Err(Error::Config(format!(
            "batch_size is {}: {}'s batch norm needs {fewest} samples a step; give --batch-size {fewest} or more, or a \
             network without batch norm, such as --model cnn",
            config.batch_size, architecture.name
        )));
    }
    let left_out: Vec<u64> =
        (0..partition.len()).filter(|&d| partition.train_len(d) < fewest).map(|d| d as u64).collect();
    let train = config.training_clients();
    if let ([0], 1) = (&left_out[..], partition.len()) {
        return Err(Error::Config(format!(
            "device 0 has 1 training sample, and {}'s batch norm needs {fewest}: give it more images, or choose a network \
             without batch norm, such as --model cnn",
            architecture.name
        )));
    }
    if left_out.iter().filter(|&&device| device < train).count() as u64 == train {
        return Err(Error::Config(format!(
            "no device has the {fewest} training samples that {}'s batch norm needs: give fewer --clients, or a network \
             without batch norm, such as --model cnn",
            architecture.name
        )));
    }
    Ok(left_out)
}
