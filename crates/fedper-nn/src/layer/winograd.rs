//! A convolution of stride 1 by Winograd's minimal filtering: tiles of a few outputs, a matrix product for each point of
//! [`crate::kernel::winograd`]. All samples of a tile are rows of these products; so are as many tiles as the
//! second-level cache holds.

use super::geometry::Window;
use super::weight::{Panel, Weight};
use super::{Extent, Scratch, blocks};
use crate::kernel::BLOCK;
use crate::kernel::gemm::{Kernel, Outer, Product, Rows, Segment, Start, Stretch};
use crate::kernel::winograd::{
    OUTPUTS, Scheme, Side, Tile, filter_gradients, filters, inputs, output_gradients, outputs,
};

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
const WEIGHTS_A_ROW: usize = 4096;
const MIN_ROWS: usize = 14;
const MAX_ROWS: usize = 64;

/// How the tiles of a convolution lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Winograd {
    scheme: Scheme,
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
    fn tile(&self, scheme: Scheme, tile: usize, blocks: usize) -> Tile {
        let (points, samples) = (self.points(blocks), self.samples.len());
        let first = (tile - self.tiles.start) * samples * BLOCK;
        Tile { scheme, point: points.len(samples), plane: points.stride(samples), first }
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
        Self {
            scheme: self.scheme,
            input: self.output,
            output: self.input,
            padding: self.scheme.taps() - 1 - self.padding,
        }
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
    pub(crate) fn reserve(&self, scratch: &mut Scratch, [from, to]: [usize; 2]) {
        let count = self.scheme.points();
        let rows = chunk_rows(self.scheme, [from, to]);
        let points = Extent { blocks: from.max(to), positions: 1 }.capacity(rows);
        scratch.reserve_points(count * points, count * from * to * BLOCK * BLOCK, rows * BLOCK);
    }

    /// `y = start + x * weights`, where `scratch.filters` holds the weights of all panels, in order, for each point.
    #[allow(clippy::too_many_arguments, reason = "private to layers; what a product touches")]
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
        let (scheme, points) = (self.scheme, self.scheme.points());
        let (inner, matrix) = (from.blocks * BLOCK, from.blocks * to.blocks * BLOCK * BLOCK);
        for chunk in self.chunks(samples, chunk_rows(scheme, [from.blocks, to.blocks])) {
            let (x_side, y_side) =
                (chunk.side(from, self.input, samples), chunk.side(to, self.output, samples));
            for tile in chunk.tiles.clone() {
                let to = chunk.tile(scheme, tile, from.blocks);
                inputs(x, &x_side, self.input_corner(tile), zeros, u, &to);
            }
            let [left, right] =
                [from.blocks, to.blocks].map(|blocks| chunk.tile(scheme, chunk.tiles.start, blocks));
            assert!(u.len() >= points * left.point && m.len() >= points * right.point);
            for point in 0..points {
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
                outputs(m, &chunk.tile(scheme, tile, to.blocks), y, &y_side, self.corner(tile), start);
            }
        }
    }

    /// The weights of all panels for each point.
    pub(crate) fn forward_filters(&self, weight: &Weight, scratch: &mut Scratch) {
        let matrix = weight.values().len() / weight.taps;
        for panel in weight.panels() {
            let len = weight.rows * panel.width();
            let to = &mut scratch.filters[panel.start / weight.taps..];
            filters(self.scheme, &weight.values()[panel.start..], len, false, to, matrix);
        }
    }

    /// The same for the input's gradient.
    pub(crate) fn backward_filters(&self, weight: &Weight, alive: &[bool], scratch: &mut Scratch) {
        let matrix = weight.values().len() / weight.taps;
        let outputs = matrix / weight.rows;
        let Scratch { transposed, filters: to, .. } = scratch;
        for panel in weight.input_panels() {
            weight.transpose(panel, alive, transposed);
            let to = &mut to[panel.first * BLOCK * outputs..];
            filters(self.scheme, transposed, outputs * panel.width(), true, to, matrix);
        }
    }

    /// The products of input and output gradient for each point: the weights' gradient before its transform, as
    /// [`Winograd::forward_filters`] has the weights.
    #[allow(clippy::too_many_arguments, reason = "as above")]
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
        let (scheme, points) = (self.scheme, self.scheme.points());
        let (inner, matrix) = (from.blocks * BLOCK, from.blocks * to.blocks * BLOCK * BLOCK);
        filters[..points * matrix].fill(0.0);
        for chunk in self.chunks(samples, chunk_rows(scheme, [from.blocks, to.blocks])) {
            let (x_side, y_side) =
                (chunk.side(from, self.input, samples), chunk.side(to, self.output, samples));
            for tile in chunk.tiles.clone() {
                let at = chunk.tile(scheme, tile, from.blocks);
                inputs(x, &x_side, self.input_corner(tile), zeros, u, &at);
                let at = chunk.tile(scheme, tile, to.blocks);
                output_gradients(dy, &y_side, self.corner(tile), zeros, m, &at);
            }
            let [left, right] =
                [from.blocks, to.blocks].map(|blocks| chunk.tile(scheme, chunk.tiles.start, blocks));
            assert!(u.len() >= points * left.point && m.len() >= points * right.point);
            for point in 0..points {
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
    pub(crate) fn gradient(&self, weight: &Weight, panel: Panel, products: &[f32], gradient: &mut [f32]) {
        let matrix = weight.values().len() / weight.taps;
        let len = weight.rows * panel.width();
        filter_gradients(self.scheme, &products[panel.start / weight.taps..], matrix, gradient, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::testing::Case;
    use crate::optim::Sink;
    use crate::testing::noise;

    #[test]
    fn tiles_match_plain_loops() {
        for (kernel, input, padding, channels, samples) in [
            (3, [4, 4], 1, [16, 16], 1),
            (3, [7, 5], 1, [17, 33], 3),
            (3, [6, 9], 0, [33, 20], 2),
            (3, [5, 4], 2, [16, 48], 70),
            (5, [6, 6], 0, [32, 16], 1),
            (5, [9, 7], 2, [17, 40], 3),
            (5, [8, 5], 4, [16, 33], 2),
        ] {
            let window = Window { input, kernel: [kernel; 2], stride: 1, padding };
            let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.taps() == kernel).unwrap();
            let winograd = Winograd { scheme, input, output: window.output(), padding };
            let case = Case::new(window, channels, 1, samples, |value| value);
            let sides = case.sides;
            let mut bias = case.params.at(1).to_vec();
            bias.resize(sides[1].blocks * BLOCK, 0.0);
            for kernel in Kernel::available() {
                let mut weight = Weight::new("w.weight".into(), channels, 1, window.taps(), true, kernel);
                weight.load(&case.params);
                let mut scratch = Scratch::default();
                scratch.reserve(weight.panel_len(), weight.transposed_len());
                winograd.reserve(&mut scratch, sides.map(|side| side.blocks));
                // Larger tiles lose more to rounding.
                let tolerance = if scheme == Scheme::F2x3 { 3e-6 } else { 1e-5 };
                let what = format!("{winograd:?} {channels:?} {samples}");

                let mut found = noise(sides[1].len(samples), 6);
                winograd.forward_filters(&weight, &mut scratch);
                let start = Start::Row(bias.as_ptr());
                winograd.product(
                    kernel,
                    sides,
                    weight.panels(),
                    &case.x,
                    &mut found,
                    samples,
                    start,
                    &mut scratch,
                );
                case.check_output(&found, tolerance, &what);

                let mut found = case.before.clone();
                let (turned, back) = (winograd.turned(), [sides[1], sides[0]]);
                winograd.backward_filters(&weight, &vec![true; window.taps()], &mut scratch);
                let panels = weight.input_panels();
                turned.product(kernel, back, panels, &case.dy, &mut found, samples, Start::Add, &mut scratch);
                case.check_input_gradient(&found, tolerance, &what);

                winograd.outer(kernel, sides, weight.panels(), &case.x, &case.dy, samples, &mut scratch);
                let mut out = case.params.clone();
                for panel in weight.panels() {
                    let gradient = &mut scratch.gradient[..window.taps() * weight.rows * panel.width()];
                    winograd.gradient(&weight, panel, &scratch.filters, gradient);
                    let alive = vec![true; window.taps()];
                    weight.take(panel, 0..window.taps(), gradient, &alive, &mut Sink::Store(&mut out));
                }
                let bias = case.expected[2][out.at(0).len()..].iter().map(|&value| value as f32);
                out.at_mut(1).iter_mut().zip(bias).for_each(|(out, bias)| *out = bias);
                case.check_gradients(&out, tolerance, &what);
            }
        }
    }
}
