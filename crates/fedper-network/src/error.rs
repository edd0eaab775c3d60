//! What can go wrong in a federation over a network.

use fedper_flower::error::FlowerError;
use fedper_records::RecordError;
use thiserror::Error;

/// As in a run, or between it and the SuperLink.
#[derive(Debug, Error)]
pub enum Error {
    /// What can go wrong in every run.
    #[error(transparent)]
    Run(#[from] fedper_run::Error),
    /// The SuperLink cannot be talked to, or refuses this program.
    #[error(transparent)]
    Flower(#[from] FlowerError),
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        Self::Run(error.into())
    }
}

impl Error {
    /// 2 if the command line or the configuration is wrong, 130 if interrupted, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Run(error) => error.exit_code(),
            Self::Flower(FlowerError::Interrupted) => 130,
            Self::Flower(FlowerError::Key(_)) => 2,
            Self::Flower(_) => 1,
        }
    }
}
