//! A first convolution in bf16, from image-major input: images are rounded once, and windows copied from them into rows of
//! a left matrix, some positions at a time.
//!
//! For the weights' gradient output channels are rows and a window's values columns, so that what is transposed is the
//! smaller of both.

use std::ops::Range;

use crate::kernel::bf16::{DEPTH, Half, Kernel, Left, Outcome, Product, Right, Segment, TILE};
use crate::kernel::buffer::Buffer;
use crate::kernel::gemm::Start;
use crate::kernel::{BLOCK, rows};
use crate::layer::stem::Stem;
use crate::layer::weight::Bias;
use crate::layer::{Forward, Scratch};
use crate::parameter::Sink;

/// Values of windows that are multiplied at a time.
const CACHED: usize = 256 << 10;

/// What a first convolution needs to compute in bf16.
pub(in crate::layer) struct Bf16Stem {
    kernel: &'static Kernel,
    /// The rounded images with their padding, from the forward to the backward pass.
    images: Buffer<Half>,
    /// Steps of a window's values.
    steps: usize,
}

impl Bf16Stem {
    pub(in crate::layer) fn new(kernel: &'static Kernel, stem: &Stem, max_batch: usize) -> Self {
        let steps = (stem.window.taps() * stem.channels).div_ceil(DEPTH);
        // Windows are copied a step at a time, and so beyond their end.
        let images = Buffer::zeros(max_batch * stem.extents().1 + DEPTH);
        Self { kernel, images, steps }
    }

    /// Positions whose windows are multiplied at a time.
    fn positions(&self, samples: usize) -> usize {
        (CACHED / (samples * self.row())).max(1)
    }

    /// Values of a window, filled up to whole steps.
    fn row(&self) -> usize {
        self.steps * DEPTH
    }

    pub(in crate::layer) fn reserve(&self, scratch: &mut Scratch, stem: &Stem, max_batch: usize) {
        let panels = stem.outputs.blocks * BLOCK;
        // A batch that is a little more than a part needs the most for its rows, one of a single sample for filling up.
        let count = (CACHED / self.row() + max_batch + 1).next_multiple_of(DEPTH) + DEPTH;
        let windows = count * self.row();
        scratch.reserve_halves([windows, (panels * self.row()).max(windows), panels * count]);
        scratch.reserve(stem.weight.panel_len(), panels * self.row());
    }

    /// Rounds images into their frame, which is zero from the start.
    fn round(&mut self, stem: &Stem, images: &[f32], samples: usize) {
        let [height, width] = stem.window.input;
        let ((line, image), padding) = (stem.extents(), stem.window.padding);
        let from = images.chunks_exact(height * width * stem.channels);
        for (from, to) in from.zip(self.images.chunks_exact_mut(image)).take(samples) {
            for (from, to) in
                from.chunks_exact(width * stem.channels).zip(to.chunks_exact_mut(line).skip(padding))
            {
                self.kernel.round(from, &mut to[padding * stem.channels..][..from.len()]);
            }
        }
    }

    /// Copies the windows of some positions: a row for each sample of each.
    fn windows(&self, stem: &Stem, positions: Range<usize>, samples: usize, to: &mut [Half]) {
        let ((line, image), (down, right)) = (stem.extents(), stem.steps());
        let width = stem.window.output()[1];
        let (count, len) = (stem.window.kernel[0], stem.window.kernel[1] * stem.channels);
        let corners = positions.map(|position| position / width * down + position % width * right);
        let all = corners.flat_map(|corner| (0..samples).map(move |sample| corner + sample * image));
        // A row of a window is copied in whole steps, whose end the next one overwrites; what is left meets zeros, but must
        // be finite.
        for (corner, row) in all.zip((0..).step_by(self.row())) {
            to[row + self.row() - DEPTH..][..DEPTH].copy_from_slice(&self.images[..DEPTH]);
            for (i, from) in (0..count).map(|i| (i, corner + i * line)) {
                for first in (0..len).step_by(DEPTH) {
                    let to = &mut to[row + i * len + first..][..DEPTH];
                    to.copy_from_slice(&self.images[from + first..][..DEPTH]);
                }
            }
        }
    }
}

