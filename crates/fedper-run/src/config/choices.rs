//! Keys of a configuration whose value is one of a few words.

use serde::{Deserialize, Deserializer, Serialize};

use super::value::{Value, Word};

/// An enum of words: the names that are typed and written, and the documentation comments as their help.
macro_rules! words {
    ($(
        $(#[$of_type:meta])*
        pub enum $type:ident { $($(#[doc = $help:literal])+ $variant:ident = $name:literal,)+ }
    )+) => { $(
        $(#[$of_type])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum $type { $($(#[doc = $help])+ #[serde(rename = $name)] $variant),+ }

        impl Value for $type {
            const WORDS: &'static [Word] = &[$(Word { name: $name, help: concat!($($help),+) }),+];

            fn read(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", [$($name),+].join(", "))),
                }
            }
        }
    )+ };
}

words! {
    /// What happens to the batch-norm statistics (running mean and variance) of the base. Personal ones always stay.
    #[derive(Deserialize)]
    pub enum BatchNorm {
        /// Averaged with the base.
        Average = "average",
        /// They stay on the device.
        Local = "local",
        /// Averaged, but each device starts a round with fresh ones.
        Reset = "reset",
        /// Averaged, but a device measures them afresh on its own training images before its network is tested or used.
        Recalibrate = "recalibrate",
    }

    /// What is done to training images before each step, at random and from the seed.
    pub enum Augment {
        /// Nothing.
        None = "none",
        /// Cropped out of itself with 4 pixels of padding, and mirrored every second time, as the field does on CIFAR.
        CropFlip = "crop-flip",
    }

    /// The course of the learning rate over the run's rounds; see [`fedper_core::schedule::Course`].
    #[derive(Deserialize)]
    pub enum LrSchedule {
        /// The same in every round.
        Constant = "constant",
        /// Half a cosine, towards 0 at the end.
        Cosine = "cosine",
        /// Times `lr_step_factor` after every `lr_step_rounds` rounds.
        Step = "step",
    }

    /// What of a held-out device's network is trained, once training is over.
    #[derive(Deserialize)]
    pub enum NewClientLayers {
        /// Its personal layers; the base stays as it is, batch-norm statistics included.
        Personal = "personal",
        /// Everything.
        All = "all",
    }
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
