//! The forward and the backward pass of a compiled network.

use std::mem::take;
use std::ops::Range;

use super::compile::{INPUT, Layer, Node};
use super::gradients::Target;
use crate::kernel::BLOCK;
use crate::kernel::buffer::Buffer;
use crate::kernel::elementwise::{Activation, activate, activate_into, add, add_activate, mask};
use crate::layer::norm::Norm;
use crate::layer::{Extent, Scratch, pool};
use crate::optim::Sink;

/// What the nodes of a network work on.
pub(crate) struct Memory {
    /// Activations, by slot. The input's slot stays empty: images are read where they are.
    pub(crate) slots: Vec<Buffer>,
    /// Gradients of activations.
    pub(crate) gradients: Vec<Buffer>,
    /// The shape of each slot.
    pub(crate) extents: Vec<Extent>,
    /// Values of an image.
    pub(crate) image: usize,
    /// `[batch][classes]`.
    pub(crate) logits: Buffer,
    pub(crate) scratch: Scratch,
}

impl Memory {
    /// What slot `slot` holds for a batch.
    pub(crate) fn read<'a>(&'a self, slot: usize, images: &'a [f32], samples: usize) -> &'a [f32] {
        match slot {
            INPUT => images,
            _ => &self.slots[slot][..self.len(slot, samples)],
        }
    }

    fn len(&self, slot: usize, samples: usize) -> usize {
        self.extents[slot].len(samples)
    }
}

/// What batch norm works on: a few blocks of tensors of one shape.
#[derive(Clone)]
struct Part {
    blocks: Range<usize>,
    extent: Extent,
    samples: usize,
}

impl Part {
    fn new(blocks: Range<usize>, extent: Extent, samples: usize) -> Self {
        Self { blocks, extent, samples }
    }

    /// Where the blocks lie in a whole tensor.
    fn range(&self) -> Range<usize> {
        let stride = self.extent.stride(self.samples);
        self.blocks.start * stride..self.blocks.end * stride
    }

    /// Each block with where its plane lies in the part.
    fn planes(self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.blocks.clone().enumerate().map(move |(i, block)| (block, self.extent.range(i, self.samples)))
    }
}

pub(crate) fn forward(nodes: &mut [Node], memory: &mut Memory, images: &[f32], samples: usize, train: bool) {
    let mut rest = nodes;
    while let [node, after @ ..] = rest {
        let (norm, after) = match (node.feeds_norm, after) {
            (true, [norm, after @ ..]) => (Some(norm), after),
            (_, after) => (None, after),
        };
        forward_node(node, norm, memory, images, samples, train);
        rest = after;
    }
}

/// Runs a node, and the batch norm that it feeds.
fn forward_node(
    node: &mut Node,
    norm: Option<&mut Node>,
    memory: &mut Memory,
    images: &[f32],
    samples: usize,
    train: bool,
) {
    // Taken out while they are written, so that the others can be read.
    let mut buffer = take(&mut memory.slots[node.to]);
    let mut scratch = take(&mut memory.scratch);
    let y = &mut buffer[..memory.len(node.to, samples)];
    let extent = memory.extents[node.to];
    let mut after = norm.map(|node| {
        let Layer::Norm(norm) = &mut node.layer else { unreachable!("a node feeds batch norms only") };
        (norm, node.to, take(&mut memory.slots[node.to]), node.residual)
    });
    let x = memory.read(node.from, images, samples);
    let mut done = |activation: Activation, blocks: Range<usize>, part: &mut [f32]| match &mut after {
        Some((norm, _, z, residual)) => {
            let blocks = Part::new(blocks, extent, samples);
            let residual = residual.map(|slot| &memory.read(slot, images, samples)[blocks.range()]);
            let z = &mut z[blocks.range()];
            normalise(norm, blocks, part, residual, z, train);
        }
        None => activate_if(part, activation),
    };
    match &mut node.layer {
        Layer::Input { channels } => block_images(x, y, extent, samples, *channels),
        Layer::Stem(stem, a) => {
            stem.forward(x, y, samples, &mut scratch, |blocks, part| done(*a, blocks, part))
        }
        Layer::Conv(conv, a) => {
            conv.forward(x, y, samples, &mut scratch, |blocks, part| done(*a, blocks, part))
        }
        Layer::Linear(layer, a) => {
            layer.forward(x, y, samples, &mut scratch, |blocks, part| done(*a, blocks, part))
        }
        Layer::PooledStem(stem) => stem.forward(x, y, samples, &mut scratch),
        Layer::PooledConv(conv) => conv.forward(x, y, samples, &mut scratch),
        Layer::Depthwise(conv, a) => conv.forward(x, y, samples, |blocks, part| done(*a, blocks, part)),
        Layer::Norm(norm) => {
            let residual = node.residual.map(|slot| memory.read(slot, images, samples));
            normalise(norm, Part::new(0..extent.blocks, extent, samples), x, residual, y, train);
        }
        Layer::Activation(activation) => activate_into(x, y, activation.range()),
        Layer::Add(activation) => {
            let residual = node.residual.expect("a sum has two terms");
            add_activate(x, memory.read(residual, images, samples), y, activation.range());
        }
        Layer::MaxPool(max, _) => max.forward(x, y, samples),
        Layer::AveragePool => pool::average(x, y, memory.extents[node.from], samples),
    }
    memory.scratch = scratch;
    if let Some((_, to, z, _)) = after {
        memory.slots[to] = z;
    }
    memory.slots[node.to] = buffer;
}

