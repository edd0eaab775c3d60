//! Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) with what follows it: a residual sum and an activation.

use super::{Backward, ByPlanes, Extent, Forward, Layer, Mode, Pass, Planes, Scratch};
use crate::kernel::elementwise::Activation;
use crate::kernel::norm::{
    Affine, Slope, Sums, denormalise, denormalise_into, gradient_sums, masked_gradient_sums, normalise,
    normalise_add, shifted_sums,
};
use crate::kernel::{BLOCK, Row, rows, rows_mut};
use crate::parameter::{Order, Parameter, Sink, parameters};

/// PyTorch's defaults.
const EPS: f64 = 1e-5;
const MOMENTUM: f32 = 0.1;

pub(crate) struct Norm {
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    activation: Activation,
    extent: Extent,
    adds: bool,
    /// Of the last forward pass, by block: mean, `weight * inverse` and bias; `inverse = 1 / sqrt(var + eps)`.
    affine: Vec<Affine>,
    inverse: Vec<Sums>,
    /// Of the backward pass.
    gradients: [Vec<f32>; 2],
}

parameters!(Norm: weight, bias, running_mean, running_var);

/// The values of one block, filled up with zeros.
fn row(values: &[f32], block: usize) -> Row {
    let values = &values[block * BLOCK..];
    std::array::from_fn(|l| values.get(l).copied().unwrap_or(0.0))
}

impl Norm {
    /// Of so many channels in `extent`; `adds` says that there is a residual, the second input.
    pub(crate) fn new(
        name: &str,
        channels: usize,
        extent: Extent,
        adds: bool,
        activation: Activation,
    ) -> Self {
        let parameter = |part: &str| Parameter::new(format!("{name}.{part}"), channels, Order::Torch);
        let statistic = |part: &str| Parameter::statistic(format!("{name}.{part}"), channels);
        let zero = Affine { mean: [0.0; BLOCK], scale: [0.0; BLOCK], shift: [0.0; BLOCK] };
        Self {
            weight: parameter("weight"),
            bias: parameter("bias"),
            running_mean: statistic("running_mean"),
            running_var: statistic("running_var"),
            activation,
            extent,
            adds,
            affine: vec![zero; extent.blocks],
            inverse: vec![[0.0; BLOCK]; extent.blocks],
            gradients: [vec![0.0; channels], vec![0.0; channels]],
        }
    }
}

impl Layer for Norm {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y: z, pass, .. } = pass;
        Planes::all(self.extent, pass).forward(self, inputs.of(0), inputs.second(), z);
    }

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { inputs, z, dy: g, mut gradients, pass, sink, .. } = pass;
        let residual = gradients.of(0).map(|dy| (z, dy.values));
        Planes::all(self.extent, pass).backward(self, inputs.of(0), g, residual);
        self.finish(sink);
    }

    /// The gradient of what is added to the output is that of the output.
    fn in_place(&self) -> Option<usize> {
        Some(usize::from(self.adds))
    }

    fn by_planes(&mut self) -> Option<&mut dyn ByPlanes> {
        Some(self)
    }
}

