//! fedper: personalised federated learning on one machine.

pub mod report;
pub mod rundir;