/// Batch norm of a part of `y`, `residual` and `z`.
fn normalise(norm: &mut Norm, part: Part, y: &[f32], residual: Option<&[f32]>, z: &mut [f32], train: bool) {
    for (block, range) in part.planes() {
        let residual = residual.map(|residual| &residual[range.clone()]);
        norm.forward(block, &y[range.clone()], residual, &mut z[range], train);
    }
}

fn activate_if(y: &mut [f32], activation: Activation) {
    if activation != Activation::Identity {
        activate(y, activation.range());
    }
}

/// The backward pass of the last train-mode forward pass, from the gradient of the logits in their buffer, down to node
/// `first`.
pub(crate) fn backward(
    nodes: &mut [Node],
    first: usize,
    memory: &mut Memory,
    images: &[f32],
    samples: usize,
    sink: &mut Sink<'_>,
) {
    let mut rest = nodes;
    while let [before @ .., node] = rest
        && before.len() >= first
    {
        let (norm, before) = match (node.completes_norm, before) {
            (true, [before @ .., norm]) => (Some(norm), before),
            (_, before) => (None, before),
        };
        match node.layer {
            Layer::Norm(_) | Layer::Activation(_) | Layer::Add(_) => {
                backward_in_place(node, memory, images, samples, sink);
            }
            _ => backward_across(node, norm, memory, images, samples, sink),
        }
        rest = before;
    }
}