impl Stem {
    pub(in crate::layer) fn forward_bf16(&mut self, own: &mut Bf16Stem, pass: Forward<'_>) {
        let Forward { inputs, y, pass, scratch, .. } = pass;
        let (images, samples) = (inputs.of(0), pass.samples);
        own.round(self, images, samples);
        let [left, right, _] = &mut scratch.halves;
        let (deep, row, plane) =
            (self.weight.taps * self.weight.rows, own.row(), self.outputs.stride(samples));
        if let Some(bias) = &mut self.bias {
            bias.refresh();
        }
        let bias = self.bias.as_ref().map(Bias::padded);
        for panel in self.weight.panels() {
            let weights = &self.weight.values()[panel.start..];
            for step in 0..own.steps {
                let count = DEPTH.min(deep - step * DEPTH);
                for block in 0..panel.blocks {
                    let to = (panel.first * own.steps + step * panel.blocks + block) * TILE;
                    let to = &mut right[to..][..TILE];
                    let from = &weights[step * DEPTH * panel.width() + block * BLOCK..];
                    own.kernel.pairs(from, panel.width(), count, to);
                }
            }
        }
        let _ready = own.kernel.ready();
        for first in (0..self.outputs.positions).step_by(own.positions(samples)) {
            let positions = first..self.outputs.positions.min(first + own.positions(samples));
            own.windows(self, positions.clone(), samples, left);
            for panel in self.weight.panels() {
                let segments =
                    [Segment { a: left.as_ptr(), b: right[panel.first * own.steps * TILE..].as_ptr() }];
                let product = Product {
                    segments: &segments,
                    steps: own.steps,
                    left: Left { row, tile: BLOCK * row, step: DEPTH, part: 0 },
                    right: Right { block: TILE, step: panel.blocks * TILE },
                    c: y[panel.first * plane + first * samples * BLOCK..].as_mut_ptr(),
                    outcome: Outcome { row: BLOCK, tile: BLOCK * BLOCK, block: plane },
                    start: match bias {
                        Some(bias) => Start::Row(bias[panel.first * BLOCK..][..panel.width()].as_ptr()),
                        None => Start::Zero,
                    },
                };
                let count = positions.len() * samples;
                assert!(left.len() >= count.next_multiple_of(BLOCK) * row);
                assert!(y.len() >= self.outputs.len(samples));
                // SAFETY: there are whole tiles of windows (asserted) and of weights; the positions' rows lie in every
                // plane; a start row is a panel of a padded bias.
                unsafe { own.kernel.product(&product, panel.blocks, count) };
            }
        }
    }

