//! What can go wrong in this crate.

use fedper_core::params::ParamsError;
use thiserror::Error;

/// What can go wrong when a network is described, built, trained or evaluated.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NnError {
    /// A name that no model or stem has.
    #[error("there is no {what} named `{found}`; there are {known}")]
    UnknownName {
        /// What it should name, such as "model" or "stem".
        what: &'static str,
        /// What was asked for.
        found: String,
        /// All names there are.
        known: String,
    },
    /// A list of blocks that is no network: shapes that do not meet, names that occur twice.
    #[error("`{architecture}`, {place}: {reason}")]
    Architecture {
        /// The name of the architecture.
        architecture: String,
        /// The block, and the operation if it has a name.
        place: String,
        /// What does not fit.
        reason: String,
    },
    /// More personalization layers than the network has blocks.
    #[error("{asked} personalization layers asked of `{architecture}`, which has {maximum} blocks")]
    PersonalLayers {
        /// The name of the architecture.
        architecture: String,
        /// What was asked.
        asked: usize,
        /// How many blocks there are.
        maximum: usize,
    },
    /// A batch of no sample, or of more than the network was built for.
    #[error("a batch of {found} samples, expected 1 to {maximum}")]
    BatchSize {
        /// What the network was built for.
        maximum: usize,
        /// What came.
        found: usize,
    },
    /// A network, or a batch of it, that there is no memory for.
    #[error(
        "`{architecture}` takes at least {bytes} bytes of memory with batches of {batch} samples, and they cannot be had: \
         use smaller batches or smaller images"
    )]
    Memory {
        /// The name of the architecture.
        architecture: String,
        /// Samples of the largest batch.
        batch: usize,
        /// What it takes at least; `u64::MAX` if it is more than that.
        bytes: u64,
    },
    /// Images that do not have the network's input size.
    #[error("{found} image values for {samples} samples of {per_sample} values")]
    ImageLength {
        /// How many samples (labels) came.
        samples: usize,
        /// Values per image.
        per_sample: usize,
        /// How many values came.
        found: usize,
    },
    /// A label that is no class.
    #[error("sample {sample} has label {label}, but there are {classes} classes")]
    Label {
        /// Which sample of the batch.
        sample: usize,
        /// Its label.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// A training batch with one value per channel in a batch norm, whose variance would be nothing.
    #[error("batch norm `{layer}` sees one value per channel in a batch of 1; train with at least 2 samples")]
    SingleValue {
        /// The batch norm.
        layer: String,
    },
    /// Parameters that do not match the network.
    #[error(transparent)]
    Params(#[from] ParamsError),
}
