//! Which gradient lives in which buffer: gradients of activations live only from the last reader's backward pass to the
//! writer's, so a few buffers serve a deep network.

use super::compile::{INPUT, Layer, Node};
use crate::layer::Extent;

/// Where a node's backward pass puts a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) buffer: usize,
    /// Another reader's gradient is there already.
    pub(crate) add: bool,
}

/// The buffers of a node's backward pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gradients {
    /// The gradient of what the node wrote; its own to overwrite.
    pub(crate) output: usize,
    /// For nodes that can work in place: where they compute the gradient of what they read, `output` or a buffer of
    /// its own.
    pub(crate) compute: usize,
    /// The gradient of what the node read, unless that is the input. For nodes that can work in place, not to add
    /// means that it is `compute` itself.
    pub(crate) source: Option<Target>,
    /// The gradient of what the node added; not to add means that it is `output` itself.
    pub(crate) residual: Option<Target>,
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
pub(crate) fn assign(nodes: &mut [Node], slots: &[Extent], max_batch: usize) -> (Vec<usize>, usize) {
    let slots: Vec<usize> = slots.iter().map(|slot| slot.capacity(max_batch)).collect();
    let mut pool = Pool::default();
    let mut held: Vec<Option<usize>> = vec![None; slots.len()];
    let logits = pool.take(*slots.last().expect("there is an input"));
    held[slots.len() - 1] = Some(logits);
    // The output gradient of a node that completes a batch norm's is still read while that one's is computed.
    let mut still_read = None;
    for node in nodes.iter_mut().rev() {
        let output = held[node.to].take().expect("every slot is read, and the last one is the logits");
        let mut gradients = Gradients { output, compute: output, ..Gradients::default() };
        let in_place = matches!(node.layer, Layer::Norm(_) | Layer::Activation(_) | Layer::Add(_));
        let mut output_taken = false;
        if let Some(slot) = node.residual {
            // The residual's gradient is read after the source's is computed, so that one needs its own buffer.
            gradients.compute = pool.take(slots[node.from]);
            gradients.residual = Some(match held[slot] {
                Some(buffer) => Target { buffer, add: true },
                None => {
                    output_taken = true;
                    held[slot] = Some(output);
                    Target { buffer: output, add: false }
                }
            });
        }
        if node.from != INPUT {
            let target = match held[node.from] {
                Some(buffer) => {
                    if gradients.compute != output {
                        pool.give(gradients.compute);
                    }
                    Target { buffer, add: true }
                }
                None if in_place => {
                    output_taken |= gradients.compute == output;
                    Target { buffer: gradients.compute, add: false }
                }
                None => Target { buffer: pool.take(slots[node.from]), add: false },
            };
            held[node.from] = Some(target.buffer);
            gradients.source = Some(target);
        }
        if let Some(buffer) = still_read.take() {
            pool.give(buffer);
        }
        if !output_taken {
            match node.completes_norm {
                true => still_read = Some(output),
                false => pool.give(output),
            }
        }
        node.gradients = gradients;
    }
    (pool.sizes, logits)
}
