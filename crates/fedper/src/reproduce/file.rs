//! Experiment files: a figure of the paper as data. The ones in `experiments/` are part of the program.

use std::fs;
use std::path::Path;

use fedper_data::{MakeOptions, make_flickr_aes};
use serde::Deserialize;

use super::Scale;
use crate::config::{Config, Samples, Settings};
use crate::error::Error;

/// The figures that are part of the program: name and file.
const FIGURES: [(&str, &str); 4] = [
    ("fig2", include_str!("../../experiments/fig2.toml")),
    ("fig3", include_str!("../../experiments/fig3.toml")),
    ("fig4", include_str!("../../experiments/fig4.toml")),
    ("fig7", include_str!("../../experiments/fig7.toml")),
];

/// A figure: panels of curves, and the settings behind each.
///
/// A curve's settings are those of the figure, overridden by the panel's, overridden by its own. That is the paper's
/// scale; the smaller ones override once more, the figure's `[small]` or `[smoke]` first and the panel's after it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    /// `fig2`.
    #[serde(skip)]
    pub(crate) name: String,
    /// What the figure shows, in a line.
    pub(crate) title: String,
    /// Where its settings come from, and what a reader of its published values must know.
    pub(crate) about: String,
    /// Settings of every curve.
    settings: Settings,
    #[serde(default)]
    small: Settings,
    #[serde(default)]
    smoke: Settings,
    /// A set to make in the form of the dataset at the smoke scale, where no folder with its files is given.
    made: Option<Made>,
    #[serde(rename = "panel")]
    pub(crate) panels: Vec<Panel>,
}

/// A made set: see `fedper data make`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Made {
    users: usize,
    photos: usize,
    width: u32,
    height: u32,
}

impl Made {
    /// The set in `folder`, made if it is not there yet.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn ensure(&self, folder: &Path) -> Result<(), Error> {
        // Its ratings are written last: without them it was interrupted.
        if folder.join(fedper_data::FLICKR_RATINGS).is_file() {
            return Ok(());
        }
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Error::file("remove", folder))?;
        }
        let &Self { users, photos, width, height } = self;
        let options = MakeOptions { users, photos, width, height, seed: 1 };
        make_flickr_aes(folder, &options, &mut |_| {})?;
        Ok(())
    }
}

/// One plot of a figure.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Panel {
    /// For `--panel`, such as `mobilenet-k4`.
    pub(crate) name: String,
    pub(crate) title: String,
    #[serde(default)]
    settings: Settings,
    #[serde(default)]
    small: Settings,
    #[serde(default)]
    smoke: Settings,
    #[serde(rename = "curve")]
    pub(crate) curves: Vec<Curve>,
}

/// One line of a plot: one method, over several seeds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Curve {
    pub(crate) name: String,
    algorithm: String,
    #[serde(default)]
    settings: Settings,
    /// Final accuracy of the published reproduction, if it has this curve.
    pub(crate) published: Option<f64>,
}

impl Panel {
    /// Whether its name contains one of `chosen`, or none is asked for.
    pub(super) fn is_among(&self, chosen: &[String]) -> bool {
        chosen.is_empty() || chosen.iter().any(|part| self.name.contains(part.as_str()))
    }
}

impl Curve {
    /// Name of its strategy.
    pub(crate) fn algorithm(&self) -> &str {
        &self.algorithm
    }
}

impl Figure {
    /// The figures of that name, or all of them for `all`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none.
    pub(crate) fn named(name: &str) -> Result<Vec<Self>, Error> {
        let chosen: Vec<Self> = FIGURES
            .iter()
            .filter(|(known, _)| name == "all" || name == *known)
            .map(|(known, text)| Self::parse(known, text))
            .collect::<Result<_, _>>()?;
        if chosen.is_empty() {
            let known: Vec<&str> = FIGURES.iter().map(|(known, _)| *known).collect();
            return Err(Error::Config(format!(
                "there is no figure `{name}`; there are {}, and `all`",
                known.join(", ")
            )));
        }
        Ok(chosen)
    }