/// A node whose input gradient goes into another buffer, and the batch norm before it if it completes its gradient.
fn backward_across(
    node: &mut Node,
    norm: Option<&mut Node>,
    memory: &mut Memory,
    images: &[f32],
    samples: usize,
    sink: &mut Sink<'_>,
) {
    let plan = node.gradients;
    let mut output = take(&mut memory.gradients[plan.output]);
    let mut scratch = take(&mut memory.scratch);
    let mut buffer = plan.source.map(|target| take(&mut memory.gradients[target.buffer]));
    let mut before = norm.map(|node| {
        let Layer::Norm(norm) = &mut node.layer else { unreachable!("a node completes batch norms only") };
        let plan = node.gradients;
        let own = (plan.compute != plan.output).then(|| take(&mut memory.gradients[plan.compute]));
        (norm, node.from, plan, own)
    });
    let g = &mut output[..memory.len(node.to, samples)];
    let x = memory.read(node.from, images, samples);
    let z = memory.read(node.to, images, samples);
    let add = plan.source.is_some_and(|target| target.add);
    let own = |activation| if node.stopped { Activation::Identity } else { activation };
    let dx = buffer.as_mut().map(|buffer| &mut buffer[..x.len()]);
    let mut done = |blocks: Range<usize>, part: &mut [f32]| {
        if let Some((norm, from, _, own)) = &mut before {
            let blocks = Part::new(blocks, memory.extents[*from], samples);
            let y = &memory.read(*from, images, samples)[blocks.range()];
            let residual = own.as_mut().map(|own| (&x[blocks.range()], &mut own[blocks.range()]));
            denormalise(norm, blocks, y, part, residual);
        }
    };
    match &mut node.layer {
        Layer::Stem(stem, activation) => {
            mask_if(g, z, own(*activation));
            stem.weight_gradient(x, g, samples, &mut scratch, sink);
        }
        Layer::PooledStem(stem) => {
            mask_if(g, z, stem.activation);
            stem.weight_gradient(x, g, samples, &mut scratch, sink);
        }
        Layer::PooledConv(conv) => {
            mask_if(g, z, conv.activation);
            conv.backward(x, g, dx, samples, add, &mut scratch, sink);
        }
        Layer::Conv(conv, activation) => {
            mask_if(g, z, own(*activation));
            conv.backward(x, g, dx, samples, add, &mut scratch, sink, done);
        }
        Layer::Linear(layer, activation) => {
            mask_if(g, z, own(*activation));
            layer.backward(x, g, dx, samples, add, &mut scratch, sink, done);
        }
        Layer::Depthwise(conv, activation) => {
            mask_if(g, z, own(*activation));
            if let Some(dx) = dx {
                conv.input_gradient(g, dx, samples, add, &mut done);
            }
            conv.weight_gradient(x, g, samples, sink);
        }
        Layer::MaxPool(max, activation) => {
            // What won decides whether its gradient passes.
            mask_if(g, z, *activation);
            if let Some(dx) = dx {
                max.backward(g, dx, samples, add);
            }
        }
        Layer::AveragePool => {
            if let Some(dx) = dx {
                pool::average_gradient(g, dx, memory.extents[node.from], samples, add);
            }
        }
        Layer::Input { .. } | Layer::Norm(_) | Layer::Activation(_) | Layer::Add(_) => {}
    }
    memory.scratch = scratch;
    if let (Some(target), Some(buffer)) = (plan.source, buffer) {
        memory.gradients[target.buffer] = buffer;
    }
    memory.gradients[plan.output] = output;
    if let Some((norm, from, plan, own)) = before {
        norm.finish(sink);
        if let Some(own) = own {
            memory.gradients[plan.compute] = own;
        }
        let len = memory.len(from, samples);
        add_targets(memory, len, [(plan.residual, plan.output), (plan.source, plan.compute)]);
    }
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
    let len = memory.len(node.to, samples);
    let g = &mut output[..len];
    let dx = own.as_mut().map(|own| &mut own[..len]);
    let z = memory.read(node.to, images, samples);
    match &mut node.layer {
        Layer::Norm(norm) => {
            let y = memory.read(node.from, images, samples);
            let extent = memory.extents[node.to];
            let part = Part::new(0..extent.blocks, extent, samples);
            denormalise(norm, part, y, g, dx.map(|dx| (z, dx)));
            norm.finish(sink);
        }
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
    add_targets(memory, len, [(plan.residual, plan.output), (plan.source, plan.compute)]);
}

/// The backward pass of batch norm for a part of `y`, `g` and `residual`.
fn denormalise(
    norm: &mut Norm,
    part: Part,
    y: &[f32],
    g: &mut [f32],
    mut residual: Option<(&[f32], &mut [f32])>,
) {
    for (block, range) in part.planes() {
        let residual = residual.as_mut().map(|(z, dy)| (&z[range.clone()], &mut dy[range.clone()]));
        norm.backward(block, &y[range.clone()], &mut g[range], residual);
    }
}

/// Adds gradients to those of other readers.
fn add_targets(memory: &mut Memory, len: usize, targets: [(Option<Target>, usize); 2]) {
    for (target, from) in targets {
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

/// `[batch][positions][channels]` into blocks.
fn block_images(images: &[f32], to: &mut [f32], extent: Extent, samples: usize, channels: usize) {
    let stride = extent.stride(samples);
    to.fill(0.0);
    for (n, from) in images.chunks_exact(extent.positions * channels).enumerate() {
        for (position, from) in from.chunks_exact(channels).enumerate() {
            for (c, &value) in from.iter().enumerate() {
                to[c / BLOCK * stride + (position * samples + n) * BLOCK + c % BLOCK] = value;
            }
        }
    }
}

/// `[batch][channels]` into blocks of one position.
pub(crate) fn block_rows(from: &[f32], to: &mut [f32], samples: usize, channels: usize) {
    let extent = Extent::new(channels, [1, 1]);
    block_images(from, &mut to[..extent.len(samples)], extent, samples, channels);
}

/// Blocks of one position into `[batch][channels]`.
pub(crate) fn unblock_rows(from: &[f32], to: &mut [f32], samples: usize, channels: usize) {
    let stride = Extent::new(channels, [1, 1]).stride(samples);
    for (n, to) in to.chunks_exact_mut(channels).enumerate() {
        for (c, value) in to.iter_mut().enumerate() {
            *value = from[c / BLOCK * stride + n * BLOCK + c % BLOCK];
        }
    }
}
