//! What a server can ask of a device at most. All of it is checked before anything of that size is allocated.

use fedper_run::config::Config;
use fedper_run::experiment::Experiment;

/// Settings are a few lines; longer ones are not read.
pub(super) const MOST_SETTINGS: usize = 64 << 10;

/// More federations are not remembered: each has a name that its server chose, and personal layers under it.
pub(super) const MOST_FEDERATIONS: usize = 1000;

/// A message's bytes besides its base.
const BESIDES: u64 = 64 << 20;

/// What a server can ask of a device at most; the flags of `fedper client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Epochs a round, to train and to fine-tune.
    pub epochs: u32,
    /// Images in a batch.
    pub batch: usize,
    /// Height or width of an image.
    pub image_size: usize,
    /// Height times width times images of a batch: what the memory for activations grows with.
    pub pixels: u64,
    /// Classes.
    pub classes: usize,
    /// Parameters of the network.
    pub parameters: u64,
    /// Devices of the federation, which shares of the data are dealt to; and devices in this process.
    pub devices: u64,
    /// Training samples that the settings deal to a device.
    pub samples: usize,
}

impl Default for DeviceLimits {
    fn default() -> Self {
        Self {
            epochs: 100,
            batch: 1024,
            image_size: 1024,
            pixels: 1 << 24,
            classes: 10_000,
            parameters: 200_000_000,
            devices: 1_000_000,
            samples: 1_000_000,
        }
    }
}

/// A value, and the flag that says how large it may be.
type Check<'a> = (&'a str, u64, u64, &'a str);

fn check(checks: &[Check<'_>]) -> Result<(), String> {
    match checks.iter().find(|(_, value, most, _)| value > most) {
        Some((what, value, most, flag)) => {
            Err(format!("{what} is {value}, and this device takes at most {most} ({flag})"))
        }
        None => Ok(()),
    }
}

impl DeviceLimits {
    /// Checks settings, before any data are read.
    ///
    /// # Errors
    /// In words, which one goes too far, and the flag that would let it.
    pub(super) fn check_settings(&self, config: &Config, devices: u64) -> Result<(), String> {
        let size = config.image_size.unwrap_or(1) as u64;
        check(&[
            ("local_epochs", config.local_epochs.into(), self.epochs.into(), "--max-epochs"),
            ("finetune_epochs", config.finetune_epochs.into(), self.epochs.into(), "--max-epochs"),
            ("batch_size", config.batch_size as u64, self.batch as u64, "--max-batch"),
            ("image_size", size, self.image_size as u64, "--max-image-size"),
            ("clients", devices, self.devices, "--max-devices"),
            (
                "samples_per_client",
                config.samples_per_client.unwrap_or(0) as u64,
                self.samples as u64,
                "--max-samples",
            ),
        ])?;
        self.check_batch(config.batch_size, size, size)
    }

    /// Checks the network, before any value of it is there.
    ///
    /// # Errors
    /// As [`DeviceLimits::check_settings`].
    pub(super) fn check_experiment(&self, experiment: &Experiment) -> Result<(), String> {
        let images = &experiment.dataset.images;
        let (height, width) = (images.height as u64, images.width as u64);
        check(&[
            ("the images' height", height, self.image_size as u64, "--max-image-size"),
            ("the images' width", width, self.image_size as u64, "--max-image-size"),
            (
                "the number of classes",
                experiment.dataset.classes.len() as u64,
                self.classes as u64,
                "--max-classes",
            ),
            (
                "the number of parameters",
                experiment.layout.numel() as u64,
                self.parameters,
                "--max-parameters",
            ),
        ])?;
        self.check_batch(experiment.config.batch_size, height, width)
    }

    fn check_batch(&self, batch: usize, height: u64, width: u64) -> Result<(), String> {
        let pixels = height.saturating_mul(width).saturating_mul(batch as u64);
        check(&[("a batch's number of pixels", pixels, self.pixels, "--max-pixels")])
    }

    /// The most bytes of a message: its base, twice over, and what goes with it. `parameters` is how many the network of
    /// the last question had.
    pub(super) fn message_bytes(&self, parameters: Option<usize>) -> u64 {
        let parameters = parameters.map_or(self.parameters, |parameters| parameters as u64);
        parameters.saturating_mul(8).saturating_add(BESIDES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedper_run::config::Settings;

    fn refused(limits: DeviceLimits, text: &str) -> Result<(), String> {
        let base = "clients = 10\nclasses_per_client = 3\nsamples_per_client = 200\nlocal_epochs = 1\nbatch_size = 20";
        let [text, base]: [Settings; 2] = [text, base].map(|text| toml::from_str(text).unwrap());
        let settings = text.over(base);
        let config = Config::resolve(&settings).unwrap();
        limits.check_settings(&config, config.clients)?;
        limits.check_experiment(&Experiment::prepare(&settings).unwrap())
    }

    #[test]
    fn each_limit_is_kept_to_and_named() {
        let limits = DeviceLimits {
            epochs: 2,
            batch: 32,
            image_size: 28,
            pixels: 28 * 28 * 20,
            classes: 10,
            parameters: 300_000,
            devices: 10,
            samples: 200,
        };
        let fits = "model = 'mlp'";
        assert_eq!(refused(limits, fits), Ok(()));
        for (text, said) in [
            ("local_epochs = 3", "local_epochs is 3, and this device takes at most 2 (--max-epochs)"),
            ("finetune_epochs = 3", "finetune_epochs is 3"),
            ("batch_size = 33", "batch_size is 33, and this device takes at most 32 (--max-batch)"),
            ("batch_size = 21", "pixels is 16464, and this device takes at most 15680 (--max-pixels)"),
            ("image_size = 29", "image_size is 29, and this device takes at most 28 (--max-image-size)"),
            ("clients = 11", "clients is 11, and this device takes at most 10 (--max-devices)"),
            ("samples_per_client = 201", "is 201, and this device takes at most 200 (--max-samples)"),
        ] {
            let reason = refused(limits, &format!("{fits}\n{text}")).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
        for (limits, said) in [
            (
                DeviceLimits { classes: 9, ..limits },
                "classes is 10, and this device takes at most 9 (--max-cl",
            ),
            (DeviceLimits { parameters: 99, ..limits }, "takes at most 99 (--max-parameters)"),
            (DeviceLimits { image_size: 27, ..limits }, "height is 28, and this device takes at most 27"),
            (DeviceLimits { pixels: 28 * 28, ..limits }, "(--max-pixels)"),
        ] {
            let reason = refused(limits, fits).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
        // Far beyond any memory: refused before the data are read.
        let config = |text: &str| Config::resolve(&toml::from_str::<Settings>(text).unwrap()).unwrap();
        for text in [
            "image_size = 4000000000",
            "clients = 4000000000000",
            "samples_per_client = 4000000000000",
            "batch_size = 4000000000000",
            "image_size = 1024\nbatch_size = 1024",
        ] {
            let config = config(text);
            assert!(DeviceLimits::default().check_settings(&config, config.clients).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_is_as_large_as_its_base() {
        let limits = DeviceLimits { parameters: 1000, ..DeviceLimits::default() };
        assert_eq!(limits.message_bytes(Some(10)), (64 << 20) + 80);
        assert_eq!(limits.message_bytes(None), (64 << 20) + 8000);
    }
}
