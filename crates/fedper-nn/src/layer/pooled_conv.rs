//! A convolution by Winograd's tiles with the activation and the 2x2 max-pool that follow it, as one layer: a tile's outputs
//! are pooled as soon as they are known, and neither they nor their gradient are ever stored.

use super::conv::Conv;
use super::geometry::Window;
use super::winograd::{Part, Points};
use super::{Backward, Extent, Forward, Layer, Scratch};
use crate::kernel::elementwise::Activation;
use crate::kernel::winograd::Side;
use crate::kernel::winograd::pooled::{pooled_gradients, pooled_outputs};
use crate::parameter::parameters;

pub(crate) struct PooledConv {
    conv: Conv,
    activation: Activation,
    windows: Windows,
    /// From one pass to the next.
    points: Points,
    /// The position of its window that each output came from.
    winner: Vec<u8>,
}

parameters!(PooledConv: conv);

/// What is pooled to.
#[derive(Clone, Copy)]
struct Windows {
    extent: Extent,
    /// Height and width.
    size: [usize; 2],
}

impl Windows {
    /// The samples of a part of the convolution's output, and row and column of its first window.
    fn of(&self, part: &Part, samples: usize) -> (Side, [isize; 2]) {
        (part.side(self.extent, self.size, samples), part.corner.map(|corner| corner / 2))
    }
}

impl PooledConv {
    /// # Panics
    /// If the convolution is not one by tiles.
    pub(crate) fn new(
        conv: Conv,
        window: &Window,
        activation: Activation,
        channels: usize,
        max_batch: usize,
    ) -> Self {
        let winograd = conv.winograd.expect("a convolution by tiles");
        let points = winograd.points(conv.blocks());
        let size = window.output().map(|extent| extent / 2);
        let windows = Windows { extent: Extent::new(channels, size), size };
        Self { conv, activation, windows, points, winner: vec![0; windows.extent.capacity(max_batch)] }
    }
}

impl Layer for PooledConv {
    fn reserve(&self, scratch: &mut Scratch, _: usize, _: bool) {
        self.conv.reserve_tiles(scratch);
    }

    /// # Shapes
    /// `y` is what the pool leaves.
    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, scratch, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        let Self { conv, activation, windows, points, winner } = self;
        conv.forward_tiles(points, x, samples, scratch, |points, bias, part| {
            let (side, corner) = windows.of(part, samples);
            pooled_outputs(points, &part.tile, y, winner, &side, corner, bias, activation.range());
        });
    }

    /// # Shapes
    /// `dy` is the gradient of what the pool left, already stopped by the activation.
    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, dy, mut gradients, pass, scratch, sink, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        let Self { conv, windows, points, winner, .. } = self;
        let winograd = conv.winograd.expect("a convolution by tiles");
        let take = |points: &mut [f32], _: &[f32], part: &Part, pair| {
            let (side, corner) = windows.of(part, samples);
            pooled_gradients(dy, winner, &side, corner, pair, points, &part.tile);
        };
        let groups = winograd.pairs();
        conv.backward_tiles(points, true, x, gradients.of(0), samples, scratch, sink, done, groups, take);
        if let Some(bias) = &mut conv.bias {
            bias.backward(dy, windows.extent, samples, sink);
        }
    }

    fn in_place(&self) -> Option<usize> {
        None
    }
}
