//! The first convolution (or linear layer) of a network, straight from image-major input: its windows are gathered row
//! by row (im2col), because a tap over few channels is too little work for the matrix kernel. It needs no input gradient.

use fedper_core::params::Params;

use super::Scratch;
use super::conv::Bias;
use super::geometry::Window;
use super::weight::Weight;
use crate::kernel::gemm::{Kernel, Left, Product, Segment, Start};
use crate::optim::Sink;

pub(crate) struct Stem {
    weight: Weight,
    bias: Option<Bias>,
    window: Window,
    kernel: &'static Kernel,
}

impl Stem {
    /// # Shapes
    /// Input `[batch][height][width][channels[0]]`, output `[positions][batch][channels[1]]`.
    pub(crate) fn new(
        name: &str,
        window: &Window,
        channels: [usize; 2],
        bias: bool,
        kernel: &'static Kernel,
    ) -> Self {
        let weight =
            Weight::new(format!("{name}.weight"), channels[0], channels[1], 1, window.taps(), kernel.panel);
        Self {
            bias: bias.then(|| Bias::new(format!("{name}.bias"), &weight)),
            weight,
            window: *window,
            kernel,
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch, samples: usize) {
        let windows = match self.whole() {
            true => 0,
            false => self.window.output()[1] * samples * self.depth(),
        };
        scratch.reserve(self.weight.panels() * self.weight.panel_len(), 0, windows);
    }

    /// Values of a window.
    fn depth(&self) -> usize {
        self.weight.taps * self.weight.inputs
    }

    /// Whether the only window is the image itself.
    fn whole(&self) -> bool {
        self.window.kernel == self.window.input && self.window.padding == 0
    }

    pub(crate) fn forward(&mut self, images: &[f32], y: &mut [f32], samples: usize, scratch: &mut Scratch) {
        let [height, width] = self.window.output();
        let (depth, outputs, whole) = (self.depth(), self.weight.outputs, self.whole());
        let bias = self.bias.as_mut().map(|bias| bias.refresh(&self.weight));
        let rows = width * samples;
        assert!(y.len() >= height * rows * outputs);
        for row in 0..height {
            let windows = match whole {
                true => images,
                false => gather(&self.window, self.weight.inputs, images, row, samples, &mut scratch.windows),
            };
            assert!(windows.len() >= rows * depth);
            for panel in 0..self.weight.panels() {
                let product = Product {
                    segments: &[Segment {
                        a: windows.as_ptr(),
                        b: self.weight.values()[panel * self.weight.panel_len()..].as_ptr(),
                    }],
                    k: depth,
                    left: Left::Rows,
                    a_stride: depth,
                    b_stride: self.weight.width,
                    c: y[row * rows * outputs + panel * self.weight.width..].as_mut_ptr(),
                    c_stride: outputs,
                    cols: self.weight.columns(panel),
                    start: match bias {
                        Some(bias) => Start::Row(bias[panel * self.weight.width..].as_ptr()),
                        None => Start::Zero,
                    },
                };
                // SAFETY: `windows` and `y` hold `rows` rows (asserted above), the weights whole panels.
                unsafe { self.kernel.run(&product, rows) };
            }
        }
    }

    pub(crate) fn weight_gradient(
        &mut self,
        images: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        let [height, width] = self.window.output();
        let (depth, outputs, whole) = (self.depth(), self.weight.outputs, self.whole());
        let (panels, panel_len) = (self.weight.panels(), self.weight.panel_len());
        let rows = width * samples;
        assert!(dy.len() >= height * rows * outputs);
        let gradient = &mut scratch.gradient[..panels * panel_len];
        gradient.fill(0.0);
        for row in 0..height {
            let windows = match whole {
                true => images,
                false => gather(&self.window, self.weight.inputs, images, row, samples, &mut scratch.windows),
            };
            assert!(windows.len() >= rows * depth);
            for panel in 0..panels {
                let product = Product {
                    segments: &[Segment {
                        a: windows.as_ptr(),
                        b: dy[row * rows * outputs + panel * self.weight.width..].as_ptr(),
                    }],
                    k: rows,
                    left: Left::Columns,
                    a_stride: depth,
                    b_stride: outputs,
                    c: gradient[panel * panel_len..][..panel_len].as_mut_ptr(),
                    c_stride: self.weight.width,
                    cols: self.weight.columns(panel),
                    start: Start::Add,
                };
                // SAFETY: `windows` and `dy` hold `rows` rows (asserted above); `c` is `depth` rows of a panel.
                unsafe { self.kernel.run(&product, depth) };
            }
        }
        for panel in 0..panels {
            self.weight.take(0, panel, &gradient[panel * panel_len..][..panel_len], sink);
        }
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, sink);
        }
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

/// The windows of one row of outputs, `[width][batch][kernel_h][kernel_w][channels]`, zero on padding.
fn gather<'a>(
    window: &Window,
    channels: usize,
    images: &[f32],
    row: usize,
    samples: usize,
    to: &'a mut [f32],
) -> &'a [f32] {
    let [height, width] = window.input;
    let [kernel_h, kernel_w] = window.kernel;
    let image = height * width * channels;
    let line = kernel_w * channels;
    let columns = window.output()[1];
    let to = &mut to[..columns * samples * kernel_h * line];
    let mut windows = to.chunks_exact_mut(kernel_h * line);
    for column in 0..columns {
        // The part of the kernel's width that lies on the image.
        let left = column * window.stride;
        let first = window.padding.saturating_sub(left).min(kernel_w);
        let last = (width + window.padding).saturating_sub(left).clamp(first, kernel_w);
        for (image, to) in images.chunks_exact(image).take(samples).zip(&mut windows) {
            for (kh, to) in to.chunks_exact_mut(line).enumerate() {
                let on_image = (row * window.stride + kh).checked_sub(window.padding).filter(|&h| h < height);
                match on_image {
                    Some(h) if first < last => {
                        let start = (h * width + left + first - window.padding) * channels;
                        to[..first * channels].fill(0.0);
                        let (from, to_on) = (
                            &image[start..][..(last - first) * channels],
                            &mut to[first * channels..last * channels],
                        );
                        // A loop, because the runs are too short for a call of `memcpy` to pay.
                        for (to, &v) in to_on.iter_mut().zip(from) {
                            *to = v;
                        }
                        to[last * channels..].fill(0.0);
                    }
                    _ => to.fill(0.0),
                }
            }
        }
    }
    to
}
