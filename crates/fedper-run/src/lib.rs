//! Federated learning experiments: what is run, and the rounds that run it.
//!
//! A [`config::Config`] and a dataset make an [`experiment::Experiment`]. [`campaign`] is the one round loop, wherever the
//! devices are: [`simulator::run`] has them as worker threads on this machine and writes a [`rundir::RunDir`]. [`predict`]
//! classifies images with a device's network from it.
//!
//! Inside: `config <- experiment <- {device, rundir} <- {settled, campaign} <- simulator <- {outcome, builder}`; [`predict`],
//! [`kept`] and [`import`] stand beside. Nothing here knows a command line, a socket or a report.

pub mod builder;
pub mod campaign;
pub mod config;
pub mod cores;
mod cost;
pub mod device;
pub mod error;
pub mod experiment;
pub mod import;
pub mod kept;
pub mod outcome;
pub mod predict;
pub mod rundir;
pub mod settled;
pub mod simulator;

pub use error::Error;
