//! Convolution over position-major activations, dense or grouped; also the linear layer, as a convolution whose kernel
//! covers the whole input.

use fedper_core::params::Params;

use super::Scratch;
use super::geometry::{Link, Walk, Window};
use super::weight::Weight;
use crate::kernel::gemm::{Dots, Kernel, Left, Product, Segment, Start};
use crate::kernel::norm::column_sums;
use crate::optim::{Parameter, Sink};

/// Taps that one call of the matrix kernel adds up.
const MAX_SEGMENTS: usize = 64;
/// Rows of a weight gradient that one tile runs over before the next: both operands stay in the second-level cache.
const GRADIENT_ROWS: usize = 256;
/// Bytes of input that stay in the second-level cache while all panels of weights pass over them.
const BLOCK_BYTES: usize = 256 << 10;

/// Rows up to which an input gradient is taken from the weights as they lie.
const FEW_ROWS: usize = 32;

/// The bias of a convolution.
pub(crate) struct Bias {
    parameter: Parameter,
    sums: Vec<f64>,
    gradient: Vec<f32>,
    /// As the matrix kernel reads it: every group's values filled up to whole panels.
    padded: Vec<f32>,
}

impl Bias {
    pub(crate) fn new(name: String, weight: &Weight) -> Self {
        let outputs = weight.groups * weight.outputs;
        Self {
            parameter: Parameter::new(name, outputs),
            sums: vec![0.0; outputs],
            gradient: vec![0.0; outputs],
            padded: vec![0.0; weight.groups * weight.panels() * weight.width],
        }
    }

    /// The padded values, after the parameter may have changed.
    pub(crate) fn refresh(&mut self, weight: &Weight) -> &[f32] {
        let group = weight.panels() * weight.width;
        for (padded, values) in
            self.padded.chunks_exact_mut(group).zip(self.parameter.values.chunks_exact(weight.outputs))
        {
            padded[..weight.outputs].copy_from_slice(values);
        }
        &self.padded
    }

    pub(crate) fn backward(&mut self, dy: &[f32], sink: &mut Sink<'_>) {
        self.sums.fill(0.0);
        column_sums(dy, &mut self.sums);
        for (g, s) in self.gradient.iter_mut().zip(&self.sums) {
            *g = *s as f32;
        }
        self.parameter.take(&self.gradient, sink);
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.parameter.velocity.fill(0.0);
    }

    pub(crate) fn load(&mut self, params: &Params) {
        self.parameter.load(params);
    }

    pub(crate) fn store(&self, params: &mut Params) {
        self.parameter.store(params);
    }
}

/// A convolution, or a linear layer.
pub(crate) struct Conv {
    weight: Weight,
    bias: Option<Bias>,
    forward: Walk,
    backward: Walk,
    links: Vec<Link>,
    /// Which taps ever meet the input.
    alive: Vec<bool>,
    kernel: &'static Kernel,
}

/// One side of a walk: activations and how many channels they have.
#[derive(Clone, Copy)]
struct Side<T> {
    values: T,
    channels: usize,
    /// Channels of a group.
    group: usize,
}

impl Conv {
    /// # Shapes
    /// Input `[positions][batch][channels[0]]`, output `[positions'][batch][channels[1]]`.
    pub(crate) fn new(
        name: &str,
        window: &Window,
        channels: [usize; 2],
        groups: usize,
        bias: bool,
        kernel: &'static Kernel,
    ) -> Self {
        let weight = Weight::new(
            format!("{name}.weight"),
            channels[0],
            channels[1],
            groups,
            window.taps(),
            kernel.panel,
        );
        let links = window.links();
        let mut alive = vec![false; window.taps()];
        links.iter().for_each(|link| alive[link.tap] = true);
        Self {
            bias: bias.then(|| Bias::new(format!("{name}.bias"), &weight)),
            weight,
            forward: window.forward(),
            backward: window.backward(),
            links,
            alive,
            kernel,
        }
    }

    pub(crate) fn reserve(&self, scratch: &mut Scratch, input_gradient: bool) {
        let transposed = if input_gradient { self.weight.transposed_len() } else { 0 };
        scratch.reserve(self.weight.panel_len(), transposed, 0);
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize) {
        let w = &self.weight;
        let from = Side { values: x, channels: w.groups * w.inputs, group: w.inputs };
        let to = Side { values: y, channels: w.groups * w.outputs, group: w.outputs };
        let start = self.bias.as_mut().map(|bias| bias.refresh(w));
        walk(
            self.kernel,
            &self.forward,
            w.groups,
            w.taps,
            from,
            to,
            w.values(),
            samples,
            |panel| match start {
                // Panels are as wide as the padded bias's.
                Some(bias) => Start::Row(bias[panel * w.width..].as_ptr()),
                None => Start::Zero,
            },
        );
    }

    /// `dx (+)=` the gradient of the input.
    pub(crate) fn input_gradient(
        &self,
        dy: &[f32],
        dx: &mut [f32],
        samples: usize,
        add: bool,
        scratch: &mut Scratch,
    ) {
        let w = &self.weight;
        let whole = self.forward.runs.len() == 1 && self.forward.runs[0].len == 1;
        if whole
            && w.groups == 1
            && samples <= FEW_ROWS
            && self.backward.runs.iter().all(|r| r.taps.len() == 1)
        {
            return self.few_rows(dy, dx, samples, add);
        }
        let transposed = &mut scratch.transposed[..w.transposed_len()];
        w.transpose(&self.alive, transposed);
        let from = Side { values: dy, channels: w.groups * w.outputs, group: w.outputs };
        let to = Side { values: dx, channels: w.groups * w.inputs, group: w.inputs };
        walk(self.kernel, &self.backward, w.groups, w.taps, from, to, transposed, samples, |_| match add {
            true => Start::Add,
            false => Start::Zero,
        });
    }

