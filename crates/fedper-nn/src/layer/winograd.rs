//! A convolution of stride 1 by Winograd's minimal filtering: tiles of a few outputs, a matrix product for each point of
//! [`crate::kernel::winograd`]. All samples of a tile are rows of these products; so are as many tiles as the
//! second-level cache holds.

mod multiply;

use std::ops::Range;

use self::multiply::{multiply, multiply_outer, turn};
use super::geometry::Window;
use super::weight::Weight;
use super::{Extent, Scratch, blocks, grow};
use crate::kernel::BLOCK;
use crate::kernel::buffer::Buffer;
use crate::kernel::gemm::Kernel;
use crate::kernel::winograd::{Scheme, Side, Tile, filter_gradients, filters, input_gradients, inputs};
use crate::parameter::Panel;

/// Channels from which on transforms cost little beside the products.
const MIN_CHANNELS: usize = 32;
/// Transformed weights up to which writing and reading them costs little beside the products.
const MAX_FILTERS: usize = 3 << 19;
/// How many products of a direct convolution cost as much as one of these, with its share of the transforms.
const COST: f64 = 1.25;

/// Rows of inputs and outputs, in all points and blocks, that are worked on at a time, so that they and some of the weights
/// stay in the second-level cache.
const CHUNK: usize = 4096;
/// How many rows there are at least: one for so many weights, which are read for each chunk, and not fewer or more than so
/// many.
const WEIGHTS_A_ROW: usize = 8192;
const MIN_ROWS: usize = 14;
const MAX_ROWS: usize = 64;

/// How the tiles of a convolution lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winograd {
    scheme: Scheme,
    input: [usize; 2],
    pub(super) output: [usize; 2],
    padding: usize,
}

/// The points of a convolution's weights and inputs.
#[derive(Default)]
pub(crate) struct Points {
    /// Of all panels, in order, for each point.
    pub(crate) filters: Buffer,
    /// Of all inputs if they are few ([`Winograd::few`]), else of those that are worked on.
    inputs: Buffer,
}

/// Some samples of some tiles.
struct Chunk {
    tiles: Range<usize>,
    samples: Range<usize>,
}

impl Chunk {
    /// Points of so many blocks.
    fn points(&self, blocks: usize) -> Extent {
        Extent { blocks, positions: self.tiles.len() }
    }

    /// Its tiles in steps of about so many rows.
    fn split(&self, rows: usize) -> impl Iterator<Item = Chunk> + use<> {
        let Self { tiles, samples } = Self { tiles: self.tiles.clone(), samples: self.samples.clone() };
        let count = (rows / samples.len()).max(1);
        let count = tiles.len().div_ceil(tiles.len().div_ceil(count));
        tiles
            .clone()
            .step_by(count)
            .map(move |first| Chunk { tiles: first..tiles.end.min(first + count), samples: samples.clone() })
    }

    /// Where a tile of the chunk lies in its points.
    fn tile(&self, scheme: Scheme, tile: usize, blocks: usize) -> Tile {
        let (points, samples) = (self.points(blocks), self.samples.len());
        let first = (tile - self.tiles.start) * samples * BLOCK;
        Tile { scheme, point: point_len(points, samples), plane: points.stride(samples), first }
    }
}

/// Some samples of one tile of outputs.
pub(crate) struct Part {
    /// Where its points lie.
    pub(crate) tile: Tile,
    /// Row and column of its first output.
    pub(crate) corner: [isize; 2],
    samples: Range<usize>,
}

impl Part {
    /// Its samples of activations of a height and width.
    pub(crate) fn side(&self, extent: Extent, size: [usize; 2], samples: usize) -> Side {
        side(&self.samples, extent, size, samples)
    }
}

/// Some of the samples of activations of a height and width.
fn side(some: &Range<usize>, extent: Extent, size: [usize; 2], samples: usize) -> Side {
    Side {
        extent: size,
        blocks: extent.blocks,
        plane: extent.stride(samples),
        row: samples * BLOCK,
        first: some.start * BLOCK,
        len: some.len() * BLOCK,
    }
}

/// Values from one point of activations to the next, and of the weights between so many pairs of blocks: an odd number of
/// rows, so that a tile's values at all points lie in different sets of a cache.
fn point_len(points: Extent, samples: usize) -> usize {
    ((points.len(samples) / BLOCK) | 1) * BLOCK
}

/// As [`point_len`].
fn matrix_len(pairs: usize) -> usize {
    (pairs * BLOCK + 1) * BLOCK
}

/// Rows of a chunk at most, between so many blocks.
fn chunk_rows(scheme: Scheme, [from, to]: [usize; 2]) -> usize {
    let points = scheme.points();
    let least = points * from * to * BLOCK * BLOCK / WEIGHTS_A_ROW;
    (CHUNK / points / (from + to)).max(least.clamp(MIN_ROWS, MAX_ROWS))
}