    pub(in crate::layer) fn weight_gradient_bf16(
        &mut self,
        own: &Bf16Stem,
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: Sink<'_>,
    ) {
        let Scratch { halves: [windows, pairs, lines], gradient, transposed: total, .. } = scratch;
        let (deep, row, blocks) = (self.weight.taps * self.weight.rows, own.row(), self.outputs.blocks);
        let most = (own.positions(samples) * samples).div_ceil(DEPTH);
        let total = &mut total[..blocks * BLOCK * row];
        let _ready = own.kernel.ready();
        let mut start = Start::Zero;
        for first in (0..self.outputs.positions).step_by(own.positions(samples)) {
            let positions = first..self.outputs.positions.min(first + own.positions(samples));
            let count = positions.len() * samples;
            own.windows(self, positions, samples, windows);
            let steps = count.div_ceil(DEPTH);
            // The last step's other rows meet zeros, but must be finite.
            windows[count * row..steps * DEPTH * row].fill(0);
            for (windows, pairs) in windows
                .chunks_exact(DEPTH * row)
                .zip(pairs.chunks_exact_mut(own.steps * 2 * TILE))
                .take(steps)
            {
                own.kernel.woven(windows, row, pairs);
            }
            for (block, to) in lines.chunks_exact_mut(most * TILE).take(blocks).enumerate() {
                let dy = &dy[self.outputs.range(block, samples)][first * samples * BLOCK..][..count * BLOCK];
                own.kernel.lines(rows(dy), to, [DEPTH, TILE, 0]);
            }
            // Two blocks of columns at a time, of which there is an even number.
            for block in (0..own.steps * 2).step_by(2) {
                let segments = [Segment { a: lines.as_ptr(), b: pairs[block * TILE..].as_ptr() }];
                let product = Product {
                    segments: &segments,
                    steps,
                    left: Left { row: DEPTH, tile: most * TILE, step: TILE, part: 0 },
                    right: Right { block: TILE, step: own.steps * 2 * TILE },
                    c: total[block * BLOCK..].as_mut_ptr(),
                    outcome: Outcome { row, tile: BLOCK * row, block: BLOCK },
                    start,
                };
                assert!(lines.len() >= blocks * most * TILE && pairs.len() >= steps * own.steps * 2 * TILE);
                // SAFETY: there are so many steps of lines and of pairs (asserted), and a row of `total` for each channel.
                unsafe { own.kernel.product(&product, 2, blocks * BLOCK) };
            }
            start = Start::Add;
        }
        for panel in self.weight.panels() {
            let gradient = &mut gradient[..deep * panel.width()];
            for (k, gradient) in gradient.chunks_exact_mut(panel.width()).enumerate() {
                let from = total[panel.first * BLOCK * row + k..].iter().step_by(row);
                gradient.iter_mut().zip(from).for_each(|(gradient, &value)| *gradient = value);
            }
            self.take_gradient(panel, gradient, sink);
        }
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, self.outputs, samples, sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Kernels, bf16};
    use crate::layer::Layer;
    use crate::layer::geometry::Window;
    use crate::layer::testing::{self, Case, gradients};
    use crate::testing::noise;
    use crate::{InstructionSet, Precision};

    #[test]
    fn first_convolutions_match_plain_loops_of_rounded_operands() {
        let window = |input, kernel, stride, padding| Window { input, kernel, stride, padding };
        for (window, channels, samples) in [
            (window([9, 11], [7, 7], 2, 3), [3, 64], 5),
            (window([6, 5], [3, 3], 1, 1), [3, 17], 1),
            (window([8, 8], [3, 3], 2, 1), [3, 32], 33),
            (window([7, 6], [5, 4], 1, 0), [1, 20], 2),
            (window([4, 4], [2, 2], 2, 0), [40, 16], 7),
            // More than is multiplied at a time.
            (window([40, 40], [7, 7], 2, 3), [3, 33], 32),
        ] {
            let case = Case::new(window, channels, 1, samples, bf16::rounded);
            let outputs = case.sides[1];
            let images: Vec<f32> = (0..samples)
                .flat_map(|sample| (0..window.input[0] * window.input[1]).map(move |p| (sample, p)))
                .flat_map(|(sample, position)| {
                    (0..channels[0]).map(move |channel| (sample, position, channel))
                })
                .map(|(sample, position, channel)| {
                    let plane = case.sides[0].range(channel / BLOCK, samples);
                    case.x[plane][(position * samples + sample) * BLOCK + channel % BLOCK]
                })
                .collect();
            for set in InstructionSet::available() {
                let kernels = Kernels::of(set, Precision::Bf16);
                let stem = Stem::new("w", &window, channels, true, samples + 1, kernels.matrix);
                let mut stem = stem.in_bf16(kernels.bf16, samples + 1);
                testing::load(&mut stem, &case.params);
                let mut scratch = Scratch::default();
                stem.reserve(&mut scratch, samples + 1, false);
                for halves in &mut scratch.halves {
                    halves.fill(0x7fc0);
                }
                let what = format!("{set} {window:?} {channels:?} {samples}");
                let mut found = noise(outputs.len(samples), 6);
                let x = (&images[..], case.sides[0]);
                testing::forward(x, &mut found, samples, &mut scratch, &mut |_, _| {}, |pass| {
                    stem.forward(pass);
                });
                case.check_output(&found, 3e-6, &what);
                for halves in &mut scratch.halves {
                    halves.fill(0x7fc0);
                }
                testing::backward(x, &case.dy, None, samples, &mut scratch, |pass| stem.backward(pass));
                case.check_gradients(&gradients(&stem, case.layout()), 3e-6, &what);
            }
        }
    }
}
