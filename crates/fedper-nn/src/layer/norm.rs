//! Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) with what follows it: a residual sum and an activation.

use fedper_core::params::Params;

use super::blocks;
use crate::kernel::elementwise::Activation;
use crate::kernel::norm::{
    Affine, Slope, Sums, denormalise, denormalise_into, gradient_sums, masked_gradient_sums, normalise,
    normalise_add, shifted_sums,
};
use crate::kernel::{BLOCK, Row, rows, rows_mut};
use crate::optim::{Array, Parameter, Sink};

/// PyTorch's defaults.
const EPS: f64 = 1e-5;
pub(crate) const MOMENTUM: f32 = 0.1;

pub(crate) struct Norm {
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    pub(crate) activation: Activation,
    /// How far a batch's statistics move the running ones.
    pub(crate) momentum: f32,
    /// Of the last forward pass, by block: mean, `weight * inverse` and bias; `inverse = 1 / sqrt(var + eps)`.
    affine: Vec<Affine>,
    inverse: Vec<Sums>,
    /// Of the backward pass.
    gradients: [Vec<f32>; 2],
}

/// The values of one block, filled up with zeros.
fn row(values: &[f32], block: usize) -> Row {
    let values = &values[block * BLOCK..];
    std::array::from_fn(|l| values.get(l).copied().unwrap_or(0.0))
}

impl Norm {
    pub(crate) fn new(name: &str, channels: usize, activation: Activation) -> Self {
        let parameter = |part: &str| Parameter::new(format!("{name}.{part}"), channels);
        let zero = Affine { mean: [0.0; BLOCK], scale: [0.0; BLOCK], shift: [0.0; BLOCK] };
        Self {
            weight: parameter("weight"),
            bias: parameter("bias"),
            running_mean: parameter("running_mean"),
            running_var: parameter("running_var"),
            activation,
            momentum: MOMENTUM,
            affine: vec![zero; blocks(channels)],
            inverse: vec![[0.0; BLOCK]; blocks(channels)],
            gradients: [vec![0.0; channels], vec![0.0; channels]],
        }
    }

    /// `z = activation(batch norm of y (+ residual))` of one block. In train mode with the batch's own statistics,
    /// which also move the running ones, unless these are frozen; else with the running ones.
    pub(crate) fn forward(
        &mut self,
        block: usize,
        y: &[f32],
        residual: Option<&[f32]>,
        z: &mut [f32],
        train: bool,
    ) {
        let y = rows(y);
        let channels = block * BLOCK..self.weight.values.len().min((block + 1) * BLOCK);
        let (mut mean, mut variance) = ([0.0; BLOCK], [0.0; BLOCK]);
        if train && !self.running_mean.frozen {
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
                    *running = (1.0 - self.momentum) * *running + self.momentum * new;
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
    pub(crate) fn backward(
        &mut self,
        block: usize,
        y: &[f32],
        g: &mut [f32],
        residual: Option<(&[f32], &mut [f32])>,
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

    /// Uses up the gradients of weight and bias, once the backward pass is over for all blocks.
    pub(crate) fn finish(&mut self, sink: &mut Sink<'_>) {
        let [weight, bias] = &self.gradients;
        self.weight.take(weight, sink);
        self.bias.take(bias, sink);
    }

    /// Hands every parameter that training changes to `visit`.
    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        visit(&mut self.weight);
        visit(&mut self.bias);
    }

    /// Leaves the running statistics alone if `frozen` says so of the mean's name: then they are what normalises, in train
    /// mode too.
    pub(crate) fn freeze_statistics(&mut self, frozen: &dyn Fn(&str) -> bool) {
        self.running_mean.frozen = frozen(&self.running_mean.name);
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.velocity.fill(0.0);
        self.bias.velocity.fill(0.0);
    }

    /// Statistics have values and nothing else: they are never tilted.
    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        self.weight.load(params, array);
        self.bias.load(params, array);
        if array == Array::Values {
            self.running_mean.load(params, array);
            self.running_var.load(params, array);
        }
    }

    pub(crate) fn store(&self, params: &mut Params) {
        for parameter in [&self.weight, &self.bias, &self.running_mean, &self.running_var] {
            parameter.store(params);
        }
    }
}