    /// [`Conv::input_gradient`] of a single output position, as in a linear layer, for few samples.
    fn few_rows(&self, dy: &[f32], dx: &mut [f32], samples: usize, add: bool) {
        let w = &self.weight;
        assert!(dy.len() >= samples * w.outputs);
        for run in &self.backward.runs {
            let first = &self.backward.taps[run.taps.start];
            for i in 0..run.len {
                // Neighbours in a run share their tap.
                let dx = &mut dx[(run.to + i) * samples * w.inputs..][..samples * w.inputs];
                let dots = Dots {
                    dy: dy.as_ptr(),
                    outputs: w.outputs,
                    w: w.values()[first.tap * w.inputs * w.width..].as_ptr(),
                    panel_stride: w.panel_len(),
                    dx: dx.as_mut_ptr(),
                    inputs: w.inputs,
                    add,
                };
                // SAFETY: `dy` and `dx` hold `samples` rows; every panel holds `inputs` rows of this tap.
                unsafe { self.kernel.dots(&dots, samples) };
            }
        }
    }

    pub(crate) fn weight_gradient(
        &mut self,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: &mut Sink<'_>,
    ) {
        let w = &mut self.weight;
        let (x_channels, y_channels) = (w.groups * w.inputs, w.groups * w.outputs);
        for link in &self.links {
            assert!((link.x + link.len) * samples * x_channels <= x.len());
            assert!((link.y + link.len) * samples * y_channels <= dy.len());
        }
        for group in 0..w.groups {
            for panel in 0..w.panels() {
                let gradient = &mut scratch.gradient[..w.panel_len()];
                gradient.fill(0.0);
                for link in &self.links {
                    let rows = link.len * samples;
                    let x = &x[link.x * samples * x_channels + group * w.inputs..];
                    let dy = &dy[link.y * samples * y_channels + group * w.outputs + panel * w.width..];
                    let c = &mut gradient[link.tap * w.inputs * w.width..][..w.inputs * w.width];
                    for first in (0..rows).step_by(GRADIENT_ROWS) {
                        let a = x[first * x_channels..].as_ptr();
                        let b = dy[first * y_channels..].as_ptr();
                        let product = Product {
                            segments: &[Segment { a, b }],
                            k: GRADIENT_ROWS.min(rows - first),
                            left: Left::Columns,
                            a_stride: x_channels,
                            b_stride: y_channels,
                            c: c.as_mut_ptr(),
                            c_stride: w.width,
                            cols: w.columns(panel),
                            start: Start::Add,
                        };
                        // SAFETY: rows of `x` and `dy` are in bounds (asserted above), a row reaches `inputs` and
                        // `cols` values from where it starts within its channels; `c` is `inputs` rows of a panel.
                        unsafe { self.kernel.run(&product, w.inputs) };
                    }
                }
                w.take(group, panel, gradient, sink);
            }
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

/// Computes every position of `to` from the positions of `from` that its taps name, times weights
/// `[group][panel][tap][from.group][panel width]`. `start` is asked for each group's each panel, counted through.
#[allow(clippy::too_many_arguments, reason = "private, and called from two places")]
fn walk(
    kernel: &Kernel,
    walk: &Walk,
    groups: usize,
    taps: usize,
    from: Side<&[f32]>,
    to: Side<&mut [f32]>,
    weights: &[f32],
    samples: usize,
    start: impl Fn(usize) -> Start,
) {
    let width = kernel.panel;
    let panels = to.group.div_ceil(width);
    let tap_len = from.group * width;
    assert_eq!(weights.len(), groups * panels * taps * tap_len);
    let block = (BLOCK_BYTES / (4 * from.channels * taps.min(3))).max(112);
    let mut segments = [Segment { a: std::ptr::null(), b: std::ptr::null() }; MAX_SEGMENTS];
    for run in &walk.runs {
        let rows = run.len * samples;
        let list = &walk.taps[run.taps.clone()];
        assert!((run.to * samples + rows) * to.channels <= to.values.len());
        for tap in list {
            assert!(tap.tap < taps && (tap.from * samples + rows) * from.channels <= from.values.len());
        }
        for first in (0..rows).step_by(block) {
            let block = block.min(rows - first);
            for (group, panel) in (0..groups).flat_map(|g| (0..panels).map(move |p| (g, p))) {
                let columns = width.min(to.group - panel * width);
                let c = &mut to.values
                    [(run.to * samples + first) * to.channels + group * to.group + panel * width..];
                let mut start = start(group * panels + panel);
                let mut rest = list;
                loop {
                    let (now, later) = rest.split_at(rest.len().min(MAX_SEGMENTS));
                    for (segment, tap) in segments.iter_mut().zip(now) {
                        let a = (tap.from * samples + first) * from.channels + group * from.group;
                        let b = ((group * panels + panel) * taps + tap.tap) * tap_len;
                        *segment = Segment { a: from.values[a..].as_ptr(), b: weights[b..].as_ptr() };
                    }
                    let product = Product {
                        segments: &segments[..now.len()],
                        k: from.group,
                        left: Left::Rows,
                        a_stride: from.channels,
                        b_stride: width,
                        c: c.as_mut_ptr(),
                        c_stride: to.channels,
                        cols: columns,
                        start,
                    };
                    // SAFETY: the rows of `from` and `to` are in bounds (asserted above) and a row reaches `group`
                    // values into its group's channels; `weights` holds whole panels (asserted above); a start row is
                    // a panel of a padded bias.
                    unsafe { kernel.run(&product, block) };
                    if later.is_empty() {
                        break;
                    }
                    (rest, start) = (later, Start::Add);
                }
            }
        }
    }
}
