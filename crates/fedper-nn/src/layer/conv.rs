//! Convolution over blocked activations.

mod panel;

pub(super) use self::panel::{Taps, walk_panel};
use super::bf16::Bf16;
use super::geometry::{Link, Links, Walk, Window};
use super::way::{Way, Ways};
use super::weight::{Bias, Weight};
use super::winograd::{Part, Points, Winograd};
use super::{Backward, Done, Extent, Forward, InputGradient, Layer, Scratch};
use crate::kernel::gemm::{Kernel, OUTER_ROWS, Outer, Rows, Start, Stretch};
use crate::kernel::{BLOCK, Kernels, winograd};
use crate::parameter::{Panel, Sink, parameters};

/// Taps that one call of the matrix kernel adds up.
const MAX_SEGMENTS: usize = 64;
/// Stretches of rows that one call of the outer product adds up.
const MAX_STRETCHES: usize = 64;

/// A convolution. Groups are a dense convolution whose other weights are zero.
pub(crate) struct Conv {
    pub(super) weight: Weight,
    pub(super) bias: Option<Bias>,
    pub(super) inputs: Extent,
    pub(super) outputs: Extent,
    pub(super) forward: Walk,
    pub(super) backward: Walk,
    links: Links,
    /// Which taps ever meet the input.
    pub(super) alive: Vec<bool>,
    /// Whether every tap has exactly one link, as in a pointwise convolution.
    linked_once: bool,
    ways: Ways,
    /// For [`Way::Tiles`] and [`Way::PooledTiles`].
    pub(super) winograd: Option<Winograd>,
    /// For [`Way::Rounded`] and [`Way::Parts`].
    bf16: Option<Bf16>,
    pub(super) kernel: &'static Kernel,
}

parameters!(Conv: weight, bias);

impl Conv {
    /// # Shapes
    /// Input `channels[0]` at the window's input positions, output `channels[1]` at its output positions.
    pub(crate) fn new(
        name: &str,
        window: &Window,
        channels: [usize; 2],
        groups: usize,
        bias: bool,
        kernels: Kernels,
        ways: Ways,
    ) -> Self {
        let kernel = kernels.matrix;
        let weight = Weight::new(format!("{name}.weight"), channels, groups, window.taps(), true, kernel);
        let links = window.links();
        let one_of = |of: [Way; 2]| of.iter().any(|&way| ways.largest(way) > 0);
        let winograd = one_of([Way::Tiles, Way::PooledTiles])
            .then(|| Winograd::new(window, channels, groups).expect("the plan knows that it can be"));
        let bf16 = one_of([Way::Rounded, Way::Parts])
            .then(|| Bf16::new(kernels.bf16.expect("the plan knows that there is one"), window));
        let counts = (0..window.taps()).map(|tap| links.of(tap, 0..links.rows()).len());
        let alive = counts.clone().map(|count| count > 0).collect();
        let linked_once = counts.into_iter().all(|count| count == 1);
        Self {
            bias: bias.then(|| Bias::new(format!("{name}.bias"), channels[1])),
            weight,
            inputs: Extent::new(channels[0], window.input),
            outputs: Extent::new(channels[1], window.output()),
            forward: window.forward(),
            backward: window.backward(),
            links,
            alive,
            linked_once,
            ways,
            winograd,
            bf16,
            kernel,
        }
    }

    /// What [`Conv::forward_tiles`] and [`Conv::backward_tiles`] need.
    pub(super) fn reserve_tiles(&self, scratch: &mut Scratch) {
        scratch.reserve(self.weight.panel_len(), 0);
        self.winograd.iter().for_each(|winograd| winograd.reserve(scratch, self.blocks()));
    }

    /// Blocks of inputs and outputs.
    pub(super) fn blocks(&self) -> [usize; 2] {
        [self.inputs.blocks, self.outputs.blocks]
    }

    /// The forward pass by tiles; `put` is handed points of the output, the bias, and which they are.
    pub(super) fn forward_tiles(
        &mut self,
        points: &mut Points,
        x: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        mut put: impl FnMut(&[f32], Option<&[f32]>, &Part),
    ) {
        let winograd = self.winograd.expect("called for convolutions by tiles");
        let bias = self.bias.as_mut().map(Bias::refresh);
        let sides = [self.inputs, self.outputs];
        winograd.product(self.kernel, sides, &self.weight, points, x, samples, scratch, |points, part| {
            put(points, bias, part);
        });
    }

