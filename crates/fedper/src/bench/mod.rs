//! Measuring what this machine does.

pub mod scale;
