//! The run directory: everything about a run under one folder.

pub mod records;
