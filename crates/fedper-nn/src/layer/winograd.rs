//! A 3x3 convolution of stride 1 by Winograd's minimal filtering: tiles of 2x2 outputs, a matrix product for each point of
//! [`crate::kernel::winograd`]. All samples of a tile are rows of these products; so are as many tiles as the
//! second-level cache holds.

use super::geometry::Window;
use super::weight::{Panel, Weight};
use super::{Extent, Scratch, blocks};
use crate::kernel::BLOCK;
use crate::kernel::gemm::{Kernel, Outer, Product, Rows, Segment, Start, Stretch};
use crate::kernel::winograd::{
    OUTPUTS, POINTS, Side, TAPS, Tile, filter_gradients, filters, inputs, output_gradients, outputs,
};

/// Channels from which on transforms cost little beside the products.
const MIN_CHANNELS: usize = 32;
/// Weights up to which reading more of them (16 for 9) costs little beside the products.
const MAX_WEIGHTS: usize = 1 << 20;
/// How many products of a direct convolution cost as much as one of these, with its share of the transforms.
const COST: f64 = 1.25;

/// Rows of activations, of one block, that are worked on at a time, and how many they are at least.
const BLOCK_ROWS: usize = 512;
const MIN_ROWS: usize = 64;

/// How the tiles of a convolution lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winograd {
    input: [usize; 2],
    output: [usize; 2],
    padding: usize,
}

/// Some samples of some tiles.
struct Chunk {
    tiles: std::ops::Range<usize>,
    samples: std::ops::Range<usize>,
}

impl Chunk {
    /// Points of so many blocks.
    fn points(&self, blocks: usize) -> Extent {
        Extent { blocks, positions: self.tiles.len() }
    }

    fn rows(&self) -> usize {
        self.tiles.len() * self.samples.len()
    }

    /// Where a tile of the chunk lies in its points.
    fn tile(&self, tile: usize, blocks: usize) -> Tile {
        let (points, samples) = (self.points(blocks), self.samples.len());
        let first = (tile - self.tiles.start) * samples * BLOCK;
        Tile { point: points.len(samples), plane: points.stride(samples), first }
    }

    /// The chunk's samples of activations.
    fn side(&self, extent: Extent, [height, width]: [usize; 2], samples: usize) -> Side {
        Side {
            extent: [height, width],
            blocks: extent.blocks,
            plane: extent.stride(samples),
            row: samples * BLOCK,
            first: self.samples.start * BLOCK,
            len: self.samples.len() * BLOCK,
        }
    }
}

/// Rows of a chunk at most.
fn chunk_rows(blocks: usize) -> usize {
    (BLOCK_ROWS / blocks).max(MIN_ROWS)
}

impl Winograd {
    /// If a convolution can be computed so, and is faster then.
    pub(crate) fn new(window: &Window, channels: [usize; 2], groups: usize) -> Option<Self> {
        let weights = channels.map(|channels| blocks(channels) * BLOCK).iter().product::<usize>();
        let fits = window.kernel == [TAPS; 2] && window.stride == 1 && window.padding < TAPS && groups == 1;
        let worth = channels.into_iter().all(|c| c >= MIN_CHANNELS) && weights * TAPS * TAPS <= MAX_WEIGHTS;
        if !fits || !worth {
            return None;
        }
        let own = Self { input: window.input, output: window.output(), padding: window.padding };
        let direct: usize = window.forward().runs.iter().map(|run| run.len * run.taps.len()).sum();
        ((own.tiles() * POINTS) as f64 * COST < direct as f64).then_some(own)
    }

    fn columns(&self) -> usize {
        self.output[1].div_ceil(OUTPUTS)
    }

    fn tiles(&self) -> usize {
        self.output[0].div_ceil(OUTPUTS) * self.columns()
    }

    /// Row and column of a tile's first output.
    fn corner(&self, tile: usize) -> [isize; 2] {
        [tile / self.columns(), tile % self.columns()].map(|i| (i * OUTPUTS) as isize)
    }

    /// Row and column of a tile's first input.
    fn input_corner(&self, tile: usize) -> [isize; 2] {
        self.corner(tile).map(|i| i - self.padding as isize)
    }

    /// What computes the input's gradient from the output's.
    pub(crate) fn turned(&self) -> Self {
        Self { input: self.output, output: self.input, padding: TAPS - 1 - self.padding }
    }

    fn chunks(&self, samples: usize, rows: usize) -> impl Iterator<Item = Chunk> + use<> {
        let (all, count) = (self.tiles(), (rows / samples).max(1));
        let rows = samples.div_ceil(samples.div_ceil(rows));
        (0..all).step_by(count).flat_map(move |first| {
            (0..samples).step_by(rows).map(move |sample| Chunk {
                tiles: first..all.min(first + count),
                samples: sample..samples.min(sample + rows),
            })
        })
    }

    /// Reserves what both passes need.
    pub(crate) fn reserve(scratch: &mut Scratch, [from, to]: [usize; 2]) {
        let rows = chunk_rows(from.min(to));
        let points = Extent { blocks: from.max(to), positions: 1 }.capacity(rows);
        scratch.reserve_points(POINTS * points, POINTS * from * to * BLOCK * BLOCK, rows * BLOCK);
    }

