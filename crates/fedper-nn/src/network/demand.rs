//! How much memory a network takes at least, before any of it is asked for.

use crate::NnError;
use crate::arch::{Architecture, MOST, Op, Shape};
use crate::kernel::BLOCK;

/// Refuses a network whose memory no machine could address, or this system says that it cannot give. Once this has passed,
/// no size that is computed for the network overflows.
pub(super) fn check(architecture: &Architecture, max_batch: usize) -> Result<(), NnError> {
    let values = values(architecture, max_batch);
    let missing = || NnError::Memory {
        architecture: architecture.name.clone(),
        batch: max_batch,
        bytes: u64::try_from(4 * values).unwrap_or(u64::MAX),
    };
    if values > MOST as u128 {
        return Err(missing());
    }
    // Asked for in one piece and given back untouched: systems that lend more than they have refuse what is out of reach.
    Vec::<f32>::new().try_reserve_exact(values as usize).map_err(|_| missing())
}

/// Weights and velocities, and all activations of a batch.
fn values(architecture: &Architecture, max_batch: usize) -> u128 {
    let mut shape = architecture.input_shape();
    let ops = architecture.blocks.iter().flat_map(|block| &block.ops);
    let activations: u128 = ops.map(|op| outputs(op, &mut shape)).sum();
    2 * architecture.layout().numel() as u128 + activations * max_batch as u128
}

/// What `op` writes for one image; `shape` becomes that of its output.
fn outputs(op: &Op, shape: &mut Shape) -> u128 {
    let path = |ops: &[Op], mut shape: Shape| ops.iter().map(|op| outputs(op, &mut shape)).sum::<u128>();
    let inside = match op {
        Op::Residual { main, shortcut } => path(main, *shape) + path(shortcut, *shape),
        _ => 0,
    };
    *shape = shape.after(op).expect("validated: shapes meet");
    let written = match op {
        // In place, or as a part of the operation before.
        Op::Relu | Op::Relu6 | Op::Flatten | Op::Residual { .. } => 0,
        _ => shape.positions() as u128 * shape.channels.div_ceil(BLOCK) as u128 * BLOCK as u128,
    };
    inside + written
}
