//! Why a command of the program failed: as a run does, or in what only the command line does with runs.

use fedper_data::DataError;
use fedper_flower::error::FlowerError;
use fedper_nn::NnError;
use fedper_records::RecordError;
use fedper_report::ReportError;
use thiserror::Error;

use crate::error::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// As a run fails.
    #[error(transparent)]
    Run(Error),
    /// As a federation over a network fails.
    #[error(transparent)]
    Network(#[from] fedper_network::Error),
    /// A report cannot be drawn.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Some of the images that were asked about are none; each was named.
    #[error("{failed} of {all} images could not be classified")]
    Images {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
}

impl Failure {
    /// 2 if the command line or the configuration is wrong, 130 if interrupted, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Run(error) => error.exit_code(),
            Self::Network(error) => error.exit_code(),
            Self::Report(ReportError::NotARun(_)) => 2,
            Self::Report(_) | Self::Images { .. } => 1,
        }
    }
}

/// What a run's error can be made of, the command line's can.
macro_rules! as_a_run_fails {
    ($($error:ty)*) => { $(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Run(error.into())
            }
        }
    )* };
}

as_a_run_fails!(Error DataError NnError RecordError);

impl From<FlowerError> for Failure {
    fn from(error: FlowerError) -> Self {
        Self::Network(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn an_exit_code_tells_what_was_typed_wrong_from_what_went_wrong() {
        let code = |failure: Failure| failure.exit_code();
        assert_eq!(code(Error::Config("lr is 0".into()).into()), 2);
        assert_eq!(code(Error::Training("no device answered".into()).into()), 1);
        assert_eq!(code(Error::Interrupted(PathBuf::from("runs/a")).into()), 130);
        assert_eq!(code(ReportError::NotARun(PathBuf::from("thesis")).into()), 2);
        assert_eq!(code(ReportError::NoRuns.into()), 1);
        assert_eq!(code(Failure::Images { failed: 1, all: 2 }), 1);
    }
}
