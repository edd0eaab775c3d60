//! fedper: personalised federated learning on one machine.

pub mod rundir;
