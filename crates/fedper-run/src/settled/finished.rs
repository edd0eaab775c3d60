//! Reading a device's network back from `weights/`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fedper_core::params::{Layout, Params};
use fedper_core::parts::{Begin, Parts};
use fedper_core::round::DeviceId;
use fedper_core::seed::SERVER;
use fedper_core::split::{Kept, Shared};
use fedper_core::strategy::Strategy;
use fedper_nn::{Architecture, InputShape};
use fedper_records::files::for_each_line;
use fedper_records::names::{CONFIG, ROUNDS};
use fedper_records::{RoundRecord, read_classes, read_summary};

use super::Given;
use crate::config::Config;
use crate::error::Error;
use crate::experiment::{cut, initial, initial_kept, parts, read_hashed_weights};
use crate::rundir::{BASE, FOLDER, RunDir, read_kept, read_state};

/// A device's network at the end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceNetwork {
    /// All of its parameters.
    pub params: Params,
    /// Whether a part of them is the device's own.
    pub own: bool,
    /// Whether it has trained. If not, what is its own is what it would begin with, which follows from the run's seed.
    pub trained: bool,
}

/// The network that `algorithm` has given `device` at the end of the run in `run`, as it was last tested; or, without a
/// device, the one that all share where no device keeps anything.
///
/// # Errors
/// [`Error::Config`] if the run has no such algorithm, device or final weights, or the device is not named and matters.
pub fn device_network(run: &Path, algorithm: &str, device: Option<u64>) -> Result<DeviceNetwork, Error> {
    let config = Config::resolve(&RunDir::settings(run)?)?;
    let wrong = |message: String| Err(Error::Config(message));
    if let (Some(what), true) =
        (config.own.in_words(), config.own.network.is_some() || config.own.methods.contains_key(algorithm))
    {
        return wrong(format!(
            "{} has {what} of its own: ask the program that began it for its devices' networks",
            run.display()
        ));
    }
    let known = config.method(algorithm).filter(|s| config.algorithm.iter().any(|name| name == s.name()));
    let Some(strategy) = known else {
        return wrong(format!("{} has run {}, not {algorithm}", run.display(), config.algorithm.join(", ")));
    };
    if let Some(device) = device.filter(|&device| device >= config.clients) {
        return wrong(format!(
            "there is no device {device}: {} has {}, from 0 to {}",
            run.display(),
            config.clients,
            config.clients - 1
        ));
    }
    let folder = run.join("weights").join(algorithm);
    let base = folder.join(BASE);
    if !base.is_file() && RunDir::is_complete(run) {
        return wrong(format!(
            "{} has ended, but its weights of {algorithm} are gone; make them again with fedper run --config {} --out DIR",
            run.display(),
            run.join(CONFIG).display()
        ));
    }
    if !base.is_file() || run.join(FOLDER).is_dir() && !RunDir::is_complete(run) {
        return wrong(format!(
            "{} holds no final weights of {algorithm}: let the run end with fedper run --resume {0}",
            run.display()
        ));
    }
    if device.is_none() && has_personal(&folder)? {
        return wrong(format!("{algorithm} keeps something on each device: say whose with --device"));
    }
    let rebuilt = Rebuilt::of(run, &config, &*strategy)?;
    let parts = &rebuilt.parts;
    let state = Arc::new(read_state(&folder, parts)?);
    let received = parts.downloaded(&state);
    let Some(device) = device else {
        if !parts.split.personal().is_empty() {
            return wrong(format!("{algorithm} keeps personal layers: say whose with --device"));
        }
        return Ok(DeviceNetwork { params: parts.model_of(&received), own: false, trained: true });
    };
    let keeps = !parts.kept.is_empty();
    let stored = read_kept(&folder, parts, DeviceId(device))?;
    let trained = !keeps || stored.is_some();
    let kept = match stored {
        Some(kept) => kept,
        None => {
            if keeps {
                rebuilt.check(run, &config, algorithm, device)?;
            }
            rebuilt.kept(run, &config, device, &received)?
        }
    };
    let own = keeps || strategy.network_trains();
    let given = Given {
        strategy: &*strategy,
        parts,
        received: &received,
        kept: &kept,
        round: last_round(run, algorithm)?,
    };
    Ok(DeviceNetwork { params: given.in_run(run, device)?, own, trained })
}

