//! Layers: forward and backward passes written out by hand.
//!
//! Activations are blocked by channels, `[block][height][width][batch][16]`: a *plane* holds 16 channels of all
//! positions, and in it the rows of neighbouring positions are neighbours. So a tap of a convolution over a run of
//! positions is a plain matrix, what is per channel is a loop over a plane, and what a panel of a convolution has just
//! written is normalised while it is still in the cache. Channels that fill up the last block are zero, in activations,
//! gradients and weights alike, and stay zero. What lies between planes ([`Extent`]) is never read. Only the input of the network is image-major,
//! `[batch][height][width][channels]`.
//!
//! A layer is a file with an implementation of [`Layer`]; `network::compile` says when it is used.

pub(crate) mod activation;
pub(crate) mod bf16;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod geometry;
pub(crate) mod group_norm;
pub(crate) mod input;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod norm;
mod pass;
pub(crate) mod pool;
pub(crate) mod pooled_conv;
pub(crate) mod pooled_stem;
pub(crate) mod stem;
#[cfg(test)]
mod testing;
pub(crate) mod way;
pub(crate) mod weight;
pub(crate) mod winograd;

use std::ops::Range;

pub(crate) use self::pass::{
    Backward, Done, Forward, InputGradient, InputGradients, Inputs, Mode, Pass, Planes, Slot, Target,
};
use crate::kernel::bf16::Half;
use crate::kernel::buffer::{Buffer, Value};
use crate::kernel::{BLOCK, blocks};
use crate::parameter::{Parameters, Sink};

/// What a network computes in one place: forward and backward, with the parameters that it has.
pub(crate) trait Layer: Parameters + Send {
    /// Asks for the memory that its passes use for batches of up to `max_batch`, with or without a gradient of its input.
    fn reserve(&self, scratch: &mut Scratch, max_batch: usize, input_gradient: bool);

    /// Computes the whole of `pass.y`. In train mode it keeps what its backward pass needs.
    fn forward(&mut self, pass: Forward<'_>);

    /// The backward pass of the last train-mode forward pass: the gradients of the inputs that are asked for, and those of
    /// its parameters, which `pass.sink` uses up. Gradients of inputs come first: weights may change right after.
    fn backward(&mut self, pass: Backward<'_>);

    /// The input whose gradient it makes where that of its output lies, if there is one. To the gradients of its other
    /// inputs such a layer never adds.
    fn in_place(&self) -> Option<usize>;

    /// Itself, if it can work on each plane by itself, as soon as that is there.
    fn by_planes(&mut self) -> Option<&mut dyn ByPlanes> {
        None
    }

    /// Whether each output is one of the inputs as it was. Then an activation before it can stop the gradient of the output
    /// instead of that of the input, which has more positions.
    fn selects(&self) -> bool {
        false
    }
}

/// A layer that works on planes. What is before it hands it each plane while that is in the cache.
pub(crate) trait ByPlanes {
    /// `z` of one block from `y`, and from the same block of its second input if it has one.
    fn forward(&mut self, block: usize, y: &[f32], residual: Option<&[f32]>, z: &mut [f32], pass: Pass);

    /// The backward pass of one block. `g` is the gradient of its output, and becomes that of `y`; with a second input, where
    /// the output was `z`, it becomes the gradient of that, and the gradient of `y` goes into `dy`.
    fn backward(
        &mut self,
        block: usize,
        y: &[f32],
        g: &mut [f32],
        residual: Option<(&[f32], &mut [f32])>,
        pass: Pass,
    );

    /// Uses up the gradients of its parameters, once the backward pass is over for all blocks.
    fn finish(&mut self, sink: Sink<'_>);
}

/// The shape of activations, apart from the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) blocks: usize,
    pub(crate) positions: usize,
}

/// Rows between planes that would otherwise lie a multiple of so many rows apart: they would compete for the same few
/// sets of a cache.
const GAP: usize = 33;
const CROWDED: usize = 8;

impl Extent {
    pub(crate) fn new(channels: usize, [height, width]: [usize; 2]) -> Self {
        Self { blocks: blocks(channels), positions: height * width }
    }

    /// Values of a plane.
    pub(crate) fn plane(&self, samples: usize) -> usize {
        self.positions * samples * BLOCK
    }

    /// Values from the beginning of a plane to that of the next.
    pub(crate) fn stride(&self, samples: usize) -> usize {
        let rows = self.positions * samples;
        let crowded = self.blocks > 1 && rows.is_multiple_of(CROWDED);
        (rows + if crowded { GAP } else { 0 }) * BLOCK
    }

    /// Values of all planes, with what lies between them.
    pub(crate) fn len(&self, samples: usize) -> usize {
        self.blocks * self.stride(samples)
    }

    /// Values that suffice for any batch up to this one.
    pub(crate) fn capacity(&self, max_batch: usize) -> usize {
        self.blocks * (self.positions * max_batch + GAP) * BLOCK
    }

    /// Where plane `block` lies.
    pub(crate) fn range(&self, block: usize, samples: usize) -> Range<usize> {
        let start = block * self.stride(samples);
        start..start + self.plane(samples)
    }
}

/// Memory that layers use one after the other.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The weight gradient of one panel.
    pub(crate) gradient: Buffer,
    /// Weights with input and output channels exchanged, or a gradient in another order.
    pub(crate) transposed: Buffer,
    /// What a convolution computes before it is pooled, or the gradient of that.
    pub(crate) outputs: Buffer,
    /// Inputs of a convolution, sample by sample.
    pub(crate) inputs: Buffer,
    /// Inputs and weights of a convolution as [`winograd`] multiplies them, its outputs, and the weights with inputs and
    /// outputs exchanged.
    pub(crate) points: winograd::Points,
    pub(crate) products: Buffer,
    pub(crate) turned: Buffer,
    /// Inputs and weights of a first convolution as [`crate::kernel::winograd::lines`] multiplies them.
    pub(crate) lines: [Buffer; 2],
    /// Never written.
    pub(crate) zeros: Buffer,
    /// Left and right matrices in bf16, and what must stay longer.
    pub(crate) halves: [Buffer<Half>; 3],
}

impl Scratch {
    /// Grows to what a layer needs.
    pub(crate) fn reserve(&mut self, gradient: usize, transposed: usize) {
        grow(&mut self.gradient, gradient);
        grow(&mut self.transposed, transposed);
    }

    /// As [`Scratch::reserve`].
    pub(crate) fn reserve_pooled(&mut self, outputs: usize, inputs: usize) {
        grow(&mut self.outputs, outputs);
        grow(&mut self.inputs, inputs);
    }

    /// As [`Scratch::reserve`].
    pub(crate) fn reserve_lines(&mut self, lens: [usize; 2]) {
        self.lines.iter_mut().zip(lens).for_each(|(lines, len)| grow(lines, len));
    }

    /// As [`Scratch::reserve`].
    pub(crate) fn reserve_halves(&mut self, lens: [usize; 3]) {
        self.halves.iter_mut().zip(lens).for_each(|(halves, len)| grow(halves, len));
    }
}

fn grow<T: Value>(buffer: &mut Buffer<T>, len: usize) {
    if buffer.len() < len {
        *buffer = Buffer::zeros(len);
    }
}
