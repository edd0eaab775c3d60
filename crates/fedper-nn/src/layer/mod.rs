//! Layers: forward and backward passes written out by hand.
//!
//! Activations are position-major, `[height][width][batch][channels]`: the rows of neighbouring positions are
//! neighbours, so a tap of a convolution over a run of positions is a plain matrix, and what is per channel is a loop
//! over rows. Only the input of the network is image-major, `[batch][height][width][channels]`.

pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod geometry;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod pool;
pub(crate) mod stem;
pub(crate) mod weight;

use crate::kernel::buffer::Buffer;

/// Memory that layers use one after the other.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The weight gradient of one panel (of all panels in [`stem`]).
    pub(crate) gradient: Buffer,
    /// Weights with input and output channels exchanged.
    pub(crate) transposed: Buffer,
    /// Windows of the input, one a row.
    pub(crate) windows: Buffer,
}

impl Scratch {
    /// Grows to what a layer needs.
    pub(crate) fn reserve(&mut self, gradient: usize, transposed: usize, windows: usize) {
        for (buffer, len) in
            [(&mut self.gradient, gradient), (&mut self.transposed, transposed), (&mut self.windows, windows)]
        {
            if buffer.len() < len {
                *buffer = Buffer::zeros(len);
            }
        }
    }
}