/// The last round of `algorithm` in which devices were tested.
fn last_round(run: &Path, algorithm: &str) -> Result<u32, Error> {
    let mut last = 0;
    for_each_line(&run.join(ROUNDS), |record: RoundRecord| {
        if record.algorithm == algorithm && record.accuracy.is_some() {
            last = last.max(record.round);
        }
    })?;
    Ok(last)
}

fn has_personal(folder: &Path) -> Result<bool, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file("read", folder))?;
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("device-")))
}

/// What a run's configuration makes of its network, without its data.
struct Rebuilt {
    architecture: Architecture,
    parts: Parts,
}

impl Rebuilt {
    fn of(run: &Path, config: &Config, strategy: &dyn Strategy) -> Result<Self, Error> {
        let classes = read_classes(run)?.len();
        let [height, width, channels] = image_shape(run, config)?;
        let input = InputShape { channels, height, width };
        let architecture = config.architecture(input, classes)?;
        let layout: Arc<Layout> = architecture.layout();
        let parts = parts(config, strategy, &cut(config, &architecture, &layout)?);
        Ok(Self { architecture, parts })
    }

    /// Refuses a device that has trained, or was not to.
    fn check(&self, run: &Path, config: &Config, algorithm: &str, device: u64) -> Result<(), Error> {
        if device >= config.training_clients() {
            return Err(Error::Config(format!(
                "device {device} never trained in {}: it was held out (new_clients), and what it came to afterwards is \
                 not kept",
                run.display()
            )));
        }
        let mut trained = false;
        for_each_line(&run.join(ROUNDS), |record: RoundRecord| {
            let all = u64::from(record.devices) + u64::from(record.failed) == config.training_clients();
            let asked = record.participants.map_or(all, |list| list.contains(&device));
            let failed = if record.failed_devices.is_empty() {
                record.failed > 0
            } else {
                record.failed_devices.contains(&device)
            };
            trained |= record.algorithm == algorithm && asked && !failed;
        })?;
        if trained {
            return Err(Error::Config(format!(
                "device {device} has trained, but {} does not hold its personal layers of {algorithm}: a device on a \
                 network keeps them itself (fedper predict --state)",
                run.display()
            )));
        }
        Ok(())
    }

    /// What a device that never trained has: it follows from the seed, and nothing is stored for it.
    fn kept(&self, run: &Path, config: &Config, device: u64, received: &Shared) -> Result<Kept, Error> {
        let given = match &config.init {
            Some(path) if !self.parts.kept.is_empty() => Some(read_hashed_weights(path)?),
            _ => None,
        };
        let hash = read_summary(run).ok().and_then(|summary| summary.init_sha256);
        if let (Some((_, found)), Some(hash), Some(path)) = (&given, hash, &config.init)
            && *found != hash
        {
            return Err(Error::Config(format!(
                "{} began with other weights than {} holds now (by their SHA-256): bring that file back",
                run.display(),
                path.display()
            )));
        }
        Ok(initial_kept(&self.parts, received, |layout, begin| {
            let owner = if begin == Begin::Common { SERVER } else { device };
            let given = given.iter().map(|(params, _)| params);
            initial(&self.architecture, layout, config.seed, owner, given)
        }))
    }
}

/// Height, width and channels of a run's images: its summary tells, or else (in older runs) the dataset itself.
///
/// # Errors
/// If the dataset has to be read, and cannot be.
pub fn image_shape(run: &Path, config: &Config) -> Result<[usize; 3], Error> {
    if let Some(shape) = read_summary(run).ok().and_then(|summary| summary.image_shape) {
        return Ok(shape);
    }
    let options = config.load_options();
    let images = fedper_data::load(&config.dataset, config.data_dir.as_deref(), &options)?.images;
    Ok([images.height, images.width, images.channels])
}
