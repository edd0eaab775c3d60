//! Image-major input into blocks, for a network that does not begin with a convolution or a linear layer.

use super::{Backward, Extent, Forward, Layer, Scratch};
use crate::kernel::BLOCK;
use crate::parameter::parameters;

pub(crate) struct Input {
    pub(crate) channels: usize,
    pub(crate) extent: Extent,
}

parameters!(Input:);

impl Layer for Input {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        block_images(pass.inputs.of(0), pass.y, self.extent, pass.pass.samples, self.channels);
    }

    /// Images need no gradient.
    fn backward(&mut self, _: Backward<'_>) {}

    fn in_place(&self) -> Option<usize> {
        None
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
