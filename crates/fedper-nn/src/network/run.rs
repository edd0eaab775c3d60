//! The forward and the backward pass of a compiled network.

use std::mem::take;

use super::compile::{INPUT, Layer, Node};
use super::gradients::Target;
use crate::kernel::buffer::Buffer;
use crate::kernel::elementwise::{Activation, activate, activate_into, add, add_activate, mask};
use crate::layer::{Scratch, pool};
use crate::optim::Sink;

/// What the nodes of a network work on.
pub(crate) struct Memory {
    /// Activations, by slot. The input's slot stays empty: images are read where they are.
    pub(crate) slots: Vec<Buffer>,
    /// Gradients of activations.
    pub(crate) gradients: Vec<Buffer>,
    /// Values per sample of each slot.
    pub(crate) sizes: Vec<usize>,
    pub(crate) scratch: Scratch,
}

impl Memory {
    /// What slot `slot` holds for a batch.
    pub(crate) fn read<'a>(&'a self, slot: usize, images: &'a [f32], samples: usize) -> &'a [f32] {
        match slot {
            INPUT => images,
            _ => &self.slots[slot][..self.sizes[slot] * samples],
        }
    }
}

pub(crate) fn forward(nodes: &mut [Node], memory: &mut Memory, images: &[f32], samples: usize, train: bool) {
    for node in nodes {
        // Taken out while it is written, so that the others can be read.
        let mut buffer = take(&mut memory.slots[node.to]);
        let y = &mut buffer[..memory.sizes[node.to] * samples];
        let mut scratch = take(&mut memory.scratch);
        let x = memory.read(node.from, images, samples);
        match &mut node.layer {
            Layer::Input { channels } => reorder(x, y, samples, memory.sizes[INPUT], *channels),
            Layer::Stem(stem, activation) => {
                stem.forward(x, y, samples, &mut scratch);
                activate_if(y, *activation);
            }
            Layer::Conv(conv, activation) => {
                conv.forward(x, y, samples);
                activate_if(y, *activation);
            }
            Layer::Depthwise(conv, activation) => {
                conv.forward(x, y, samples);
                activate_if(y, *activation);
            }
            Layer::Norm(norm) => {
                let residual = node.residual.map(|slot| memory.read(slot, images, samples));
                norm.forward(x, residual, y, train);
            }
            Layer::Activation(activation) => activate_into(x, y, activation.range()),
            Layer::Add(activation) => {
                let residual = node.residual.expect("a sum has two terms");
                add_activate(x, memory.read(residual, images, samples), y, activation.range());
            }
            Layer::MaxPool(max) => max.forward(x, y, samples),
            Layer::AveragePool => pool::average(x, y),
        }
        memory.scratch = scratch;
        memory.slots[node.to] = buffer;
    }
}

fn activate_if(y: &mut [f32], activation: Activation) {
    if activation != Activation::Identity {
        activate(y, activation.range());
    }
}

/// The backward pass of the last train-mode forward pass, from the gradient of the logits in their buffer.
pub(crate) fn backward(
    nodes: &mut [Node],
    memory: &mut Memory,
    images: &[f32],
    samples: usize,
    sink: &mut Sink<'_>,
) {
    for node in nodes.iter_mut().rev() {
        match node.layer {
            Layer::Norm(_) | Layer::Activation(_) | Layer::Add(_) => {
                backward_in_place(node, memory, images, samples, sink);
            }
            _ => backward_across(node, memory, images, samples, sink),
        }
    }
}

/// A node whose input gradient goes into another buffer.
fn backward_across(
    node: &mut Node,
    memory: &mut Memory,
    images: &[f32],
    samples: usize,
    sink: &mut Sink<'_>,
) {
    let plan = node.gradients;
    let mut output = take(&mut memory.gradients[plan.output]);
    let mut scratch = take(&mut memory.scratch);
    let mut buffer = plan.source.map(|target| take(&mut memory.gradients[target.buffer]));
    let g = &mut output[..memory.sizes[node.to] * samples];
    let x = memory.read(node.from, images, samples);
    let z = memory.read(node.to, images, samples);
    let add = plan.source.is_some_and(|target| target.add);
    let dx = buffer.as_mut().map(|buffer| &mut buffer[..x.len()]);
    match &mut node.layer {
        Layer::Stem(stem, activation) => {
            mask_if(g, z, *activation);
            stem.weight_gradient(x, g, samples, &mut scratch, sink);
        }
        // The weights change as soon as their gradient is known, so the input's gradient comes first.
        Layer::Conv(conv, activation) => {
            mask_if(g, z, *activation);
            if let Some(dx) = dx {
                conv.input_gradient(g, dx, samples, add, &mut scratch);
            }
            conv.weight_gradient(x, g, samples, &mut scratch, sink);
        }
        Layer::Depthwise(conv, activation) => {
            mask_if(g, z, *activation);
            if let Some(dx) = dx {
                conv.input_gradient(g, dx, samples, add);
            }
            conv.weight_gradient(x, g, samples, &mut scratch, sink);
        }
        Layer::MaxPool(max) => {
            if let Some(dx) = dx {
                max.backward(g, dx, samples, add);
            }
        }
        Layer::AveragePool => {
            if let Some(dx) = dx {
                pool::average_gradient(g, dx, add);
            }
        }
        Layer::Input { .. } | Layer::Norm(_) | Layer::Activation(_) | Layer::Add(_) => {}
    }
    memory.scratch = scratch;
    if let (Some(target), Some(buffer)) = (plan.source, buffer) {
        memory.gradients[target.buffer] = buffer;
    }
    memory.gradients[plan.output] = output;
}

/// A node that can turn the gradient of its output into that of its input where it lies.
fn backward_in_place(
    node: &mut Node,
    memory: &mut Memory,
    images: &[f32],
    samples: usize,
    sink: &mut Sink<'_>,
) {
    let plan = node.gradients;
    let mut output = take(&mut memory.gradients[plan.output]);
    let mut own = (plan.compute != plan.output).then(|| take(&mut memory.gradients[plan.compute]));
    let len = memory.sizes[node.to] * samples;
    let g = &mut output[..len];
    let dx = own.as_mut().map(|own| &mut own[..len]);
    let z = memory.read(node.to, images, samples);
    match &mut node.layer {
        Layer::Norm(norm) => norm.backward(memory.read(node.from, images, samples), z, g, dx, sink),
        Layer::Activation(activation) | Layer::Add(activation) => {
            mask_if(g, z, *activation);
            if let Some(dx) = dx {
                dx.copy_from_slice(g);
            }
        }
        _ => unreachable!("the other layers work across buffers"),
    }
    memory.gradients[plan.output] = output;
    if let Some(own) = own {
        memory.gradients[plan.compute] = own;
    }
    for (target, from) in [(plan.residual, plan.output), (plan.source, plan.compute)] {
        if let Some(Target { buffer, add: true }) = target {
            let mut to = take(&mut memory.gradients[buffer]);
            add(&mut to[..len], &memory.gradients[from][..len]);
            memory.gradients[buffer] = to;
        }
    }
}

fn mask_if(g: &mut [f32], z: &[f32], activation: Activation) {
    if activation != Activation::Identity {
        mask(g, z, activation.range());
    }
}

/// `[batch][positions][channels]` into `[positions][batch][channels]`.
fn reorder(images: &[f32], to: &mut [f32], samples: usize, image: usize, channels: usize) {
    for (n, from) in images.chunks_exact(image).enumerate() {
        for (position, from) in from.chunks_exact(channels).enumerate() {
            to[(position * samples + n) * channels..][..channels].copy_from_slice(from);
        }
    }
}
