//! The first convolution (or linear layer) of a network, straight from image-major input: a tile's rows are the same
//! window of consecutive images, and each row of a window is a run of consecutive values. It needs no input gradient.

use super::bf16::stem::Bf16Stem;
use super::geometry::Window;
use super::weight::{Bias, Weight};
use super::{Backward, Extent, Forward, Layer, Scratch};
use crate::kernel::buffer::Buffer;
use crate::kernel::gemm::{Kernel, OUTER_ROWS, Outer, Product, Rows, Segment, Start, Stretch};
use crate::kernel::{BLOCK, bf16};
use crate::parameter::{Panel, Sink, parameters};

/// Rows of a window that one call of the matrix kernel adds up.
const MAX_SEGMENTS: usize = 32;

pub(crate) struct Stem {
    pub(super) weight: Weight,
    pub(super) bias: Option<Bias>,
    pub(super) window: Window,
    pub(super) channels: usize,
    pub(super) outputs: Extent,
    /// The images with their padding, from the forward to the backward pass; unused without padding.
    pub(super) padded: Buffer,
    /// All: padding is kept as zeros.
    alive: Vec<bool>,
    pub(super) kernel: &'static Kernel,
    /// If it computes in bf16.
    bf16: Option<Bf16Stem>,
}

parameters!(Stem: weight, bias);

impl Stem {
    /// # Shapes
    /// Input `[batch][height][width][channels[0]]`, output `channels[1]` at the window's output positions, blocked.
    pub(crate) fn new(
        name: &str,
        window: &Window,
        channels: [usize; 2],
        bias: bool,
        max_batch: usize,
        kernel: &'static Kernel,
    ) -> Self {
        let weight = Weight::new(format!("{name}.weight"), channels, 1, window.taps(), false, kernel);
        let [height, width] = window.input.map(|extent| extent + 2 * window.padding);
        let padded = if window.padding > 0 { max_batch * height * width * channels[0] } else { 0 };
        Self {
            bias: bias.then(|| Bias::new(format!("{name}.bias"), channels[1])),
            weight,
            window: *window,
            channels: channels[0],
            outputs: Extent::new(channels[1], window.output()),
            padded: Buffer::zeros(padded),
            alive: vec![true; window.taps()],
            kernel,
            bf16: None,
        }
    }

    /// The same in bf16, if there is a kernel.
    pub(crate) fn in_bf16(mut self, kernel: Option<&'static bf16::Kernel>, max_batch: usize) -> Self {
        if let Some(kernel) = kernel {
            self.padded = Buffer::default();
            self.bf16 = Some(Bf16Stem::new(kernel, &self, max_batch));
        }
        self
    }

    /// Values of a row of the padded image, and of all of it.
    pub(super) fn extents(&self) -> (usize, usize) {
        let [height, width] = self.window.input.map(|extent| extent + 2 * self.window.padding);
        (width * self.channels, height * width * self.channels)
    }

    /// Steps in a padded image from one row of windows to the next, and from one window in a row to the next.
    pub(super) fn steps(&self) -> (usize, usize) {
        (self.extents().0 * self.window.stride, self.window.stride * self.channels)
    }

    pub(super) fn pad(&mut self, images: &[f32], samples: usize) {
        let padding = self.window.padding;
        if padding == 0 {
            return;
        }
        let [height, width] = self.window.input;
        let (line, image) = self.extents();
        let from = images.chunks_exact(height * width * self.channels);
        // The frame is zero from the start.
        for (from, to) in from.zip(self.padded.chunks_exact_mut(image)).take(samples) {
            for (from, to) in
                from.chunks_exact(width * self.channels).zip(to.chunks_exact_mut(line).skip(padding))
            {
                to[padding * self.channels..][..from.len()].copy_from_slice(from);
            }
        }
    }

    /// The gradient of a panel, set to 0.
    pub(super) fn clear_gradient<'a>(&self, panel: Panel, scratch: &'a mut Buffer) -> &'a mut [f32] {
        let gradient = &mut scratch[..self.weight.taps * self.weight.rows * panel.width()];
        gradient.fill(0.0);
        gradient
    }

    /// Adds the part of some positions to the gradient of a panel: those whose windows begin at `corners`, and whose
    /// gradients lie in a row in each plane of `dy`, at most [`OUTER_ROWS`] of them.
    #[allow(clippy::too_many_arguments, reason = "called from two places, and takes what it touches")]
    pub(super) fn add_gradient(
        &self,
        images: &[f32],
        corners: impl Iterator<Item = usize>,
        dy: &[f32],
        plane: usize,
        panel: Panel,
        samples: usize,
        gradient: &mut [f32],
    ) {
        let (line, image) = self.extents();
        let images = if self.window.padding > 0 { &self.padded[..] } else { images };
        let [rows, len] = [self.window.kernel[0], self.window.kernel[1] * self.channels];
        let mut stretches = [Stretch::NONE; OUTER_ROWS];
        let mut count = 0;
        for corner in corners {
            assert!((samples - 1) * image + corner + (rows - 1) * line + len <= images.len());
            let dy = &dy[count * samples * BLOCK..];
            assert!(dy.len() >= (panel.blocks - 1) * plane + samples * BLOCK);
            stretches[count] = Stretch { x: images[corner..].as_ptr(), dy: dy.as_ptr(), rows: samples };
            count += 1;
        }
        let inputs = Rows::Lines { len, stride: image };
        for dw in gradient[..rows * len * panel.width()].chunks_exact_mut(len * panel.width()) {
            let stretches = &mut stretches[..count];
            let outer = Outer { stretches, inputs, dy_plane: plane, dw: dw.as_mut_ptr(), add: true };
            // SAFETY: windows lie on the padded images and `dy` has their rows (asserted above); `dw` is one row of taps.
            unsafe { self.kernel.outer(&outer, panel.blocks) };
            for stretch in stretches {
                stretch.x = stretch.x.wrapping_add(line);
            }
        }
    }

    /// Uses up the gradient of a panel.
    pub(super) fn take_gradient(&mut self, panel: Panel, gradient: &mut [f32], sink: Sink<'_>) {
        self.weight.take(panel, 0..self.weight.taps, gradient, &self.alive, sink);
    }
}

