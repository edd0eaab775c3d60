//! A convolution's products, a panel of outputs at a time.

use super::MAX_SEGMENTS;
use crate::kernel::BLOCK;
use crate::kernel::gemm::{Kernel, Product, Rows, Segment, Start};
use crate::layer::Extent;
use crate::layer::geometry::Walk;
use crate::parameter::Panel;

/// Weights of one panel `[tap][input][panel width]`.
#[derive(Clone, Copy)]
pub(in crate::layer) struct Taps<'a> {
    pub(in crate::layer) values: &'a [f32],
    /// From one tap to the next.
    pub(in crate::layer) stride: usize,
}

/// Computes one panel of `to` at every position from the positions of `from` that its taps name, times weights.
/// `sides` are those of `from` and `to`.
#[allow(clippy::too_many_arguments, reason = "what a layer's pass touches")]
pub(in crate::layer) fn walk_panel(
    kernel: &Kernel,
    walk: &Walk,
    [from_side, to_side]: [Extent; 2],
    from: &[f32],
    to: &mut [f32],
    samples: usize,
    panel: Panel,
    weights: Taps<'_>,
    start: Start,
) {
    let tap_len = from_side.blocks * BLOCK * panel.width();
    let (from_plane, to_plane) = (from_side.stride(samples), to_side.stride(samples));
    assert!(from.len() >= from_side.len(samples) && to.len() >= to_side.len(samples));
    assert!(panel.range().end <= to_side.blocks);
    let mut segments = [Segment { a: std::ptr::null(), b: std::ptr::null() }; MAX_SEGMENTS];
    for (run, taps, start) in walk.sums(MAX_SEGMENTS, start) {
        assert!(run.to + run.len <= to_side.positions);
        for (segment, tap) in segments.iter_mut().zip(taps) {
            assert!(tap.from + run.len <= from_side.positions);
            *segment = Segment {
                a: from[tap.from * samples * BLOCK..].as_ptr(),
                b: weights.values[tap.tap * weights.stride..][..tap_len].as_ptr(),
            };
        }
        let product = Product {
            segments: &segments[..taps.len()],
            rows: Rows::Blocked { blocks: from_side.blocks, plane: from_plane },
            c: to[panel.first * to_plane + run.to * samples * BLOCK..].as_mut_ptr(),
            c_plane: to_plane,
            start,
        };
        // SAFETY: the run's rows are among the positions of every plane of `from` and `to` (asserted above), a tap's weights
        // are whole rows of the panel, and a start row is a panel of a padded bias.
        unsafe { kernel.product(&product, panel.blocks, run.len * samples) };
    }
}
