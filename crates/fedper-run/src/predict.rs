//! Classifying images with a device's own network: of a finished run, or of a device on a network.

use std::path::Path;

use fedper_core::params::Params;
use fedper_core::round::DeviceId;
use fedper_nn::{InputShape, Network};
use fedper_records::read_classes;

use crate::config::Config;
use crate::error::Error;
use crate::experiment::{named_in, own_order};
use crate::kept::{self, About, Deployed};
use crate::rundir::RunDir;
use crate::settled::{DeviceNetwork, device_network, image_shape};

/// A device's network, ready to classify image files.
pub struct Classifier {
    network: Network,
    /// Height, width and channels of the run's images.
    shape: [usize; 3],
    classes: Vec<String>,
    algorithm: String,
    round: Option<u32>,
    own: bool,
    trained: bool,
}

impl Classifier {
    /// The network of `device` at the end of the run in `run`, by `algorithm`; if that is not given, by `fedper`, or by the
    /// only algorithm of the run.
    ///
    /// # Errors
    /// [`Error::Config`] if the run has no such algorithm, device or final weights; if a file of the run is broken.
    pub fn open(run: &Path, algorithm: Option<&str>, device: u64) -> Result<Self, Error> {
        let config = Config::resolve(&RunDir::settings(run)?)?;
        let algorithm = match (algorithm, &config.algorithm[..]) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => only.clone(),
            (None, known) => match known.iter().find(|name| *name == "fedper") {
                Some(name) => name.clone(),
                None => {
                    return Err(Error::Config(format!(
                        "{} has run {}: say which with --algorithm",
                        run.display(),
                        known.join(", ")
                    )));
                }
            },
        };
        let DeviceNetwork { params, own, trained } = device_network(run, &algorithm, Some(device))?;
        let classes = read_classes(run)?;
        let order = own_order(&config, classes.len(), DeviceId(device));
        let classes = named_in(order, &classes);
        let shape = image_shape(run, &config)?;
        let path = run.join("weights").join(&algorithm);
        let (network, round) = (network(&params, &config, shape, classes.len(), &path)?, None);
        Ok(Self { network, shape, classes, algorithm, round, own, trained })
    }

    /// The network that a device on a network (`fedper client`) was last tested with, from its state folder, by `algorithm`;
    /// if that is not given, by `fedper`, or by the only algorithm there.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none; if its file is broken.
    pub fn deployed(state: &Path, algorithm: Option<&str>) -> Result<Self, Error> {
        let Deployed { params, about } = Deployed::read(state, algorithm)?;
        let path = kept::path(state, &about.algorithm);
        let network = network(&params, &about.config()?, about.image_shape, about.classes.len(), &path)?;
        let About { algorithm, round, own, classes, image_shape: shape, .. } = about;
        Ok(Self { network, shape, classes, algorithm, round: Some(round), own, trained: true })
    }

    /// The names of the classes, in the order of the network's outputs.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Whose network it is.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// After which round, where that is known: a finished run's network is that of its end.
    pub fn round(&self) -> Option<u32> {
        self.round
    }

    /// Whether a part of the network is the device's own; else all devices share it.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Whether the device has trained: if not, what is its own is what it would begin with.
    pub fn has_trained(&self) -> bool {
        self.trained
    }

    /// The probability of each class, in the order of [`Classifier::classes`], for the image in a JPEG, PNG or WebP file of any
    /// size.
    ///
    /// # Errors
    /// If the file cannot be read or is not an image, with its name.
    pub fn classify(&mut self, path: &Path) -> Result<Vec<f64>, Error> {
        let bytes = fedper_data::read_image(path, self.shape)?;
        let pixels: Vec<f32> = bytes.into_iter().map(fedper_data::normalise).collect();
        Ok(softmax(self.network.logits(&pixels, 1)?))
    }
}

fn network(
    params: &Params,
    config: &Config,
    [height, width, channels]: [usize; 3],
    classes: usize,
    path: &Path,
) -> Result<Network, Error> {
    let foreign = |reason: String| Error::Foreign { path: path.to_owned(), reason };
    if let Some(name) = params.first_non_finite() {
        return Err(foreign(format!("parameter `{name}` holds a value that is not finite")));
    }
    let input = InputShape { height, width, channels };
    let architecture = config.architecture(input, classes)?;
    let mut network = Network::with_precision(&architecture, 1, config.precision)?;
    network.load(params).map_err(|error| foreign(error.to_string()))?;
    Ok(network)
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_any_logits() {
        let even = softmax(&[3.0, 3.0, 3.0, 3.0]);
        assert_eq!(even, [0.25; 4]);
        // e^0 : e^-ln 3 = 3 : 1, however large the logits are.
        let two = softmax(&[1000.0, 1000.0 - 3f32.ln()]);
        assert!((two[0] - 0.75).abs() < 1e-4 && (two[1] - 0.25).abs() < 1e-4, "{two:?}");
    }
}
