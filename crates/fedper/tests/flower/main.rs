//! Federations on a real, unmodified SuperLink. `scripts/test-flower.sh` makes the environment that they need and runs them;
//! `cargo test` alone counts them as ignored.

#[path = "../common/mod.rs"]
mod common;
mod support;

mod agreement;
mod faults;
mod kills;
mod labels;
mod own_data;
mod python;
mod restart;
mod scale;
mod security;
mod traffic;