    /// Reads an experiment file.
    ///
    /// # Errors
    /// [`Error::Config`] with the line that is wrong.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let figure: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Error::Config(format!("experiment {name}, line {line}: {}", error.message()))
        })?;
        Ok(Self { name: name.to_owned(), ..figure })
    }

    /// The settings of a curve at a scale, without seed and data folder.
    pub(crate) fn settings(&self, panel: &Panel, curve: &Curve, scale: Scale) -> Settings {
        let own = Settings { algorithm: Some(vec![curve.algorithm.clone()]), ..curve.settings.clone() };
        // A figure's settings are all there are: nothing is dealt that they do not say.
        let all = Settings { samples_per_client: Some(Samples::All), ..Settings::default() };
        let paper = own.over(panel.settings.clone()).over(self.settings.clone()).over(all);
        let smaller = match scale {
            Scale::Paper => return paper,
            Scale::Small => panel.small.clone().over(self.small.clone()),
            Scale::Smoke => panel.smoke.clone().over(self.smoke.clone()),
        };
        smaller.over(paper)
    }

    /// The set that stands in for its dataset at a scale.
    pub(crate) fn made(&self, scale: Scale) -> Option<Made> {
        self.made.filter(|_| scale == Scale::Smoke)
    }

    /// What a smaller scale runs, in a few words for the title: data, images, rounds and epochs where they are not the
    /// paper's.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings contradict one another.
    pub(crate) fn scaled_to(&self, scale: Scale) -> Result<String, Error> {
        let (panel, curve) = (&self.panels[0], &self.panels[0].curves[0]);
        let config = |scale| Config::resolve(&self.settings(panel, curve, scale));
        let (here, paper) = (config(scale)?, config(Scale::Paper)?);
        let mut words = Vec::new();
        if self.made(scale).is_some() {
            words.push("a made set".to_owned());
        } else if here.dataset != paper.dataset {
            words.push(here.dataset.clone());
        }
        if let Some(samples) =
            here.samples_per_client.filter(|_| here.samples_per_client != paper.samples_per_client)
        {
            words.push(format!("{samples} images a device"));
        }
        if let Some(size) = here.image_size.filter(|_| here.image_size != paper.image_size) {
            words.push(format!("{size}x{size}"));
        }
        if here.rounds != paper.rounds {
            words.push(counted(here.rounds, "round"));
        }
        if here.local_epochs != paper.local_epochs {
            words.push(counted(here.local_epochs, "local epoch"));
        }
        Ok(words.join(", "))
    }

    /// What the scale changes against the paper's, in words: `25 rounds (paper: 50)`. Empty at the paper's scale.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings contradict one another.
    pub(crate) fn changes(&self, scale: Scale) -> Result<Vec<String>, Error> {
        let mut changes: Vec<String> = Vec::new();
        if self.made(scale).is_some() {
            changes.push("a made set, not the real one".to_owned());
        }
        for panel in &self.panels {
            for curve in &panel.curves {
                let table = |scale| -> Result<toml::Table, Error> {
                    let config = Config::resolve(&self.settings(panel, curve, scale))?;
                    Ok(config.to_toml().parse().expect("a configuration is a table"))
                };
                let (here, paper) = (table(scale)?, table(Scale::Paper)?);
                let keys = here.keys().chain(paper.keys().filter(|key| !here.contains_key(*key)));
                for key in keys.filter(|key| here.get(*key) != paper.get(*key)) {
                    // They follow from others, or say nothing to a reader.
                    if ["finetune_epochs", "data_dir"].contains(&key.as_str()) {
                        continue;
                    }
                    let show = |table: &toml::Table| match table.get(key) {
                        Some(toml::Value::String(text)) => text.clone(),
                        Some(value) => value.to_string(),
                        None => "not set".to_owned(),
                    };
                    let change =
                        format!("{} {} (paper: {})", key.replace('_', " "), show(&here), show(&paper));
                    if !changes.contains(&change) {
                        changes.push(change);
                    }
                }
            }
        }
        Ok(changes)
    }
}

fn counted(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
