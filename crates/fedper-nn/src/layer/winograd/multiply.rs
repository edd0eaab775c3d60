//! Products of one point of a tile.

use crate::kernel::BLOCK;
use crate::kernel::gemm::{Kernel, Outer, Product, Rows, Segment, Start, Stretch};
use crate::kernel::transpose::transpose;
use crate::layer::Extent;
use crate::layer::weight::Weight;
use crate::parameter::Panel;

/// One point of weights with inputs and outputs exchanged.
pub(super) fn turn(weight: &Weight, from: &[f32], to: &mut [f32]) {
    let inner = weight.pairs() * BLOCK * BLOCK / weight.rows;
    for inputs in weight.input_panels() {
        for outputs in weight.panels() {
            for (i, input) in inputs.range().enumerate() {
                for (o, output) in outputs.range().enumerate() {
                    let from = &from
                        [outputs.first * BLOCK * weight.rows + input * BLOCK * outputs.width() + o * BLOCK..];
                    let to =
                        &mut to[inputs.first * BLOCK * inner + output * BLOCK * inputs.width() + i * BLOCK..];
                    transpose(from, outputs.width(), to, inputs.width());
                }
            }
        }
    }
}

/// One point and panel of a product, for as many rows as `to` has. `sides` are the points of `from` and `to`, `filters` all
/// panels.
#[allow(clippy::too_many_arguments, reason = "as above")]
pub(super) fn multiply(
    kernel: &Kernel,
    panel: Panel,
    filters: &[f32],
    [from_side, to_side]: [Extent; 2],
    from: &[f32],
    to: &mut [f32],
    samples: usize,
) {
    let (a_plane, c_plane) = (from_side.stride(samples), to_side.stride(samples));
    let (inner, rows) = (from_side.blocks * BLOCK, to_side.positions * samples);
    assert!(from.len() >= (from_side.blocks - 1) * a_plane + rows * BLOCK);
    let filters = &filters[panel.first * BLOCK * inner..][..inner * panel.width()];
    let product = Product {
        segments: &[Segment { a: from.as_ptr(), b: filters.as_ptr() }],
        rows: Rows::Blocked { blocks: from_side.blocks, plane: a_plane },
        c: to[panel.first * c_plane..][..panel.blocks * c_plane].as_mut_ptr(),
        c_plane,
        start: Start::Zero,
    };
    // SAFETY: there are these rows in every plane of both, and the filters are a panel of whole rows.
    unsafe { kernel.product(&product, panel.blocks, rows) };
}

/// One point and panel of the products of inputs and outputs' gradients.
#[allow(clippy::too_many_arguments, reason = "as above")]
pub(super) fn multiply_outer(
    kernel: &Kernel,
    panel: Panel,
    dw: &mut [f32],
    add: bool,
    [x_side, dy_side]: [Extent; 2],
    x: &[f32],
    dy: &[f32],
    samples: usize,
) {
    assert!(x.len() >= x_side.len(samples));
    let dy_plane = dy_side.stride(samples);
    let dy = &dy[panel.first * dy_plane..][..panel.blocks * dy_plane];
    let inner = x_side.blocks * BLOCK;
    let dw = &mut dw[panel.first * BLOCK * inner..][..inner * panel.width()];
    let stretches = [Stretch { x: x.as_ptr(), dy: dy.as_ptr(), rows: x_side.positions * samples }];
    let outer = Outer {
        stretches: &stretches,
        inputs: Rows::Blocked { blocks: x_side.blocks, plane: x_side.stride(samples) },
        dy_plane,
        dw: dw.as_mut_ptr(),
        add,
    };
    // SAFETY: as in `multiply`; `dw` has a row of the panel for each input.
    unsafe { kernel.outer(&outer, panel.blocks) };
}