    /// The backward pass by tiles but for the bias. The points of the weights are lost; those of the inputs may have been `kept`
    /// since [`Conv::forward_tiles`]. `take` writes the points of the output's gradient, in so many groups.
    #[allow(clippy::too_many_arguments, reason = "two passes in one")]
    pub(super) fn backward_tiles(
        &mut self,
        points: &mut Points,
        kept: bool,
        x: &[f32],
        dx: Option<InputGradient<'_>>,
        samples: usize,
        scratch: &mut Scratch,
        sink: Sink<'_>,
        done: Done<'_>,
        groups: usize,
        take: impl FnMut(&mut [f32], &[f32], &Part, usize),
    ) {
        let winograd = self.winograd.expect("called for convolutions by tiles");
        let mut dx = dx.map(|dx| {
            if !dx.add {
                dx.values.fill(0.0);
            }
            dx.values
        });
        let sides = [self.inputs, self.outputs];
        let to = dx.as_deref_mut();
        winograd.gradients(
            self.kernel,
            sides,
            &self.weight,
            points,
            kept,
            x,
            to,
            samples,
            scratch,
            groups,
            take,
        );
        if let Some(dx) = dx {
            done(0..self.inputs.blocks, dx);
        }
        let taps = self.weight.taps;
        for panel in self.weight.panels() {
            let gradient = &mut scratch.gradient[..taps * self.weight.rows * panel.width()];
            winograd.gradient(&self.weight, panel, &points.filters, gradient);
            self.weight.take(panel, 0..taps, gradient, &self.alive, sink);
        }
    }

    fn forward_in_tiles(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, scratch, .. } = pass;
        let (outputs, size) = (self.outputs, self.winograd.expect("made for it").output);
        let mut points = std::mem::take(&mut scratch.points);
        self.forward_tiles(&mut points, inputs.of(0), pass.samples, scratch, |points, bias, part| {
            let start = bias.map_or(Start::Zero, |bias| Start::Row(bias.as_ptr()));
            let side = part.side(outputs, size, pass.samples);
            winograd::outputs(points, &part.tile, y, &side, part.corner, start);
        });
        scratch.points = points;
    }

    fn backward_in_tiles(&mut self, pass: Backward<'_>) {
        let Backward { inputs, dy, mut gradients, pass, scratch, sink, done, .. } = pass;
        let (samples, dx) = (pass.samples, gradients.of(0));
        let winograd = self.winograd.expect("made for it");
        let (outputs, size) = (self.outputs, winograd.output);
        let mut points = std::mem::take(&mut scratch.points);
        if dx.is_some() {
            winograd.filters(&self.weight, &mut points.filters);
        }
        let take = |points: &mut [f32], zeros: &[f32], part: &Part, _| {
            let side = part.side(outputs, size, samples);
            winograd::output_gradients(dy, &side, part.corner, zeros, points, &part.tile);
        };
        self.backward_tiles(&mut points, false, inputs.of(0), dx, samples, scratch, sink, done, 1, take);
        scratch.points = points;
        self.bias_gradient(dy, samples, sink);
    }

    /// `dx (+)=` the gradient of the input.
    fn input_gradient(
        &self,
        dy: &[f32],
        dx: InputGradient<'_>,
        samples: usize,
        scratch: &mut Scratch,
        done: Done<'_>,
    ) {
        let InputGradient { values: dx, add } = dx;
        let stride = self.inputs.stride(samples);
        let start = if add { Start::Add } else { Start::Zero };
        for panel in self.weight.input_panels() {
            let transposed = &mut scratch.transposed[..];
            self.weight.transpose(panel, |tap| self.alive[tap], transposed);
            let weights = Taps { values: transposed, stride: self.outputs.blocks * BLOCK * panel.width() };
            let sides = [self.outputs, self.inputs];
            walk_panel(self.kernel, &self.backward, sides, dy, dx, samples, panel, weights, start);
            done(panel.range(), &mut dx[panel.first * stride..][..panel.blocks * stride]);
        }
    }

    /// The weight gradient of a tap that has one link, in one panel: it is complete after that link, and is used up while
    /// it is in the first-level cache.
    #[allow(clippy::too_many_arguments, reason = "private, and called from two places")]
    fn tap_gradient(
        &mut self,
        tap: usize,
        panel: Panel,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: Sink<'_>,
    ) {
        let gradient = &mut scratch.gradient[..self.weight.rows * panel.width()];
        gradient.fill(0.0);
        self.add_links(self.links.of(tap, 0..self.links.rows()), panel, x, dy, samples, gradient);
        self.weight.take(panel, tap..tap + 1, gradient, &self.alive, sink);
    }

    pub(super) fn bias_gradient(&mut self, dy: &[f32], samples: usize, sink: Sink<'_>) {
        if let Some(bias) = &mut self.bias {
            bias.backward(dy, self.outputs, samples, sink);
        }
    }

    fn weight_gradient(
        &mut self,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        scratch: &mut Scratch,
        sink: Sink<'_>,
    ) {
        let taps = self.weight.taps;
        let height = self.links.rows();
        // As many rows of outputs at a time as make a good outer product; every tap passes over them while they are in
        // the cache.
        let row = self.outputs.positions.div_ceil(height) * samples;
        let step = (OUTER_ROWS / row).clamp(1, height);
        for panel in self.weight.panels() {
            let tap_len = self.weight.rows * panel.width();
            if self.linked_once {
                for tap in 0..taps {
                    self.tap_gradient(tap, panel, x, dy, samples, scratch, sink);
                }
            } else {
                let gradient = &mut scratch.gradient[..taps * tap_len];
                gradient.fill(0.0);
                for first in (0..height).step_by(step) {
                    let rows = first..height.min(first + step);
                    for (tap, gradient) in gradient.chunks_exact_mut(tap_len).enumerate() {
                        self.add_links(self.links.of(tap, rows.clone()), panel, x, dy, samples, gradient);
                    }
                }
                self.weight.take(panel, 0..taps, gradient, &self.alive, sink);
            }
        }
    }

    /// Adds the part of some links of a tap to its gradient in one panel.
    fn add_links(
        &self,
        links: &[Link],
        panel: Panel,
        x: &[f32],
        dy: &[f32],
        samples: usize,
        gradient: &mut [f32],
    ) {
        let (x_plane, dy_plane) = (self.inputs.stride(samples), self.outputs.stride(samples));
        assert!(x.len() >= self.inputs.len(samples) && dy.len() >= self.outputs.len(samples));
        assert!(gradient.len() >= self.weight.rows * panel.width());
        let inputs = Rows::Blocked { blocks: self.inputs.blocks, plane: x_plane };
        let dw = gradient.as_mut_ptr();
        let (mut stretches, mut count, mut rows) = ([Stretch::NONE; MAX_STRETCHES], 0, 0);
        let flush = |stretches: &[Stretch]| {
            let outer = Outer { stretches, inputs, dy_plane, dw, add: true };
            // SAFETY: the rows of every stretch are among the positions of every plane, and `gradient` is a tap of the
            // panel (asserted above and below).
            unsafe { self.kernel.outer(&outer, panel.blocks) };
        };
        for link in links {
            assert!(
                link.x + link.len <= self.inputs.positions && link.y + link.len <= self.outputs.positions
            );
            let all = link.len * samples;
            for first in (0..all).step_by(OUTER_ROWS) {
                let these = OUTER_ROWS.min(all - first);
                if count == MAX_STRETCHES || (count > 0 && rows + these > OUTER_ROWS + OUTER_ROWS / 2) {
                    flush(&stretches[..count]);
                    (count, rows) = (0, 0);
                }
                stretches[count] = Stretch {
                    x: x[(link.x * samples + first) * BLOCK..].as_ptr(),
                    dy: dy[panel.first * dy_plane + (link.y * samples + first) * BLOCK..].as_ptr(),
                    rows: these,
                };
                (count, rows) = (count + 1, rows + these);
            }
        }
        if count > 0 {
            flush(&stretches[..count]);
        }
    }
}