impl ByPlanes for Norm {
    /// `z = activation(batch norm of y (+ residual))` of one block. In train mode with the batch's own statistics,
    /// which also move the running ones, unless these are frozen; else with the running ones.
    fn forward(&mut self, block: usize, y: &[f32], residual: Option<&[f32]>, z: &mut [f32], pass: Pass) {
        let y = rows(y);
        let channels = block * BLOCK..self.weight.values.len().min((block + 1) * BLOCK);
        let (mut mean, mut variance) = ([0.0; BLOCK], [0.0; BLOCK]);
        let momentum = match pass.mode {
            Mode::Measure(momentum) => momentum,
            Mode::Train | Mode::Eval => MOMENTUM,
        };
        if pass.mode != Mode::Eval && !self.running_mean.frozen {
            let count = y.len() as f64;
            let (mut sum, mut squares) = ([0.0; BLOCK], [0.0; BLOCK]);
            // The first row is as good a pivot as any: it is within the spread of the values.
            shifted_sums(y, &y[0], &mut sum, &mut squares);
            for (l, c) in channels.clone().enumerate() {
                let shifted = sum[l] / count;
                variance[l] = (squares[l] / count - shifted * shifted).max(0.0);
                mean[l] = f64::from(y[0][l]) + shifted;
                let unbiased = variance[l] * count / (count - 1.0);
                for (running, new) in
                    [(&mut self.running_mean, mean[l] as f32), (&mut self.running_var, unbiased as f32)]
                {
                    let running = &mut running.values[c];
                    *running = (1.0 - momentum) * *running + momentum * new;
                }
            }
        } else {
            for (l, c) in channels.clone().enumerate() {
                mean[l] = f64::from(self.running_mean.values[c]);
                variance[l] = f64::from(self.running_var.values[c]);
            }
        }
        let affine = &mut self.affine[block];
        let inverse = &mut self.inverse[block];
        *inverse = variance.map(|variance| 1.0 / (variance + EPS).sqrt());
        let weight = row(&self.weight.values, block);
        affine.mean = mean.map(|mean| mean as f32);
        affine.scale = std::array::from_fn(|l| (f64::from(weight[l]) * inverse[l]) as f32);
        affine.shift = row(&self.bias.values, block);
        match residual {
            None => normalise(y, rows_mut(z), affine, self.activation.range()),
            Some(r) => normalise_add(y, rows(r), rows_mut(z), affine, self.activation.range()),
        }
    }

    /// The backward pass of a train-mode forward pass of one block from `y`. `g` is the gradient of its output, and
    /// becomes that of `y`; with a residual, whose output was `z`, it becomes the gradient of the residual instead, and
    /// that of `y` goes into `dy`.
    ///
    /// With `d = y - mean`, `i = 1 / sqrt(var + eps)` and sums over the batch of m rows:
    /// `dweight = i sum(g d)`, `dbias = sum(g)`, `dy = weight i (g - sum(g) / m - d i^2 sum(g d) / m)`; with frozen
    /// statistics, which do not depend on `y`, `dy = weight i g`.
    fn backward(
        &mut self,
        block: usize,
        y: &[f32],
        g: &mut [f32],
        residual: Option<(&[f32], &mut [f32])>,
        _: Pass,
    ) {
        let (y, g) = (rows(y), rows_mut(g));
        let (affine, inverse) = (&self.affine[block], &self.inverse[block]);
        let range = self.activation.range();
        let (mut sum, mut products) = ([0.0; BLOCK], [0.0; BLOCK]);
        match &residual {
            None => gradient_sums(g, y, affine, range, &mut sum, &mut products),
            Some((z, _)) => {
                masked_gradient_sums(g, y, rows(z), &affine.mean, range, &mut sum, &mut products);
            }
        }
        let per_row = |l: usize| f64::from(affine.scale[l]) / y.len() as f64;
        let slope = match self.running_mean.frozen {
            true => Slope { slope: [0.0; BLOCK], offset: [0.0; BLOCK] },
            false => Slope {
                slope: std::array::from_fn(|l| (-per_row(l) * inverse[l] * inverse[l] * products[l]) as f32),
                offset: std::array::from_fn(|l| (-per_row(l) * sum[l]) as f32),
            },
        };
        match residual {
            None => denormalise(g, y, affine, &slope, range),
            Some((_, dy)) => denormalise_into(g, y, rows_mut(dy), affine, &slope),
        }
        let [weight, bias] = &mut self.gradients;
        for (l, c) in (block * BLOCK..weight.len().min((block + 1) * BLOCK)).enumerate() {
            weight[c] = (products[l] * inverse[l]) as f32;
            bias[c] = sum[l] as f32;
        }
    }

    fn finish(&mut self, sink: Sink<'_>) {
        let [weight, bias] = &self.gradients;
        self.weight.take(0, weight, sink);
        self.bias.take(0, bias, sink);
    }
}
