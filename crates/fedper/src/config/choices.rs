//! Keys of a configuration whose value is one of a few words.

use serde::{Deserialize, Deserializer, Serialize};

/// What happens to the batch-norm statistics (running mean and variance) of the base. Personal ones always stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BatchNorm {
    /// Averaged with the base.
    Average,
    /// They stay on the device.
    Local,
    /// Averaged, but each device starts a round with fresh ones.
    Reset,
    /// Averaged, but a device measures them afresh on its own training images before its network is tested or used.
    Recalibrate,
}

/// What is done to training images before each step, at random and from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Nothing.
    None,
    /// Cropped out of itself with 4 pixels of padding, and mirrored every second time, as the field does on CIFAR.
    CropFlip,
}

impl<'de> Deserialize<'de> for Augment {
    /// A word, or `true` and `false` as older configurations have it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "augment is \"none\" or \"crop-flip\"")]
        enum Written {
            Switch(bool),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Word {
            None,
            CropFlip,
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Switch(false) | Written::Word(Word::None) => Self::None,
            Written::Switch(true) | Written::Word(Word::CropFlip) => Self::CropFlip,
        })
    }
}

/// The course of the learning rate over the run's rounds; see [`fedper_core::schedule::Course`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// The same in every round.
    Constant,
    /// Half a cosine, towards 0 at the end.
    Cosine,
    /// Times `lr_step_factor` after every `lr_step_rounds` rounds.
    Step,
}

/// What of a held-out device's network is trained, once training is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NewClientLayers {
    /// Its personal layers; the base stays as it is, batch-norm statistics included.
    Personal,
    /// Everything.
    All,
}