impl Layer for Conv {
    fn reserve(&self, scratch: &mut Scratch, max_batch: usize, input_gradient: bool) {
        if let Some(bf16) = &self.bf16 {
            bf16.reserve(scratch, &self.weight, [self.inputs, self.outputs], max_batch);
        }
        if self.ways.largest(Way::Tiles) > 0 {
            let winograd = self.winograd.expect("made for it");
            winograd.reserve_points(&mut scratch.points, self.blocks());
            self.reserve_tiles(scratch);
        }
        if self.ways.largest(Way::Taps) > 0 {
            let transposed = if input_gradient { self.weight.transposed_len() } else { 0 };
            scratch.reserve(self.weight.panel_len(), transposed);
        }
    }

    fn forward(&mut self, pass: Forward<'_>) {
        match self.ways.of(pass.pass.samples) {
            Way::Rounded | Way::Parts => {
                return self.forward_bf16(self.bf16.expect("made for it"), pass);
            }
            Way::Tiles => return self.forward_in_tiles(pass),
            _ => {}
        }
        let Forward { inputs, y, pass, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        let bias = self.bias.as_mut().map(Bias::refresh);
        let values = self.weight.values();
        for panel in self.weight.panels() {
            let start = match bias {
                Some(bias) => Start::Row(bias[panel.first * BLOCK..][..panel.width()].as_ptr()),
                None => Start::Zero,
            };
            let weights = Taps { values: &values[panel.start..], stride: self.weight.rows * panel.width() };
            let (walk, sides) = (&self.forward, [self.inputs, self.outputs]);
            walk_panel(self.kernel, walk, sides, x, y, samples, panel, weights, start);
            let stride = self.outputs.stride(samples);
            done(panel.range(), &mut y[panel.first * stride..][..panel.blocks * stride]);
        }
    }

    fn backward(&mut self, pass: Backward<'_>) {
        match self.ways.of(pass.pass.samples) {
            Way::Rounded | Way::Parts => {
                return self.backward_bf16(self.bf16.expect("made for it"), pass);
            }
            Way::Tiles => return self.backward_in_tiles(pass),
            _ => {}
        }
        let Backward { inputs, dy, mut gradients, pass, scratch, sink, done, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        if let Some(dx) = gradients.of(0) {
            self.input_gradient(dy, dx, samples, scratch, done);
        }
        self.weight_gradient(x, dy, samples, scratch, sink);
        self.bias_gradient(dy, samples, sink);
    }

    fn in_place(&self) -> Option<usize> {
        None
    }
}
