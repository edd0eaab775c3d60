//! fedper: personalised federated learning on one machine.
//!
//! A program can bring along samples, shards, a network and methods of its own, and has the results in memory:
//!
//! ```
//! use fedper::prelude::*;
//!
//! // Forty images of 8x8 pixels: dark ones and light ones.
//! let labels: Vec<u16> = (0..40).map(|sample| sample % 2).collect();
//! let pixels = labels.iter().flat_map(|&label| [60 + 120 * label as u8; 64]).collect();
//! let data = Dataset::from_memory("shades", &["dark", "light"], [8, 8, 1], pixels, labels)?;
//! let shards = (0..4).map(|device| {
//!     let own: Vec<u32> = (10 * device..10 * device + 10).collect();
//!     Shard { train: own[..8].to_vec(), test: own[8..].to_vec() }
//! });
//! let network = Architecture::from_blocks(
//!     "tiny",
//!     InputShape { channels: 1, height: 8, width: 8 },
//!     2,
//!     vec![
//!         Block::new("conv", vec![Op::conv("conv", [1, 4], 3), Op::Relu, Op::max_pool(2)]),
//!         Block::new("fc", vec![Op::Flatten, Op::linear("fc", 4 * 4 * 4, 2)]),
//!     ],
//! )?;
//! let run = Experiment::builder()
//!     .data(data)
//!     .shards(shards.collect())
//!     .network(network)
//!     .algorithm(&["fedper", "fedavg"])
//!     .rounds(5)
//!     .batch_size(2)
//!     .run()?;
//! assert_eq!(run.device(3).accuracy(), Some(1.0));
//! assert_eq!(run.personal("fedper", 3)?.layout().specs()[0].name, "fc.weight");
//! assert!(run.base("fedper")?.get("conv.weight").is_some());
//! # Ok::<(), Error>(())
//! ```
//!
//! [`experiment::Experiment::builder`] says the rest; `examples/` has a program for each.
//!
//! A [`config::Config`] and a dataset make an [`experiment::Experiment`]; [`simulator::run`] runs it and writes a
//! [`rundir::RunDir`]; [`report`] draws what a run directory holds, and
//! [`predict`] classifies images with a device's network from it. [`bench`](mod@bench) measures; [`cli`] is the
//! command line over all of it.

pub mod bench;
mod brought;
pub mod builder;
mod campaign;
pub mod cli;
pub mod config;
mod cores;
mod cost;
mod device;
pub mod error;
pub mod experiment;
pub mod failure;
mod given;
pub mod import;
pub mod kept;
pub mod network;
pub mod outcome;
pub mod predict;
pub mod prelude;
mod reproduce;
pub mod rundir;
mod settled;
pub mod simulator;

pub use fedper_report as report;