impl Layer for Stem {
    fn reserve(&self, scratch: &mut Scratch, max_batch: usize, _: bool) {
        if let Some(bf16) = &self.bf16 {
            bf16.reserve(scratch, self, max_batch);
            return;
        }
        scratch.reserve(self.weight.panel_len(), 0);
    }

    fn forward(&mut self, pass: Forward<'_>) {
        if let Some(mut bf16) = self.bf16.take() {
            self.forward_bf16(&mut bf16, pass);
            self.bf16 = Some(bf16);
            return;
        }
        let Forward { inputs, y, pass, done, .. } = pass;
        let (images, samples) = (inputs.of(0), pass.samples);
        self.pad(images, samples);
        let ((line, image), (down, right)) = (self.extents(), self.steps());
        let [height, width] = self.window.output();
        let stride = self.outputs.stride(samples);
        let mut segments = [Segment { a: std::ptr::null(), b: std::ptr::null() }; MAX_SEGMENTS];
        let bias = self.bias.as_mut().map(Bias::refresh);
        let images = if self.window.padding > 0 { &self.padded[..] } else { images };
        assert!(images.len() >= samples * image);
        let rows = Rows::Lines { len: self.window.kernel[1] * self.channels, stride: image };
        for panel in self.weight.panels() {
            let weights = &self.weight.values()[panel.start..];
            let tap_row = self.window.kernel[1] * self.channels * panel.width();
            let planes = &mut y[panel.first * stride..][..panel.blocks * stride];
            for (position, (row, column)) in
                (0..height).flat_map(|row| (0..width).map(move |column| (row, column))).enumerate()
            {
                let corner = row * down + column * right;
                let mut start = match bias {
                    Some(bias) => Start::Row(bias[panel.first * BLOCK..][..panel.width()].as_ptr()),
                    None => Start::Zero,
                };
                for first in (0..self.window.kernel[0]).step_by(MAX_SEGMENTS) {
                    let count = MAX_SEGMENTS.min(self.window.kernel[0] - first);
                    for (i, segment) in segments[..count].iter_mut().enumerate() {
                        *segment = Segment {
                            a: images[corner + (first + i) * line..].as_ptr(),
                            b: weights[(first + i) * tap_row..][..tap_row].as_ptr(),
                        };
                    }
                    let product = Product {
                        segments: &segments[..count],
                        rows,
                        c: planes[position * samples * BLOCK..].as_mut_ptr(),
                        c_plane: stride,
                        start,
                    };
                    // SAFETY: a window lies on the padded image, of which there are `samples`; weights and bias are
                    // whole rows of the panel, and every plane holds `samples` rows at this position.
                    unsafe { self.kernel.product(&product, panel.blocks, samples) };
                    start = Start::Add;
                }
            }
            done(panel.range(), planes);
        }
    }

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, dy, pass, scratch, sink, .. } = pass;
        let (images, samples) = (inputs.of(0), pass.samples);
        if let Some(bf16) = self.bf16.take() {
            self.weight_gradient_bf16(&bf16, dy, samples, scratch, sink);
            self.bf16 = Some(bf16);
            return;
        }
        let (down, right) = self.steps();
        let [height, width] = self.window.output();
        let (row, stride) = (samples * BLOCK, self.outputs.stride(samples));
        // As many positions at a time as make a good outer product; every row of the window passes over them while they
        // are in the cache.
        let step = (OUTER_ROWS / samples).clamp(1, width);
        for panel in self.weight.panels() {
            let gradient = self.clear_gradient(panel, &mut scratch.gradient);
            let dy = &dy[panel.first * stride..][..panel.blocks * stride];
            for top in 0..height {
                for left in (0..width).step_by(step) {
                    let corners = (left..width.min(left + step)).map(|left| top * down + left * right);
                    let dy = &dy[(top * width + left) * row..];
                    self.add_gradient(images, corners, dy, stride, panel, samples, gradient);
                }
            }
            self.take_gradient(panel, gradient, sink);
        }
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, self.outputs, samples, sink);
        }
    }

    fn in_place(&self) -> Option<usize> {
        None
    }
}
