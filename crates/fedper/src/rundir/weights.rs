//! Reading a device's network back from `weights/`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use fedper_core::params::{Layout, Params, ParamsError, Spec};
use fedper_core::split::Split;
use fedper_core::strategy::{self, Strategy};
use fedper_nn::{Architecture, InputShape};
use fedper_records::files::for_each_line;
use fedper_records::names::{CONFIG, ROUNDS};
use fedper_records::{RoundRecord, read_classes, read_summary};

use super::RunDir;
use super::checkpoint::FOLDER;
use crate::config::{BatchNorm, Config};
use crate::error::Error;
use crate::experiment::{cut, initial, read_hashed_weights, read_weights};

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

/// The network that `algorithm` has given `device` at the end of the run in `run`: the base and what the device keeps, or the
/// base alone where no device keeps anything.
///
/// # Errors
/// [`Error::Config`] if the run has no such algorithm, device or final weights, or the device is not named and matters.
pub fn device_network(run: &Path, algorithm: &str, device: Option<u64>) -> Result<DeviceNetwork, Error> {
    let config = Config::resolve(&RunDir::settings(run)?)?;
    let wrong = |message: String| Err(Error::Config(message));
    let known = strategy::by_name(algorithm).filter(|s| config.algorithm.iter().any(|name| name == s.name()));
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
    let base = folder.join("base.safetensors");
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
    let mut parts = vec![read_weights(&base)?];
    let file = device.map(|device| (device, folder.join(format!("device-{device:05}.safetensors"))));
    let (own, trained) = match file {
        Some((_, file)) if file.is_file() => {
            parts.push(read_weights(&file)?);
            (true, true)
        }
        None if has_personal(&folder)? => {
            return wrong(format!("{algorithm} keeps personal layers: say whose with --device"));
        }
        // Where everything is averaged, no device has anything of its own.
        _ if averages_all(strategy, &config) => (false, true),
        _ => match Untrained::of(run, &config, strategy)? {
            untrained if untrained.split.personal().is_empty() => (false, true),
            untrained => {
                let Some(device) = device else {
                    return wrong(format!("{algorithm} keeps personal layers: say whose with --device"));
                };
                untrained.check(run, &config, algorithm, device)?;
                parts.push(untrained.personal(run, &config, device)?);
                (true, false)
            }
        },
    };
    let specs = parts.iter().flat_map(|part| part.layout().specs().to_vec()).collect();
    let values = parts.iter().flat_map(|part| part.values().to_vec()).collect();
    let foreign = |error: ParamsError| Error::Foreign { path: folder.clone(), reason: error.to_string() };
    let layout = Layout::new(specs).map_err(foreign)?;
    let params = Params::from_values(layout, values).map_err(foreign)?;
    Ok(DeviceNetwork { params, own, trained })
}

fn has_personal(folder: &Path) -> Result<bool, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file("read", folder))?;
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("device-")))
}

/// Whether no cut makes anything personal, of whatever network.
fn averages_all(strategy: &dyn Strategy, config: &Config) -> bool {
    let any = Layout::new(vec![Spec::trainable("any", [1])]).expect("one name");
    let split = strategy.split(&Split::all_personal(&any));
    split.personal().is_empty() && config.batch_norm != BatchNorm::Local
}

/// What a device that never trained is made of: nothing is stored for it.
struct Untrained {
    architecture: Architecture,
    split: Split,
}

impl Untrained {
    fn of(run: &Path, config: &Config, strategy: &dyn Strategy) -> Result<Self, Error> {
        let classes = read_classes(run)?.len();
        let [height, width, channels] = image_shape(run, config)?;
        let input = InputShape { channels, height, width };
        let architecture = Architecture::new(config.model, config.stem, input, classes)?;
        let layout: Arc<Layout> = architecture.layout();
        let split = strategy.split(&cut(config, &architecture, &layout)?);
        let split = if config.batch_norm == BatchNorm::Local { split.with_personal_buffers() } else { split };
        Ok(Self { architecture, split })
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

    fn personal(&self, run: &Path, config: &Config, device: u64) -> Result<Params, Error> {
        let given = config.init.as_deref().map(read_hashed_weights).transpose()?;
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
        let given = given.iter().map(|(params, _)| params);
        Ok(initial(&self.architecture, self.split.personal(), config.seed, device, given))
    }
}

/// Height, width and channels of a run's images: its summary tells, or else (in older runs) the dataset itself.
///
/// # Errors
/// If the dataset has to be read, and cannot be.
pub(crate) fn image_shape(run: &Path, config: &Config) -> Result<[usize; 3], Error> {
    if let Some(shape) = read_summary(run).ok().and_then(|summary| summary.image_shape) {
        return Ok(shape);
    }
    let options = config.load_options();
    let images = fedper_data::load(&config.dataset, config.data_dir.as_deref(), &options)?.images;
    Ok([images.height, images.width, images.channels])
}
