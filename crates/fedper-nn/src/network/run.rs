//! The forward and the backward pass of a compiled network.

use std::cell::Cell;
use std::mem::take;
use std::ops::Range;

use super::compile::Node;
use crate::kernel::buffer::Buffer;
use crate::kernel::elementwise::{Activation, activate, add, mask};
use crate::layer::{Backward, Extent, Forward, InputGradients, Inputs, Pass, Planes, Scratch};
use crate::parameter::Sink;

/// What the nodes of a network work on.
pub(crate) struct Memory {
    /// Activations, by slot. The input's slot stays empty: images are read where they are.
    pub(crate) slots: Vec<Buffer>,
    /// Gradients of activations.
    pub(crate) gradients: Vec<Buffer>,
    /// Values of an image.
    pub(crate) image: usize,
    /// `[batch][classes]`.
    pub(crate) logits: Buffer,
    pub(crate) scratch: Scratch,
}

/// Runs all nodes; a node that feeds the next one runs that as well.
pub(crate) fn forward(nodes: &mut [Node], memory: &mut Memory, images: &[f32], pass: Pass) {
    let mut rest = nodes;
    while let [node, after @ ..] = rest {
        let (fed, after) = match (node.feeds, after) {
            (true, [fed, after @ ..]) => (Some(fed), after),
            (_, after) => (None, after),
        };
        forward_node(node, fed, memory, images, pass);
        rest = after;
    }
}

/// Calls `done` for the blocks that a layer has not handed over, after those up to `handed`.
fn hand_over(handed: usize, extent: Extent, samples: usize, values: &mut [f32], done: Done<'_>) {
    if handed < extent.blocks {
        done(handed..extent.blocks, &mut values[handed * extent.stride(samples)..]);
    }
}

type Done<'a> = &'a mut dyn FnMut(Range<usize>, &mut [f32]);

fn forward_node(node: &mut Node, fed: Option<&mut Node>, memory: &mut Memory, images: &[f32], pass: Pass) {
    let Memory { slots, scratch, .. } = memory;
    let samples = pass.samples;
    let Node { layer, reads, to, activation, .. } = node;
    // Taken out while they are written, so that the others can be read.
    let mut buffer = take(&mut slots[to.number]);
    let y = &mut buffer[..to.extent.len(samples)];
    let mut fed = fed.map(|node| (take(&mut slots[node.to.number]), node));
    let slots_read = &slots[..];
    let handed = Cell::new(0);
    let mut done = |blocks: Range<usize>, part: &mut [f32]| {
        handed.set(blocks.end);
        match &mut fed {
            Some((z, node)) => {
                let planes = Planes { blocks, extent: to.extent, pass };
                let residual = node.reads.get(1).map(|slot| &slot.of(slots_read, samples)[planes.range()]);
                planes.forward(node.by_planes(), part, residual, &mut z[planes.range()]);
            }
            None => activate_if(part, *activation),
        }
    };
    let inputs = Inputs { images, slots: slots_read, reads, samples };
    layer.forward(Forward { inputs, y, pass, scratch, done: &mut done });
    hand_over(handed.get(), to.extent, samples, y, &mut done);
    if let Some((z, node)) = fed {
        slots[node.to.number] = z;
    }
    slots[to.number] = buffer;
}

/// The backward pass of the last train-mode forward pass, from the gradient of the logits in their buffer, down to node
/// `first`. A node that completes the one before runs that as well.
pub(crate) fn backward(
    nodes: &mut [Node],
    first: usize,
    memory: &mut Memory,
    images: &[f32],
    pass: Pass,
    sink: Sink<'_>,
) {
    let mut rest = nodes;
    while let [before @ .., node] = rest
        && before.len() >= first
    {
        let (completed, before) = match (node.completes && before.len() > first, before) {
            (true, [before @ .., completed]) => (Some(completed), before),
            (_, before) => (None, before),
        };
        backward_node(node, completed, first, memory, images, pass, sink);
        rest = before;
    }
}

fn backward_node(
    node: &mut Node,
    completed: Option<&mut Node>,
    first: usize,
    memory: &mut Memory,
    images: &[f32],
    pass: Pass,
    sink: Sink<'_>,
) {
    let Memory { slots, gradients, scratch, .. } = memory;
    let samples = pass.samples;
    let Node { layer, reads, to, stops, plan, .. } = &mut *node;
    let mut output = take(&mut gradients[plan.output]);
    let (dy, z) = (&mut output[..to.extent.len(samples)], to.of(slots, samples));
    mask_if(dy, z, *stops);
    // With the gradient of what it reads, if that does not lie where its output's does.
    let mut completed = completed.map(|node| {
        let own = node.plan.targets[0].buffer.map(|buffer| take(&mut gradients[buffer]));
        (node, own)
    });
    let handed = Cell::new(0);
    let mut done = |blocks: Range<usize>, part: &mut [f32]| {
        handed.set(blocks.end);
        if let Some((node, own)) = &mut completed {
            let planes = Planes { blocks, extent: node.to.extent, pass };
            let [y, z] = [&node.reads[0], &node.to].map(|slot| &slot.of(slots, samples)[planes.range()]);
            let residual = own.as_mut().map(|own| (z, &mut own[planes.range()]));
            planes.backward(node.by_planes(), y, part, residual);
        }
    };
    // A node writes the slot after its number, so up to `first` nobody needs the gradients of slots. What works in place
    // cannot leave any out.
    let unread = if layer.in_place().is_some() { 0 } else { first };
    let inputs = Inputs { images, slots, reads, samples };
    let targets = &plan.targets[..];
    let mut to_inputs = InputGradients { reads, targets, buffers: gradients, unread, samples };
    layer.backward(Backward {
        inputs,
        z,
        dy,
        gradients: InputGradients { buffers: &mut *to_inputs.buffers, ..to_inputs },
        pass,
        scratch,
        sink,
        done: &mut done,
    });
    if let Some(dx) = to_inputs.of(0) {
        hand_over(handed.get(), reads[0].extent, samples, dx.values, &mut done);
    }
    gradients[plan.output] = output;
    if let Some((node, own)) = completed {
        node.by_planes().finish(sink);
        if let (Some(buffer), Some(own)) = (node.plan.targets[0].buffer, own) {
            gradients[buffer] = own;
        }
        add_up(node, gradients, samples);
    }
    add_up(node, gradients, samples);
}

/// Adds the gradients that a node has computed for itself to those of other readers.
fn add_up(node: &Node, gradients: &mut [Buffer], samples: usize) {
    // What is made in place first: another one may be added to it.
    let in_place = |i: &usize| node.plan.targets[*i].buffer.is_none();
    let inputs = 0..node.reads.len();
    for i in inputs.clone().filter(in_place).chain(inputs.filter(|i| !in_place(i))) {
        let (target, len) = (node.plan.targets[i], node.reads[i].extent.len(samples));
        if let Some(then) = target.then {
            let mut to = take(&mut gradients[then]);
            add(&mut to[..len], &gradients[target.buffer.unwrap_or(node.plan.output)][..len]);
            gradients[then] = to;
        }
    }
}

fn activate_if(y: &mut [f32], activation: Activation) {
    if activation != Activation::Identity {
        activate(y, activation.range());
    }
}

fn mask_if(g: &mut [f32], z: &[f32], activation: Activation) {
    if activation != Activation::Identity {
        mask(g, z, activation.range());
    }
}
