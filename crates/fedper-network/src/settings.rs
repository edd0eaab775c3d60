//! What a server tells devices of its experiment, and what a device makes of it.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use fedper_core::round::DeviceId;
use fedper_flower::records::Values;

use super::limits::{DeviceLimits, MOST_SETTINGS};
use fedper_run::config::{Config, Samples, Settings};
use fedper_run::error::Error;

pub(super) const ROUND: &str = "server-round";
pub(super) const FEDERATION: &str = "fedper-federation";
pub(super) const ALGORITHM: &str = "fedper-algorithm";
pub(super) const CONFIG: &str = "fedper-config";
pub(super) const DEVICES: &str = "fedper-devices";
/// Of each device asked, the last round that counted; 0 if none has.
pub(super) const COUNTED: &str = "fedper-counted";
pub(super) const TEST_LOCALLY: &str = "fedper-test-locally";

/// The experiment as devices are told: without paths, which are the server's own.
pub(super) fn for_devices(config: &Config) -> String {
    Config { data_dir: None, init: None, ..config.clone() }.to_toml()
}

/// What a device decides for itself, whatever a server says.
#[derive(Clone, Debug)]
pub struct Own {
    /// The devices that this process hosts; the one that the server calls it, if it does not say.
    pub devices: Option<RangeInclusive<u64>>,
    /// How many devices the federation must have.
    pub of: Option<u64>,
    /// The dataset, instead of the server's.
    pub dataset: Option<String>,
    /// Where its files are.
    pub data_dir: Option<PathBuf>,
    /// All of these data are this device's own: nothing is dealt.
    pub own_data: bool,
    /// Leave broken images of a folder out. Of a folder that is not its own, the server may say so too.
    pub skip_broken: bool,
    /// Weights to start from.
    pub init: Option<PathBuf>,
    /// Settings for a server that tells none, such as a Python one.
    pub fallback: Settings,
    /// What goes beyond is refused.
    pub limits: DeviceLimits,
}

impl Own {
    /// The settings to train with, from a question's configuration.
    ///
    /// # Errors
    /// In words, if the server asks for what this device does not do.
    pub(super) fn settings(&self, config: &Values) -> Result<Settings, String> {
        let mut settings = match config.text(CONFIG) {
            Some(text) if text.len() > MOST_SETTINGS => {
                return Err(format!(
                    "the server's settings take {} bytes, and this device reads at most {MOST_SETTINGS}",
                    text.len()
                ));
            }
            Some(text) => toml::from_str(text).map_err(|error| {
                format!(
                    "the server's settings cannot be read: {}; same versions on both sides?",
                    error.message()
                )
            })?,
            None => self.fallback.clone(),
        };
        if let Some(of) = self.of
            && settings.clients.get_or_insert(of) != &of
        {
            let found = settings.clients.unwrap_or(0);
            return Err(format!("this is a device of a federation of {of}, the server's has {found}"));
        }
        // What a Python server says under the names that Flower's examples use.
        let number = |key: &str| config.float(key);
        let count = |key: &str| config.int(key).and_then(|value| u32::try_from(value).ok());
        settings.lr = number("lr").or(settings.lr);
        settings.momentum = number("momentum").or(settings.momentum);
        settings.weight_decay = number("weight-decay").or(settings.weight_decay);
        settings.local_epochs = count("local-epochs").or(settings.local_epochs);
        settings.batch_size = count("batch-size").map(|size| size as usize).or(settings.batch_size);
        settings.dataset = self.dataset.clone().or(settings.dataset);
        settings.data_dir = self.data_dir.clone();
        settings.init = self.init.clone();
        let told = settings.skip_broken == Some(true) && !self.own_data;
        let of_folder = settings.dataset.as_deref() == Some("folder");
        settings.skip_broken = ((told || self.skip_broken) && of_folder).then_some(true);
        let devices = settings.clients;
        if self.own_data {
            // One device that holds everything.
            (settings.clients, settings.iid) = (Some(1), Some(true));
            (settings.classes_per_client, settings.dirichlet, settings.by_folder) = (None, None, None);
            (settings.samples_per_client, settings.with_replacement) = (Some(Samples::All), None);
        }
        let checked =
            Config::resolve(&settings).map_err(|error| format!("the server's settings: {error}"))?;
        self.limits.check_settings(&checked, devices.unwrap_or(checked.clients))?;
        Ok(settings)
    }

    /// Whose share of the partition `device` has: whoever has the data alone holds all of them, whatever its number.
    pub(super) fn place(&self, device: DeviceId) -> usize {
        if self.own_data { 0 } else { device.0 as usize }
    }

    /// The devices that a question is for, among `clients` that are dealt data.
    ///
    /// # Errors
    /// In words, if one of them is not hosted here.
    pub(super) fn asked(&self, config: &Values, clients: u64) -> Result<Vec<DeviceId>, String> {
        let clients = if self.own_data { u64::MAX } else { clients };
        let hosted = |device: u64| self.devices.as_ref().is_none_or(|devices| devices.contains(&device));
        let devices: Vec<u64> = match (config.ints(DEVICES), &self.devices) {
            (Some(list), _) => list.into_iter().map(|device| device.max(0) as u64).collect(),
            (None, Some(devices)) => devices.clone().collect(),
            (None, None) => vec![0],
        };
        if let Some(other) = devices.iter().find(|&&device| !hosted(device)) {
            return Err(format!("device {other} is not hosted here"));
        }
        if let Some(other) = devices.iter().find(|&&device| device >= clients) {
            return Err(format!("there is no device {other}: the federation has {clients}, counted from 0"));
        }
        if self.devices.is_none() && devices.len() > 1 {
            return Err("the question names several devices, and this process hosts one".into());
        }
        if devices.is_empty() || devices.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err("the question names no devices, or not in order".into());
        }
        Ok(devices.into_iter().map(DeviceId).collect())
    }
}

