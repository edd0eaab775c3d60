//! The paper's experiments, figure by figure.
//!
//! An experiment [`file`] names every setting of a figure. A [`plan`] makes runs of it: one run directory for each curve
//! and seed, named by what it computes, so that figures share the runs that they have in common. Runs that are finished
//! are not run again, and one that was interrupted goes on. What depends on what: `file` → `plan` → `output`.

mod file;
mod output;
mod plan;

pub(crate) use file::Figure;
pub(crate) use output::draw;
pub(crate) use plan::{Plan, PlannedRun, State};

/// How much of an experiment to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scale {
    /// Minutes: small data, few rounds; it shows that everything works
    Smoke,
    /// Hours: the paper's data, fewer rounds and epochs
    Small,
    /// Days: as published
    Paper,
}

impl Scale {
    /// As typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Small => "small",
            Self::Paper => "paper",
        }
    }
}
