//! fedper: personalised federated learning on one machine.
//!
//! A [`config::Config`] and a dataset make an [`experiment::Experiment`]; [`simulator::run`] runs it and writes a
//! [`rundir::RunDir`]; [`report`] draws what a run directory holds, and
//! [`predict`] classifies images with a device's network from it. [`bench`](mod@bench) measures; [`cli`] is the
//! command line over all of it.

pub mod bench;
mod campaign;
pub mod cli;
pub mod config;
mod cores;
mod cost;
mod device;
pub mod error;
pub mod experiment;
pub mod failure;
pub mod import;
pub mod kept;
pub mod network;
pub mod predict;
mod reproduce;
pub mod rundir;
mod settled;
pub mod simulator;

pub use fedper_report as report;