/// Devices as the user types them: `7`, or `0..49` for fifty of them.
///
/// # Errors
/// [`Error::Config`] if it is neither.
pub fn parse_devices(text: &str) -> Result<RangeInclusive<u64>, Error> {
    let range = match text.split_once("..") {
        Some((first, last)) => first.parse().ok().zip(last.trim_start_matches('=').parse().ok()),
        None => text.parse().ok().map(|device| (device, device)),
    };
    match range {
        Some((first, last)) if first <= last => Ok(first..=last),
        _ => Err(Error::Config(format!(
            "`{text}` names no devices: say 7 for one, or 0..49 for fifty (from 0, the last one included)"
        ))),
    }
}

/// `--data`: the name of a dataset, or a folder of images, which are then all the device's own.
pub fn parse_data(text: &str) -> (String, Option<PathBuf>) {
    let path = Path::new(text);
    if path.is_dir() { ("folder".to_owned(), Some(path.to_owned())) } else { (text.to_owned(), None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own {
            devices: Some(2..=4),
            of: Some(10),
            dataset: Some("fashion-mnist-small".into()),
            data_dir: None,
            own_data: false,
            skip_broken: false,
            init: None,
            fallback: Settings { lr: Some(0.5), ..Settings::default() },
            limits: DeviceLimits { epochs: 5, batch: 100, devices: 50, ..DeviceLimits::default() },
        }
    }

    fn values(text: &str) -> Values {
        let mut values = Values::default();
        values.set_text(CONFIG, text);
        values
    }

    #[test]
    fn the_servers_settings_within_the_devices_limits() {
        let settings = own().settings(&values("clients = 10\ndataset = 'other'\nlr = 0.1")).unwrap();
        assert_eq!(settings.dataset.as_deref(), Some("fashion-mnist-small"));
        assert_eq!(settings.lr, Some(0.1));
        for (text, expected) in [
            ("clients = 11", "a federation of 10, the server's has 11"),
            ("local_epochs = 6", "at most 5"),
            ("batch_size = 101", "at most 100"),
            ("surprise = 1", "same versions"),
            ("lr = -1.0", "lr is -1"),
            ("image_size = 3000", "at most 1024 (--max-image-size)"),
            (&"#".repeat(MOST_SETTINGS + 1), "reads at most 65536"),
        ] {
            let error = own().settings(&values(text)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        // A Python server.
        let mut config = Values::default();
        config.set_int("local-epochs", 3);
        let settings = own().settings(&config).unwrap();
        assert_eq!((settings.lr, settings.local_epochs, settings.clients), (Some(0.5), Some(3), Some(10)));
    }

    #[test]
    fn own_data_are_not_dealt() {
        let own = Own { own_data: true, devices: None, ..own() };
        let settings =
            own.settings(&values("clients = 10\nclasses_per_client = 3\ntest_fraction = 0.5")).unwrap();
        let config = Config::resolve(&settings).unwrap();
        assert_eq!((config.clients, config.iid, config.classes_per_client), (1, true, None));
        assert_eq!(config.test_fraction, Some(0.5));
        let mut config = Values::default();
        config.set_ints(DEVICES, vec![7]);
        assert_eq!(own.asked(&config, 1).unwrap(), [DeviceId(7)]);
        config.set_ints(DEVICES, vec![6, 7]);
        assert!(own.asked(&config, 1).unwrap_err().contains("hosts one"));
        // A federation of more devices than it may have, though this one's data are not dealt.
        let own = Own { of: None, ..own };
        assert!(own.settings(&values("clients = 51")).unwrap_err().contains("--max-devices"));
    }

    #[test]
    fn broken_images_of_its_own_are_left_out_if_the_device_says_so() {
        let skips = |dataset: &str, own_data, skip_broken, text: &str| {
            let own = Own { dataset: Some(dataset.into()), own_data, skip_broken, devices: None, ..own() };
            Config::resolve(&own.settings(&values(text)).unwrap()).unwrap().skip_broken
        };
        let server = "clients = 10\ndataset = 'folder'\nskip_broken = true";
        assert!(skips("folder", true, true, "clients = 10"));
        assert!(!skips("folder", true, false, server), "the server does not decide over own images");
        assert!(skips("folder", false, false, server), "all must deal the same samples");
        assert!(!skips("fashion-mnist-small", false, true, server));
    }

    #[test]
    fn a_question_is_for_devices_that_are_here() {
        let ask = |devices: &[i64]| {
            let mut config = Values::default();
            config.set_ints(DEVICES, devices.to_vec());
            own().asked(&config, 4)
        };
        assert_eq!(ask(&[2, 3]).unwrap(), [DeviceId(2), DeviceId(3)]);
        assert!(ask(&[1]).unwrap_err().contains("not hosted"));
        assert!(ask(&[-1]).unwrap_err().contains("not hosted"));
        assert!(ask(&[4]).unwrap_err().contains("no device 4"));
        assert!(ask(&[3, 3]).is_err() && ask(&[3, 2]).is_err() && ask(&[]).is_err());
        assert_eq!(own().asked(&Values::default(), 5).unwrap().len(), 3);
    }

    #[test]
    fn devices_as_they_are_typed() {
        assert_eq!(parse_devices("0..49").unwrap(), 0..=49);
        assert_eq!(parse_devices("7").unwrap(), 7..=7);
        for wrong in ["", "..", "3..1", "x", "1..y", "-1"] {
            assert!(parse_devices(wrong).is_err(), "{wrong}");
        }
    }
}
