//! fedper: personalised federated learning on one machine.
//!
//! A [`config::Config`] and a dataset make an [`experiment::Experiment`]; [`simulator::run`] runs it and writes a
//! [`rundir::RunDir`]; [`report`] draws what a run directory holds, and
//! [`predict`] classifies images with a device's network from it. [`bench`](mod@bench) measures; [`cli`] is the
//! command line over all of it.

pub mod bench;
pub mod cli;
pub mod failure;
mod reproduce;

pub use fedper_network as network;
pub use fedper_report as report;
use fedper_run::{campaign, cores};
pub use fedper_run::{config, error, experiment, import, kept, predict, rundir, simulator};
