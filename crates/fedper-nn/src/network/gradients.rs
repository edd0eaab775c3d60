//! Which gradient lives in which buffer: gradients of activations live only from the last reader's backward pass to the
//! writer's, so a few buffers serve a deep network.

use super::compile::Node;
use crate::layer::{Slot, Target};

/// The buffers of a node's backward pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// The gradient of what the node wrote; its own to overwrite.
    pub(crate) output: usize,
    /// For the gradient of each of its inputs.
    pub(crate) targets: Vec<Target>,
}

#[derive(Default)]
struct Pool {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Pool {
    fn take(&mut self, size: usize) -> usize {
        // The smallest that suffices, or else the largest, which then grows.
        let fits = |&&b: &&usize| (self.sizes[b] < size, self.sizes[b].abs_diff(size));
        match self.free.iter().min_by_key(fits).copied() {
            Some(buffer) => {
                self.free.retain(|&b| b != buffer);
                self.sizes[buffer] = self.sizes[buffer].max(size);
                buffer
            }
            None => {
                self.sizes.push(size);
                self.sizes.len() - 1
            }
        }
    }

    fn give(&mut self, buffer: usize) {
        debug_assert!(!self.free.contains(&buffer));
        self.free.push(buffer);
    }
}

/// Walks the nodes from the logits to the input and assigns buffers. Returns the size of each buffer, in values, and the
/// buffer of the logits' gradient.
pub(crate) fn assign(nodes: &mut [Node], max_batch: usize) -> (Vec<usize>, usize) {
    let size = |slot: &Slot| slot.extent.capacity(max_batch);
    let mut pool = Pool::default();
    // The buffer of each slot's gradient, once a reader has written to it. Every node writes one slot.
    let mut held: Vec<Option<usize>> = vec![None; nodes.len() + 1];
    let last = nodes.last().expect("there are nodes").to;
    let logits = pool.take(size(&last));
    held[last.number] = Some(logits);
    // The output gradient of a node that completes the one before is still read while that one's is computed.
    let mut still_read = None;
    for node in nodes.iter_mut().rev() {
        let output = held[node.to.number].take().expect("every slot is read, and the last one is the logits");
        let mut targets = vec![Target::default(); node.reads.len()];
        let mut output_taken = false;
        let in_place = node.layer.in_place();
        if let Some(i) = in_place {
            let held = &mut held[node.reads[i].number];
            targets[i].then = *held;
            if held.is_none() {
                (*held, output_taken) = (Some(output), true);
            }
        }
        let mut own = Vec::new();
        for (i, slot) in node.reads.iter().enumerate() {
            if slot.is_input() || in_place == Some(i) {
                continue;
            }
            let twice = node.reads[..i].contains(slot);
            targets[i] = match held[slot.number] {
                // To a gradient that it has written itself no layer adds.
                Some(buffer) if in_place.is_some() || twice => {
                    own.push(pool.take(size(slot)));
                    Target { buffer: own.last().copied(), add: false, then: Some(buffer) }
                }
                Some(buffer) => Target { buffer: Some(buffer), add: true, then: None },
                None => {
                    held[slot.number] = Some(pool.take(size(slot)));
                    Target { buffer: held[slot.number], add: false, then: None }
                }
            };
        }
        own.into_iter().chain(still_read.take()).for_each(|buffer| pool.give(buffer));
        if !output_taken {
            match node.completes {
                true => still_read = Some(output),
                false => pool.give(output),
            }
        }
        node.plan = Plan { output, targets };
    }
    (pool.sizes, logits)
}
