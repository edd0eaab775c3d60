//! Group normalisation (Wu and He, arXiv:1803.08494) with what follows it: a residual sum and an activation.
//!
//! A sample's channels are normalised in groups of neighbours, over all positions, so nothing depends on the batch. What is
//! known of each sample and channel lies in *lines* of `[sample][16]`, as long as a position of a plane.

mod lines;

use std::ops::Range;

use self::lines::{denormalise, gradient_sums, normalise, normalise_add, shifted_sums, stop};
use super::{Backward, ByPlanes, Extent, Forward, Layer, Pass, Planes, Scratch};
use crate::kernel::BLOCK;
use crate::kernel::elementwise::{Activation, mask};
use crate::parameter::{Order, Parameter, Sink, parameters};

/// PyTorch's default.
const EPS: f64 = 1e-5;
/// Positions whose sums are taken in f32: few enough that little is lost.
const AT_ONCE: usize = 64;

pub(crate) struct GroupNorm {
    weight: Option<Parameter>,
    bias: Option<Parameter>,
    channels: usize,
    /// Channels of a group.
    group: usize,
    /// The fewest blocks of which groups reach into no other.
    span: usize,
    extent: Extent,
    adds: bool,
    activation: Activation,
    lines: Lines,
    totals: Totals,
    /// Of weight and bias, by channel.
    gradients: [Vec<f64>; 2],
    /// As they are handed on.
    rounded: Vec<f32>,
}

parameters!(GroupNorm: weight, bias);

/// Lines of all blocks, one block after the other.
struct Lines {
    mean: Vec<f32>,
    /// `1 / sqrt(variance + eps)`
    inverse: Vec<f64>,
    /// `weight * inverse`
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// The gradient is `scale * g + slope * (y - mean) + offset`.
    slope: Vec<f32>,
    offset: Vec<f32>,
}

/// Two sums over all positions, as lines.
struct Totals {
    lines: [Vec<f64>; 2],
    /// Of one block, over a few positions.
    sums: [Vec<f32>; 2],
    /// From one block's line to the next.
    stride: usize,
}

impl Totals {
    /// Where the line of `block` lies.
    fn line(&self, block: usize, samples: usize) -> Range<usize> {
        block * self.stride..block * self.stride + samples * BLOCK
    }

    /// Where the value of a sample and channel lies.
    fn at(&self, sample: usize, channel: usize) -> usize {
        channel / BLOCK * self.stride + sample * BLOCK + channel % BLOCK
    }

    /// Those of a block whose plane has `len` values: `add` adds those of a part of the plane to two lines.
    fn take(
        &mut self,
        block: usize,
        samples: usize,
        len: usize,
        mut add: impl FnMut(Range<usize>, &mut [f32], &mut [f32]),
    ) {
        let (line, at_once) = (self.line(block, samples), AT_ONCE * samples * BLOCK);
        self.lines.iter_mut().for_each(|total| total[line.clone()].fill(0.0));
        for first in (0..len).step_by(at_once) {
            let [a, b] = self.sums.each_mut().map(|sums| &mut sums[..line.len()]);
            a.fill(0.0);
            b.fill(0.0);
            add(first..len.min(first + at_once), a, b);
            for (total, sums) in self.lines.iter_mut().zip([a, b]) {
                for (total, &sum) in total[line.clone()].iter_mut().zip(&*sums) {
                    *total += f64::from(sum);
                }
            }
        }
    }
}

impl GroupNorm {
    /// Of so many channels, a multiple of `groups`; `affine` says whether there are weight and bias, `adds` that there is a
    /// residual, the second input.
    #[allow(clippy::too_many_arguments, reason = "what a layer is made of")]
    pub(crate) fn new(
        name: &str,
        [channels, groups]: [usize; 2],
        affine: bool,
        extent: Extent,
        adds: bool,
        activation: Activation,
        max_batch: usize,
    ) -> Self {
        let parameter =
            |part: &str| affine.then(|| Parameter::new(format!("{name}.{part}"), channels, Order::Torch));
        let group = channels / groups;
        let span = match group {
            _ if BLOCK.is_multiple_of(group) => 1,
            _ if group.is_multiple_of(BLOCK) => group / BLOCK,
            _ => extent.blocks,
        };
        let stride = max_batch * BLOCK;
        let line = || vec![0.0; extent.blocks * stride];
        let wide = || vec![0.0; extent.blocks * stride];
        Self {
            weight: parameter("weight"),
            bias: parameter("bias"),
            channels,
            group,
            span,
            extent,
            adds,
            activation,
            lines: Lines {
                mean: line(),
                inverse: wide(),
                scale: line(),
                shift: line(),
                slope: line(),
                offset: line(),
            },
            totals: Totals { lines: [wide(), wide()], sums: [vec![0.0; stride], vec![0.0; stride]], stride },
            gradients: [vec![0.0; channels], vec![0.0; channels]],
            rounded: vec![0.0; channels],
        }
    }

