//! The first convolution (or linear layer) of a network, straight from image-major input: a tile's rows are the same
//! window of consecutive images, and each row of a window is a run of consecutive values. It needs no input gradient.

use fedper_core::params::Params;

use super::geometry::Window;
use super::weight::{Bias, Weight};
use super::{Done, Extent, Scratch};
use crate::kernel::BLOCK;
use crate::kernel::buffer::Buffer;
use crate::kernel::gemm::{Kernel, Outer, Product, Rows, Segment, Start, Stretch};
use crate::optim::{Parameter, Sink};

/// Rows of a window that one call of the matrix kernel adds up.
const MAX_SEGMENTS: usize = 32;

pub(crate) struct Stem {
    weight: Weight,
    bias: Option<Bias>,
    window: Window,
    channels: usize,
    outputs: Extent,
    /// The images with their padding, from the forward to the backward pass; unused without padding.
    padded: Buffer,
    /// All: padding is kept as zeros.
    alive: Vec<bool>,
    kernel: &'static Kernel,
}

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
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch) {
        scratch.reserve(self.weight.panel_len(), 0);
    }

    /// Values of a row of the padded image, and of all of it.
    fn extents(&self) -> (usize, usize) {
        let [height, width] = self.window.input.map(|extent| extent + 2 * self.window.padding);
        (width * self.channels, height * width * self.channels)
    }

    /// Steps in a padded image from one row of windows to the next, and from one window in a row to the next.
    fn steps(&self) -> (usize, usize) {
        (self.extents().0 * self.window.stride, self.window.stride * self.channels)
    }

    fn pad(&mut self, images: &[f32], samples: usize) {
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

    pub(crate) fn forward(&mut self, images: &[f32], y: &mut [f32], samples: usize, mut done: impl Done) {
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

    /// The backward pass of the last [`Stem::forward`].
    pub(crate) fn weight_gradient(
        &mut self,
        images: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        let ((line, image), (down, right)) = (self.extents(), self.steps());
        let [height, width] = self.window.output();
        let stride = self.outputs.stride(samples);
        let images = if self.window.padding > 0 { &self.padded[..] } else { images };
        assert!(images.len() >= samples * image);
        let inputs = Rows::Lines { len: self.window.kernel[1] * self.channels, stride: image };
        for panel in self.weight.panels() {
            let tap_row = self.window.kernel[1] * self.channels * panel.width();
            let gradient = &mut scratch.gradient[..self.window.kernel[0] * tap_row];
            gradient.fill(0.0);
            let dy = &dy[panel.first * stride..][..panel.blocks * stride];
            for row in 0..height {
                for column in 0..width {
                    let corner = row * down + column * right;
                    let dy = dy[(row * width + column) * samples * BLOCK..].as_ptr();
                    for (kh, dw) in gradient.chunks_exact_mut(tap_row).enumerate() {
                        let stretch = Stretch { x: images[corner + kh * line..].as_ptr(), dy, rows: samples };
                        let stretches = std::slice::from_ref(&stretch);
                        let outer = Outer { stretches, inputs, dy_plane: stride, dw: dw.as_mut_ptr() };
                        // SAFETY: as in `forward`; `dw` is one row of taps.
                        unsafe { self.kernel.outer(&outer, panel.blocks) };
                    }
                }
            }
            self.weight.take(panel, 0..self.weight.taps, gradient, &self.alive, sink);
        }
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, self.outputs, samples, sink);
        }
    }

    /// Hands every parameter that training changes to `visit`.
    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        self.weight.trainable(visit);
        self.bias.iter_mut().for_each(|bias| bias.trainable(visit));
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.reset_velocity();
        self.bias.iter_mut().for_each(Bias::reset_velocity);
    }

    pub(crate) fn load(&mut self, params: &Params) {
        self.weight.load(params);
        self.bias.iter_mut().for_each(|bias| bias.load(params));
    }

    pub(crate) fn store(&self, params: &mut Params) {
        self.weight.store(params);
        self.bias.iter().for_each(|bias| bias.store(params));
    }
}
