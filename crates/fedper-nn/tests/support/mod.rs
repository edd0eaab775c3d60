//! Golden files and the formula their inputs come from; also included by the tests of the `fedper` crate.
#![allow(dead_code, reason = "each test binary that includes this uses a part of it")]

pub(crate) mod formula;
pub(crate) mod golden;
pub(crate) mod report;
pub(crate) mod rounds;