    fn weight(&self, channel: usize) -> f64 {
        self.weight.as_ref().map_or(1.0, |weight| weight.values[channel].into())
    }

    /// The groups that lie in these blocks, as channels.
    fn groups(&self, blocks: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let group = self.group;
        let end = self.channels.min(blocks.end * BLOCK);
        (blocks.start * BLOCK..end).step_by(group).map(move |first| first..first + group)
    }

    /// `z = activation(group norm of y (+ residual))` of a span, from whose first block on the slices begin.
    fn forward_span(&mut self, planes: &Planes, y: &[f32], residual: Option<&[f32]>, z: &mut [f32]) {
        let (samples, extent) = (planes.pass.samples, self.extent);
        for (i, block) in planes.blocks.clone().enumerate() {
            let y = &y[extent.range(i, samples)];
            self.totals.take(block, samples, y.len(), |part, sum, squares| {
                shifted_sums(&y[part], &y[..samples * BLOCK], sum, squares);
            });
        }
        let positions = extent.positions as f64;
        for sample in 0..samples {
            for group in self.groups(&planes.blocks) {
                // The mean and the variance of each channel, and then those of all. The first position is the pivot.
                let (mut mean, mut variance) = (0.0, 0.0);
                for channel in group.clone() {
                    let at = self.totals.at(sample, channel);
                    let plane = extent.range(channel / BLOCK - planes.blocks.start, samples);
                    let pivot = y[plane.start + sample * BLOCK + channel % BLOCK];
                    let [sum, squares] = self.totals.lines.each_mut().map(|total| &mut total[at]);
                    let shifted = *sum / positions;
                    *squares = (*squares / positions - shifted * shifted).max(0.0);
                    *sum = f64::from(pivot) + shifted;
                    mean += *sum / self.group as f64;
                }
                for channel in group.clone() {
                    let at = self.totals.at(sample, channel);
                    let [own, within] = self.totals.lines.each_ref().map(|total| total[at]);
                    variance += (within + (own - mean).powi(2)) / self.group as f64;
                }
                let inverse = 1.0 / (variance + EPS).sqrt();
                for channel in group {
                    let at = self.totals.at(sample, channel);
                    self.lines.mean[at] = mean as f32;
                    self.lines.inverse[at] = inverse;
                    self.lines.scale[at] = (self.weight(channel) * inverse) as f32;
                    self.lines.shift[at] = self.bias.as_ref().map_or(0.0, |bias| bias.values[channel]);
                }
            }
        }
        for (i, block) in planes.blocks.clone().enumerate() {
            let (range, line) = (extent.range(i, samples), self.totals.line(block, samples));
            let residual = residual.map(|residual| &residual[range.clone()]);
            let Lines { mean, scale, shift, .. } = &self.lines;
            let affine = [mean, scale, shift].map(|values| &values[line.clone()]);
            let (y, z) = (&y[range.clone()], &mut z[range]);
            match residual {
                None => normalise(y, z, affine, self.activation.range()),
                Some(residual) => normalise_add(y, residual, z, affine, self.activation.range()),
            }
        }
    }

