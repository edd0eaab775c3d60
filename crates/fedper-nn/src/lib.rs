//! Networks, layers and SGD: a CPU training engine.
//!
//! A network is described as data ([`Architecture`]), and [`Network`] trains it: explicit layers with hand-written
//! forward and backward passes, buffers allocated once, one thread. Semantics are PyTorch's, parameters carry the
//! field's names and PyTorch's memory order ([`fedper_core::params`]), and results repeat bit for bit on a machine.
//!
//! ```text
//! arch       networks as data                    layer    forward and backward passes, a file a layer
//! network    a network in memory                 kernel   inner loops, per instruction set
//! parameter  values, velocities, SGD's step      weights  safetensors
//! ```

mod arch;
mod error;
mod kernel;
mod layer;
mod network;
mod parameter;
mod precision;
#[cfg(test)]
mod testing;

pub mod weights;

pub use arch::{Architecture, Block, BlockSummary, InputShape, Model, Norm, Op, Stem};
pub use error::NnError;
pub use kernel::elementwise::Sgd;
pub use kernel::isa::InstructionSet;
pub use layer::loss::StepMetrics;
pub use layer::way::Way;
pub use network::{Batch, Network, Planned};
pub use precision::Precision;
