//! Federations on a real, unmodified SuperLink. `scripts/test-flower.sh` makes the environment that they need and runs them;
//! without `FEDPER_FLOWER_VENV` they say that they are skipped.

#[path = "../common/mod.rs"]
mod common;
mod support;

mod agreement;
mod faults;
mod kills;
mod own_data;
mod python;
mod scale;
mod security;
mod traffic;