impl Winograd {
    /// If a convolution can be computed so, and is faster then: as the number of products says. It does not depend on the
    /// batch, so neither do results.
    pub(crate) fn new(window: &Window, channels: [usize; 2], groups: usize) -> Option<Self> {
        let matrix = channels.map(|channels| blocks(channels) * BLOCK).iter().product::<usize>();
        let fits = |scheme: &Scheme| {
            window.kernel == [scheme.taps(); 2]
                && window.stride == 1
                && window.padding < scheme.taps()
                && groups == 1
                && channels.into_iter().all(|c| c >= MIN_CHANNELS)
                && matrix * scheme.points() <= MAX_FILTERS
        };
        let scheme = Scheme::ALL.into_iter().find(fits)?;
        let own = Self { scheme, input: window.input, output: window.output(), padding: window.padding };
        let direct: usize = window.forward().runs.iter().map(|run| run.len * run.taps.len()).sum();
        // The weights, which small planes have to spread over few tiles, count as one tile more.
        let products = (own.tiles() + 1) * scheme.points();
        (products as f64 * COST < direct as f64).then_some(own)
    }

    /// Pairs of points in one dimension.
    pub(crate) fn pairs(&self) -> usize {
        (self.scheme.outputs() + self.scheme.taps() - 1) / 2
    }

    fn columns(&self) -> usize {
        self.output[1].div_ceil(self.scheme.outputs())
    }

    fn tiles(&self) -> usize {
        self.output[0].div_ceil(self.scheme.outputs()) * self.columns()
    }

    /// Row and column of a tile's first output.
    fn corner(&self, tile: usize) -> [isize; 2] {
        [tile / self.columns(), tile % self.columns()].map(|i| (i * self.scheme.outputs()) as isize)
    }

    /// Row and column of a tile's first input, by those of its first output.
    fn input_corner(&self, corner: [isize; 2]) -> [isize; 2] {
        corner.map(|i| i - self.padding as isize)
    }

    /// Whether all points of so many samples' inputs are few enough to be kept, and the weights' gradient is summed at once, so
    /// that its points can take the place of those of the weights.
    fn few(&self, samples: usize) -> bool {
        self.tiles() * samples <= MAX_ROWS
    }

    /// All tiles of all samples at once if they are few, else about so many rows at a time.
    fn chunks(&self, samples: usize, rows: usize) -> impl Iterator<Item = Chunk> + use<> {
        let (tiles, few) = (0..self.tiles(), self.few(samples));
        let step = if few { samples } else { samples.div_ceil(samples.div_ceil(rows)) };
        let all = (0..samples)
            .step_by(step)
            .map(move |first| Chunk { tiles: tiles.clone(), samples: first..samples.min(first + step) });
        all.flat_map(move |chunk| chunk.split(if few { usize::MAX } else { rows }))
    }

