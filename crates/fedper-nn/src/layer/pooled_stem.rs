//! A network's first convolution with the activation and the 2x2 max-pool that follow it. What the convolution computes
//! is pooled while it is in the first-level cache and never stored; its gradient is written out a few windows at a time.

use super::geometry::Window;
use super::stem::Stem;
use super::{Backward, Extent, Forward, Layer, Scratch};
use crate::kernel::BLOCK;
use crate::kernel::elementwise::Activation;
use crate::kernel::gemm::OUTER_ROWS;
use crate::kernel::pool::{max_gradient, max_of_four};
use crate::kernel::window::{POSITIONS, Window2x2, Winners, convolve_2x2, knows_winners, winners_gradient};
use crate::kernel::winograd::lines::{self, PooledLines};
use crate::parameter::{Panel, parameters};

/// Samples whose points are computed at a time, so that they stay in the second-level cache.
const LINE_SAMPLES: usize = 16;

pub(crate) struct PooledStem {
    stem: Stem,
    activation: Activation,
    pooled: Extent,
    /// Height and width of what is pooled to.
    side: [usize; 2],
    /// Whether it is computed by tiles of lines, or by windows.
    by_lines: bool,
    /// The position of its window that each output came from.
    winner: Vec<u8>,
}

parameters!(PooledStem: stem);

/// If there is a kernel for tiles of a line of a convolution with such windows, pooled 2x2.
pub(crate) fn has_lines(window: &Window) -> bool {
    let [_, width] = window.output();
    window.kernel[1] == lines::TAPS && window.stride == 1 && 2 * (width / 2) >= lines::OUTPUTS
}

impl PooledStem {
    pub(crate) fn new(
        stem: Stem,
        channels: usize,
        activation: Activation,
        max_batch: usize,
        by_lines: bool,
    ) -> Self {
        let side = stem.window.output().map(|extent| extent / 2);
        let pooled = Extent::new(channels, side);
        Self { stem, activation, pooled, side, by_lines, winner: vec![0; pooled.capacity(max_batch)] }
    }

    /// Values of the points of a line of an image, and of an image.
    fn line_points(&self) -> [usize; 2] {
        let line = lines::tiles(2 * self.side[1]).len() * self.stem.channels * lines::POINTS;
        [line, line * (2 * self.side[0] + self.stem.window.kernel[0] - 1)]
    }

    /// The forward pass by tiles of lines, from images that have their padding.
    fn forward_lines(&mut self, images: &[f32], y: &mut [f32], samples: usize, scratch: &mut Scratch) {
        let ([line, image], outputs) = (self.line_points(), 2 * self.side[1]);
        let from_extents = self.stem.extents();
        let Stem { weight, bias, padded, window, channels, .. } = &mut self.stem;
        let images = if window.padding > 0 { &padded[..] } else { images };
        let bias = bias.as_mut().map_or(&[][..], |bias| bias.refresh());
        let [points, filters] = &mut scratch.lines;
        let plane = self.pooled.stride(samples);
        for first in (0..samples).step_by(LINE_SAMPLES) {
            let group = LINE_SAMPLES.min(samples - first);
            let from = images[first * from_extents.1..].chunks_exact(from_extents.1);
            for (from, to) in from.zip(points.chunks_exact_mut(image)).take(group) {
                for (from, to) in from.chunks_exact(from_extents.0).zip(to.chunks_exact_mut(line)) {
                    lines::line_points(from, *channels, outputs, to);
                }
            }
            for panel in weight.panels() {
                let taps = &weight.values()[panel.start..][..weight.taps * *channels * panel.width()];
                lines::line_filters(taps, *channels, panel.width(), filters);
                let at = panel.first * plane + first * BLOCK;
                let end = (panel.range().end - 1) * plane + self.pooled.plane(samples);
                lines::pooled_lines(&mut PooledLines {
                    points,
                    line,
                    image,
                    samples: group,
                    channels: *channels,
                    filters,
                    height: window.kernel[0],
                    bias: if bias.is_empty() { bias } else { &bias[panel.first * BLOCK..] },
                    blocks: panel.blocks,
                    pooled: self.side,
                    y: &mut y[at..end],
                    winner: &mut self.winner[at..end],
                    plane,
                    row: samples * BLOCK,
                    range: self.activation.range(),
                });
            }
        }
    }

    /// Rows of a convolution's window, and values of a row.
    fn extent(&self) -> [usize; 2] {
        let Stem { window, channels, .. } = &self.stem;
        [window.kernel[0], window.kernel[1] * channels]
    }

    /// Adds the products of all positions with a gradient that is zero where none won.
    fn add_positions(
        &self,
        panel: Panel,
        images: &[f32],
        dy: &[f32],
        samples: usize,
        outputs: &mut [f32],
        gradient: &mut [f32],
    ) {
        let ((down, right), row) = (self.stem.steps(), samples * BLOCK);
        let windows = (OUTER_ROWS / (POSITIONS * samples)).clamp(1, OUTER_ROWS / POSITIONS);
        for top in 0..self.side[0] {
            for first in (0..self.side[1]).step_by(windows) {
                let count = windows.min(self.side[1] - first);
                let plane = POSITIONS * count * row;
                for (block, to) in panel.range().zip(outputs.chunks_exact_mut(plane)) {
                    let at = self.pooled.range(block, samples).start + (top * self.side[1] + first) * row;
                    let from = dy[at..][..count * row].chunks_exact(row);
                    let winner = self.winner[at..][..count * row].chunks_exact(row);
                    for ((from, winner), to) in from.zip(winner).zip(to.chunks_exact_mut(POSITIONS * row)) {
                        for (position, to) in to.chunks_exact_mut(row).enumerate() {
                            max_gradient(to, from, winner, position as u8, false);
                        }
                    }
                }
                let corners = (0..POSITIONS * count).map(|i| {
                    let (window, position) = (first + i / POSITIONS, i % POSITIONS);
                    (2 * top + position / 2) * down + (2 * window + position % 2) * right
                });
                self.stem.add_gradient(images, corners, outputs, plane, panel, samples, gradient);
            }
        }
    }