    /// The backward pass of a span, as [`ByPlanes::backward`] has it.
    ///
    /// With sums over the m values of a group of a sample, `i = 1 / sqrt(var + eps)`, `d = y - mean`, and w the weights:
    /// `dy = i (w g - sum(w g) / m - d i^2 sum(w g d) / m)`; `dweight = sum(i g d)` and `dbias = sum(g)` over samples and
    /// positions.
    fn backward_span(
        &mut self,
        planes: &Planes,
        y: &[f32],
        g: &mut [f32],
        mut residual: Option<(&[f32], &mut [f32])>,
    ) {
        let (samples, extent) = (planes.pass.samples, self.extent);
        let range = self.activation.range();
        for (i, block) in planes.blocks.clone().enumerate() {
            let plane = extent.range(i, samples);
            let (y, g) = (&y[plane.clone()], &mut g[plane.clone()]);
            let Lines { mean, scale, shift, .. } = &self.lines;
            let line = self.totals.line(block, samples);
            let affine = [mean, scale, shift].map(|values| &values[line.clone()]);
            match &residual {
                None => stop(g, y, affine, range),
                Some((z, _)) => mask(g, &z[plane], range),
            }
            self.totals.take(block, samples, y.len(), |part, sum, products| {
                gradient_sums(&g[part.clone()], &y[part], affine[0], sum, products);
            });
        }
        let count = (extent.positions * self.group) as f64;
        for group in self.groups(&planes.blocks) {
            for channel in group.clone() {
                self.gradients.iter_mut().for_each(|gradient| gradient[channel] = 0.0);
            }
            for sample in 0..samples {
                let (mut sum, mut products) = (0.0, 0.0);
                for channel in group.clone() {
                    let at = self.totals.at(sample, channel);
                    let [g, gd] = self.totals.lines.each_ref().map(|total| total[at]);
                    sum += self.weight(channel) * g;
                    products += self.weight(channel) * gd;
                    self.gradients[0][channel] += self.lines.inverse[at] * gd;
                    self.gradients[1][channel] += g;
                }
                for channel in group.clone() {
                    let at = self.totals.at(sample, channel);
                    let inverse = self.lines.inverse[at];
                    self.lines.offset[at] = (-inverse * sum / count) as f32;
                    self.lines.slope[at] = (-inverse.powi(3) * products / count) as f32;
                }
            }
        }
        for (i, block) in planes.blocks.clone().enumerate() {
            let (plane, line) = (extent.range(i, samples), self.totals.line(block, samples));
            let Lines { mean, scale, slope, offset, .. } = &self.lines;
            let affine = [mean, scale, slope, offset].map(|values| &values[line.clone()]);
            let (y, g) = (&y[plane.clone()], &mut g[plane.clone()]);
            match &mut residual {
                None => denormalise(g, y, affine),
                Some((_, dy)) => {
                    let dy = &mut dy[plane];
                    dy.copy_from_slice(g);
                    denormalise(dy, y, affine);
                }
            }
        }
    }

    /// Spans from the first to the last.
    fn spans(&self, pass: Pass) -> impl Iterator<Item = Planes> + use<> {
        let (span, extent) = (self.span, self.extent);
        (0..extent.blocks).step_by(span).map(move |first| Planes {
            blocks: first..extent.blocks.min(first + span),
            extent,
            pass,
        })
    }
}

impl Layer for GroupNorm {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y: z, pass, .. } = pass;
        for planes in self.spans(pass) {
            let [y, residual] = [Some(inputs.of(0)), inputs.second()].map(|x| x.map(|x| &x[planes.range()]));
            self.forward_span(&planes, y.expect("its input"), residual, &mut z[planes.range()]);
        }
    }

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, z, dy: g, mut gradients, pass, sink, .. } = pass;
        let mut dy = gradients.of(0);
        for planes in self.spans(pass) {
            let residual = dy.as_mut().map(|dy| (&z[planes.range()], &mut dy.values[planes.range()]));
            self.backward_span(&planes, &inputs.of(0)[planes.range()], &mut g[planes.range()], residual);
        }
        self.finish(sink);
    }

    /// The gradient of what is added to the output is that of the output.
    fn in_place(&self) -> Option<usize> {
        Some(usize::from(self.adds))
    }

    fn by_planes(&mut self) -> Option<&mut dyn ByPlanes> {
        if self.span == 1 { Some(self) } else { None }
    }
}

impl ByPlanes for GroupNorm {
    fn forward(&mut self, block: usize, y: &[f32], residual: Option<&[f32]>, z: &mut [f32], pass: Pass) {
        let planes = Planes { blocks: block..block + 1, extent: self.extent, pass };
        self.forward_span(&planes, y, residual, z);
    }

    fn backward(
        &mut self,
        block: usize,
        y: &[f32],
        g: &mut [f32],
        residual: Option<(&[f32], &mut [f32])>,
        pass: Pass,
    ) {
        let planes = Planes { blocks: block..block + 1, extent: self.extent, pass };
        self.backward_span(&planes, y, g, residual);
    }

    fn finish(&mut self, sink: Sink<'_>) {
        for (parameter, gradient) in [&mut self.weight, &mut self.bias].into_iter().zip(&self.gradients) {
            if let Some(parameter) = parameter {
                self.rounded.iter_mut().zip(gradient).for_each(|(to, &value)| *to = value as f32);
                parameter.take(0, &self.rounded, sink);
            }
        }
    }
}