    /// The parts of a chunk, whose points have so many blocks.
    fn parts<'a>(&self, chunk: &'a Chunk, blocks: usize) -> impl Iterator<Item = Part> + use<'a> {
        let own = *self;
        chunk.tiles.clone().map(move |tile| Part {
            tile: chunk.tile(own.scheme, tile, blocks),
            corner: own.corner(tile),
            samples: chunk.samples.clone(),
        })
    }

    /// Memory for the points of weights and inputs between so many blocks.
    pub(crate) fn points(&self, blocks: [usize; 2]) -> Points {
        let mut points = Points::default();
        self.reserve_points(&mut points, blocks);
        points
    }

    /// Grows `points` to what this convolution needs.
    pub(crate) fn reserve_points(&self, points: &mut Points, blocks: [usize; 2]) {
        grow(&mut points.filters, self.filters_len(blocks));
        grow(&mut points.inputs, self.activations_len(blocks, blocks[0]));
    }

    fn filters_len(&self, [from, to]: [usize; 2]) -> usize {
        self.scheme.points() * matrix_len(from * to)
    }

    /// Values of the points of a chunk's activations.
    fn activations_len(&self, blocks: [usize; 2], own: usize) -> usize {
        let rows = chunk_rows(self.scheme, blocks).max(MAX_ROWS);
        self.scheme.points() * (Extent { blocks: own, positions: 1 }.capacity(rows) + BLOCK)
    }

    /// Reserves what both passes need beside points.
    pub(crate) fn reserve(&self, scratch: &mut Scratch, blocks: [usize; 2]) {
        grow(&mut scratch.products, self.activations_len(blocks, blocks[1]));
        grow(&mut scratch.turned, self.filters_len(blocks));
        grow(&mut scratch.zeros, chunk_rows(self.scheme, blocks).max(MAX_ROWS) * BLOCK);
    }

    /// Hands `put` the points of each part of `x * weights`; those of the inputs and weights are left in `points`.
    #[allow(clippy::too_many_arguments, reason = "private to layers; what a product touches")]
    pub(crate) fn product(
        &self,
        kernel: &Kernel,
        [from, to]: [Extent; 2],
        weight: &Weight,
        points: &mut Points,
        x: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        mut put: impl FnMut(&[f32], &Part),
    ) {
        let matrix = matrix_len(from.blocks * to.blocks);
        let rows = chunk_rows(self.scheme, [from.blocks, to.blocks]);
        let Scratch { products: m, zeros, .. } = scratch;
        self.filters(weight, &mut points.filters);
        let Points { filters, inputs: u } = points;
        for whole in self.chunks(samples, rows) {
            let x_side = side(&whole.samples, from, self.input, samples);
            for part in self.parts(&whole, from.blocks) {
                inputs(x, &x_side, self.input_corner(part.corner), zeros, u, &part.tile);
            }
            let samples = whole.samples.len();
            for chunk in whole.split(rows) {
                let sides = [whole.points(from.blocks), chunk.points(to.blocks)];
                let first = (chunk.tiles.start - whole.tiles.start) * samples * BLOCK;
                for point in 0..self.scheme.points() {
                    let filters = &filters[point * matrix..][..matrix];
                    let u = &at(u, point, sides[0], samples)[first..];
                    let m = at(m, point, sides[1], samples);
                    for panel in weight.panels() {
                        multiply(kernel, panel, filters, sides, u, m, samples);
                    }
                }
                for part in self.parts(&chunk, to.blocks) {
                    put(m, &part);
                }
            }
        }
    }

    /// `dx +=` the gradient of the input, if that is asked for. The points of the weights make room for those of their
    /// gradient; if inputs are few and `kept`, their points are as [`Winograd::product`] has left them. `take` writes the points
    /// of each part of the outputs' gradient: all in one group, or in as many as it is said, each of which takes the place of
    /// the one before.
    #[allow(clippy::too_many_arguments, reason = "as above")]
    pub(crate) fn gradients(
        &self,
        kernel: &Kernel,
        [from, to]: [Extent; 2],
        weight: &Weight,
        points: &mut Points,
        kept: bool,
        x: &[f32],
        mut dx: Option<&mut [f32]>,
        samples: usize,
        scratch: &mut Scratch,
        groups: usize,
        mut take: impl FnMut(&mut [f32], &[f32], &Part, usize),
    ) {
        let matrix = matrix_len(from.blocks * to.blocks);
        let (rows, few) = (chunk_rows(self.scheme, [from.blocks, to.blocks]), self.few(samples));
        let Scratch { products: m, turned, zeros, .. } = scratch;
        let Points { filters, inputs: u } = points;
        for (number, chunk) in self.chunks(samples, rows).enumerate() {
            let x_side = side(&chunk.samples, from, self.input, samples);
            if !(few && kept) {
                for part in self.parts(&chunk, from.blocks) {
                    inputs(x, &x_side, self.input_corner(part.corner), zeros, u, &part.tile);
                }
            }
            let [left, right] = [chunk.points(from.blocks), chunk.points(to.blocks)];
            let group_len = self.scheme.points() / groups;
            for point in 0..self.scheme.points() {
                if point.is_multiple_of(group_len) {
                    for part in self.parts(&chunk, to.blocks) {
                        take(m, zeros, &part, point / group_len);
                    }
                }
                // All of a point at once, while it is in the first-level cache.
                let filters = &mut filters[point * matrix..][..matrix];
                let turned = &mut turned[if few { 0 } else { point * matrix }..][..matrix];
                if number == 0 && dx.is_some() {
                    turn(weight, filters, turned);
                }
                let samples = chunk.samples.len();
                let u = at(u, point, left, samples);
                let m = at(m, point % group_len, right, samples);
                for panel in weight.panels() {
                    multiply_outer(kernel, panel, filters, number > 0, [left, right], u, m, samples);
                }
                if dx.is_some() {
                    for panel in weight.input_panels() {
                        multiply(kernel, panel, turned, [right, left], m, u, samples);
                    }
                }
            }
            if let Some(dx) = &mut dx {
                for part in self.parts(&chunk, from.blocks) {
                    input_gradients(u, &part.tile, dx, &x_side, self.input_corner(part.corner));
                }
            }
        }
    }

    /// The weights of all panels, in order, for each point.
    pub(crate) fn filters(&self, weight: &Weight, to: &mut [f32]) {
        let matrix = matrix_len(weight.pairs());
        for panel in weight.panels() {
            let len = weight.rows * panel.width();
            let to = &mut to[panel.start / weight.taps..];
            filters(self.scheme, &weight.values()[panel.start..], len, to, matrix);
        }
    }

    /// The gradient of one panel of weights from the points that [`Winograd::gradients`] has left.
    pub(crate) fn gradient(&self, weight: &Weight, panel: Panel, products: &[f32], gradient: &mut [f32]) {
        let matrix = matrix_len(weight.pairs());
        let len = weight.rows * panel.width();
        filter_gradients(self.scheme, &products[panel.start / weight.taps..], matrix, gradient, len);
    }
}

/// One of the points of activations.
fn at(points: &mut [f32], point: usize, side: Extent, samples: usize) -> &mut [f32] {
    let len = point_len(side, samples);
    &mut points[point * len..][..len]
}

#[cfg(test)]
mod tests;