    /// As [`PooledStem::add_positions`], of what won alone.
    fn add_winners(&self, panel: Panel, images: &[f32], dy: &[f32], samples: usize, gradient: &mut [f32]) {
        let ((line, image), (down, right)) = (self.stem.extents(), self.stem.steps());
        let images = if self.stem.window.padding > 0 { &self.stem.padded[..] } else { images };
        let windows = (OUTER_ROWS / samples).clamp(1, OUTER_ROWS);
        for top in 0..self.side[0] {
            for first in (0..self.side[1]).step_by(windows) {
                let count = windows.min(self.side[1] - first);
                let mut corners = [0; OUTER_ROWS];
                for (i, corner) in corners[..count].iter_mut().enumerate() {
                    *corner = 2 * top * down + 2 * (first + i) * right;
                }
                for (i, block) in panel.range().enumerate() {
                    let row = (top * self.side[1] + first) * samples;
                    let at = self.pooled.range(block, samples).start + row * BLOCK;
                    winners_gradient(&mut Winners {
                        images,
                        corners: &corners[..count],
                        right,
                        line,
                        image,
                        samples,
                        extent: self.extent(),
                        dy: &dy[at..],
                        winner: &self.winner[at..],
                        dw: &mut gradient[i * BLOCK..],
                        width: panel.width(),
                    });
                }
            }
        }
    }
}

impl Layer for PooledStem {
    fn reserve(&self, scratch: &mut Scratch, max_batch: usize, input_gradient: bool) {
        self.stem.reserve(scratch, max_batch, input_gradient);
        if self.by_lines {
            let taps = self.stem.window.kernel[0] * self.stem.channels * lines::POINTS;
            let points = LINE_SAMPLES.min(max_batch) * self.line_points()[1];
            scratch.reserve_lines([points, taps * self.stem.kernel.blocks * BLOCK]);
        }
        let rows = (POSITIONS * max_batch).max(OUTER_ROWS);
        scratch.reserve_pooled(rows * BLOCK * self.stem.kernel.blocks, 0);
    }

    /// # Shapes
    /// `y` is what the pool leaves.
    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, scratch, .. } = pass;
        let (images, samples) = (inputs.of(0), pass.samples);
        self.stem.pad(images, samples);
        if self.by_lines {
            return self.forward_lines(images, y, samples, scratch);
        }
        let ((line, image), (down, right)) = (self.stem.extents(), self.stem.steps());
        let Stem { weight, bias, padded, window, channels, .. } = &mut self.stem;
        let images = if window.padding > 0 { &padded[..] } else { images };
        let bias = bias.as_mut().map_or(&[][..], |bias| bias.refresh());
        let range = self.activation.range();
        let row = samples * BLOCK;
        for panel in weight.panels() {
            let outputs = &mut scratch.outputs[..POSITIONS * panel.blocks * row];
            for position in 0..self.side[0] * self.side[1] {
                let (top, left) = (position / self.side[1] * 2 * down, position % self.side[1] * 2 * right);
                convolve_2x2(&mut Window2x2 {
                    images,
                    corners: [0, right, down, down + right].map(|corner| top + left + corner),
                    line,
                    image,
                    samples,
                    extent: [window.kernel[0], window.kernel[1] * *channels],
                    weights: &weight.values()[panel.start..],
                    bias: if bias.is_empty() { bias } else { &bias[panel.first * BLOCK..] },
                    blocks: panel.blocks,
                    y: outputs,
                });
                for (block, four) in panel.range().zip(outputs.chunks_exact(POSITIONS * row)) {
                    let at = self.pooled.range(block, samples).start + position * row;
                    let four = std::array::from_fn(|i| &four[i * row..][..row]);
                    max_of_four(four, &mut y[at..at + row], &mut self.winner[at..at + row], range);
                }
            }
        }
    }

    /// # Shapes
    /// `dy` is the gradient of what the pool left, already stopped by the activation.
    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, dy, pass, scratch, sink, .. } = pass;
        let (images, samples) = (inputs.of(0), pass.samples);
        let ((line, _), (down, right)) = (self.stem.extents(), self.stem.steps());
        let by_winners = down == line && knows_winners(self.extent(), right);
        for panel in self.stem.weight.panels() {
            let Scratch { gradient, outputs, .. } = &mut *scratch;
            let gradient = self.stem.clear_gradient(panel, gradient);
            if by_winners {
                self.add_winners(panel, images, dy, samples, gradient);
            } else {
                self.add_positions(panel, images, dy, samples, outputs, gradient);
            }
            self.stem.take_gradient(panel, gradient, sink);
        }
        if let Some(bias) = &mut self.stem.bias {
            bias.backward(dy, self.pooled, samples, sink);
        }
    }

    fn in_place(&self) -> Option<usize> {
        None
    }
}