    /// `y = start + x * weights`, where `scratch.filters` holds the weights of all panels, in order, for each point.
    #[allow(clippy::too_many_arguments, reason = "private to layers, and called from two places")]
    pub(crate) fn product(
        &self,
        kernel: &Kernel,
        [from, to]: [Extent; 2],
        panels: impl Iterator<Item = Panel> + Clone,
        x: &[f32],
        y: &mut [f32],
        samples: usize,
        start: Start,
        scratch: &mut Scratch,
    ) {
        let Scratch { points: [u, m], filters, zeros, .. } = scratch;
        let (inner, matrix) = (from.blocks * BLOCK, from.blocks * to.blocks * BLOCK * BLOCK);
        for chunk in self.chunks(samples, chunk_rows(from.blocks.min(to.blocks))) {
            let (x_side, y_side) =
                (chunk.side(from, self.input, samples), chunk.side(to, self.output, samples));
            for tile in chunk.tiles.clone() {
                let to = chunk.tile(tile, from.blocks);
                inputs(x, &x_side, self.input_corner(tile), zeros, u, &to);
            }
            let [left, right] = [from.blocks, to.blocks].map(|blocks| chunk.tile(chunk.tiles.start, blocks));
            assert!(u.len() >= POINTS * left.point && m.len() >= POINTS * right.point);
            for point in 0..POINTS {
                let filters = &filters[point * matrix..][..matrix];
                for panel in panels.clone() {
                    let b = &filters[panel.first * BLOCK * inner..][..inner * panel.width()];
                    let segments = [Segment { a: u[point * left.point..].as_ptr(), b: b.as_ptr() }];
                    let product = Product {
                        segments: &segments,
                        rows: Rows::Blocked { blocks: from.blocks, plane: left.plane },
                        c: m[point * right.point + panel.first * right.plane..].as_mut_ptr(),
                        c_plane: right.plane,
                        start: Start::Zero,
                    };
                    // SAFETY: the chunk's rows lie in every plane of a point of `u` and `m` (asserted above), and `b` is a
                    // panel of whole rows.
                    unsafe { kernel.product(&product, panel.blocks, chunk.rows()) };
                }
            }
            for tile in chunk.tiles.clone() {
                outputs(m, &chunk.tile(tile, to.blocks), y, &y_side, self.corner(tile), start);
            }
        }
    }

    /// The weights of all panels for each point.
    pub(crate) fn forward_filters(weight: &Weight, scratch: &mut Scratch) {
        let matrix = weight.values().len() / weight.taps;
        for panel in weight.panels() {
            let len = weight.rows * panel.width();
            let to = &mut scratch.filters[panel.start / weight.taps..];
            filters(&weight.values()[panel.start..], len, false, to, matrix);
        }
    }

    /// The same for the input's gradient.
    pub(crate) fn backward_filters(weight: &Weight, alive: &[bool], scratch: &mut Scratch) {
        let matrix = weight.values().len() / weight.taps;
        let outputs = matrix / weight.rows;
        let Scratch { transposed, filters: to, .. } = scratch;
        for panel in weight.input_panels() {
            weight.transpose(panel, alive, transposed);
            let to = &mut to[panel.first * BLOCK * outputs..];
            filters(transposed, outputs * panel.width(), true, to, matrix);
        }
    }

    /// The products of input and output gradient for each point: the weights' gradient before its transform, as
    /// [`Winograd::forward_filters`] has the weights.
    pub(crate) fn outer(
        &self,
        kernel: &Kernel,
        [from, to]: [Extent; 2],
        panels: impl Iterator<Item = Panel> + Clone,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
    ) {
        let Scratch { points: [u, m], filters, zeros, .. } = scratch;
        let (inner, matrix) = (from.blocks * BLOCK, from.blocks * to.blocks * BLOCK * BLOCK);
        filters[..POINTS * matrix].fill(0.0);
        for chunk in self.chunks(samples, chunk_rows(from.blocks.min(to.blocks))) {
            let (x_side, y_side) =
                (chunk.side(from, self.input, samples), chunk.side(to, self.output, samples));
            for tile in chunk.tiles.clone() {
                let at = chunk.tile(tile, from.blocks);
                inputs(x, &x_side, self.input_corner(tile), zeros, u, &at);
                let at = chunk.tile(tile, to.blocks);
                output_gradients(dy, &y_side, self.corner(tile), zeros, m, &at);
            }
            let [left, right] = [from.blocks, to.blocks].map(|blocks| chunk.tile(chunk.tiles.start, blocks));
            assert!(u.len() >= POINTS * left.point && m.len() >= POINTS * right.point);
            for point in 0..POINTS {
                let filters = &mut filters[point * matrix..][..matrix];
                for panel in panels.clone() {
                    let dw = &mut filters[panel.first * BLOCK * inner..][..inner * panel.width()];
                    let stretches = [Stretch {
                        x: u[point * left.point..].as_ptr(),
                        dy: m[point * right.point + panel.first * right.plane..].as_ptr(),
                        rows: chunk.rows(),
                    }];
                    let outer = Outer {
                        stretches: &stretches,
                        inputs: Rows::Blocked { blocks: from.blocks, plane: left.plane },
                        dy_plane: right.plane,
                        dw: dw.as_mut_ptr(),
                    };
                    // SAFETY: as in `product`.
                    unsafe { kernel.outer(&outer, panel.blocks) };
                }
            }
        }
    }

    /// The gradient of one panel of weights from [`Winograd::outer`]'s products.
    pub(crate) fn gradient(weight: &Weight, panel: Panel, products: &[f32], gradient: &mut [f32]) {
        let matrix = weight.values().len() / weight.taps;
        let len = weight.rows * panel.width();
        filter_gradients(&products[panel.start / weight.taps..], matrix, gradient, len);
    }
}
