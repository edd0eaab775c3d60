//! The network that a device has for its own use: the base it was last tested with under its own personal layers, as a
//! safetensors file in its state folder that any program can read while the device goes on.

use std::path::{Path, PathBuf};

use fedper_core::params::Params;
use fedper_core::round::DeviceId;
use fedper_nn::weights::{read_note, read_safetensors, write_with_note};
use fedper_records::write_atomically;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Settings};
use crate::error::Error;
use crate::experiment::Experiment;

/// Under which the file says what it is.
const NOTE: &str = "fedper";

/// A network, and what is needed to use it.
pub struct Deployed {
    /// All of its parameters.
    pub params: Params,
    /// What it is.
    pub about: About,
}

/// What a network in a file is.
#[derive(Debug, Serialize, Deserialize)]
pub struct About {
    /// Such as `fedper`.
    pub algorithm: String,
    /// After which round.
    pub round: u32,
    /// Whether a part of it is the device's own.
    pub own: bool,
    /// The names of the classes, in the order of the network's outputs.
    pub classes: Vec<String>,
    /// Height, width and channels of its images.
    pub image_shape: [usize; 3],
    /// What is done to their bytes before the network sees them.
    #[serde(default)]
    pub pixels: Option<fedper_data::Normalisation>,
    /// The experiment, as in `config.toml`.
    config: String,
}

impl About {
    /// Of the network that `algorithm` gives `device` after `round` of an experiment, whose configuration devices know as
    /// `config`.
    pub fn new(
        experiment: &Experiment,
        config: String,
        device: DeviceId,
        algorithm: &str,
        round: u32,
        own: bool,
    ) -> Self {
        let images = &experiment.dataset.images;
        Self {
            algorithm: algorithm.to_owned(),
            round,
            own,
            classes: experiment.class_names(device),
            image_shape: [images.height, images.width, images.channels],
            pixels: Some(images.normalisation()),
            config,
        }
    }

    /// The experiment's configuration.
    ///
    /// # Errors
    /// If this program does not understand it.
    pub fn config(&self) -> Result<Config, Error> {
        let settings: Settings =
            toml::from_str(&self.config).map_err(|error| Error::Config(error.message().to_owned()))?;
        Config::resolve(&settings)
    }
}

impl Deployed {
    /// Writes it into a state folder, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    pub fn write(&self, state: &Path) -> Result<(), Error> {
        let path = path(state, &self.about.algorithm);
        let note = serde_json::to_string(&self.about).expect("plain data");
        let bytes = write_with_note(&self.params, NOTE, note)
            .map_err(|error| Error::Foreign { path: path.clone(), reason: error.to_string() })?;
        Ok(write_atomically(&path, &bytes)?)
    }

    /// The network of `algorithm` in a state folder; if that is not given, of `fedper`, or of the only algorithm there.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none, [`Error::Foreign`] if the file is not what it should be.
    pub fn read(state: &Path, algorithm: Option<&str>) -> Result<Self, Error> {
        let names = names(state)?;
        let name = match (algorithm, &names[..]) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, _) => "fedper",
        };
        if !names.iter().any(|known| known == name) {
            return Err(Error::Config(match &names[..] {
                [] => format!(
                    "{} holds no network yet: it is there when the server has had the device tested",
                    state.display()
                ),
                _ => format!(
                    "{} holds networks of {}: say which with --algorithm",
                    state.display(),
                    names.join(", ")
                ),
            }));
        }
        let path = path(state, name);
        let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
        let foreign = |reason: String| Error::Foreign { path: path.clone(), reason };
        let note = read_note(&bytes, NOTE).map_err(|error| foreign(error.to_string()))?;
        let note = note.ok_or_else(|| foreign("it does not say what network it is".into()))?;
        let about: About = serde_json::from_str(&note).map_err(|error| foreign(error.to_string()))?;
        let params = read_safetensors(&bytes).map_err(|error| foreign(error.to_string()))?;
        Ok(Self { params, about })
    }
}

/// Where the network of `algorithm` is in a state folder.
pub fn path(state: &Path, algorithm: &str) -> PathBuf {
    state.join(format!("{algorithm}.safetensors"))
}

/// The algorithms that a state folder holds networks of, in order.
fn names(state: &Path) -> Result<Vec<String>, Error> {
    let entries = std::fs::read_dir(state).map_err(Error::file("read", state))?;
    let name = |entry: std::fs::DirEntry| {
        entry.file_name().to_str()?.strip_suffix(".safetensors").map(ToOwned::to_owned)
    };
    let mut names: Vec<String> = entries.flatten().filter_map(name).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_comes_back_with_what_it_is() {
        let settings = Settings { model: Some("mlp".into()), ..Settings::default() };
        let experiment = Experiment::prepare(&settings).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let read = |algorithm| Deployed::read(folder.path(), algorithm);
        assert!(read(None).err().unwrap().to_string().contains("no network yet"));

        let params = Params::zeros(experiment.layout.clone());
        let about = About::new(&experiment, experiment.config.to_toml(), DeviceId(0), "fedavg", 7, false);
        Deployed { params, about }.write(folder.path()).unwrap();
        let kept = read(None).unwrap();
        assert_eq!((kept.about.algorithm.as_str(), kept.about.round, kept.about.own), ("fedavg", 7, false));
        assert_eq!((kept.about.classes.len(), kept.about.image_shape), (10, [28, 28, 1]));
        assert_eq!(kept.about.config().unwrap().model, experiment.config.model);
        assert_eq!(kept.params.layout().numel(), experiment.layout.numel());
        assert!(read(Some("fedper")).err().unwrap().to_string().contains("networks of fedavg"));

        std::fs::write(path(folder.path(), "fedper"), b"no network").unwrap();
        assert!(read(None).err().unwrap().to_string().contains("fedper.safetensors"));
    }
}
