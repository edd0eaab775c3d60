//! Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) with what follows it: a residual sum and an activation.

use fedper_core::params::Params;

use crate::kernel::elementwise::Activation;
use crate::kernel::norm::{
    denormalise, denormalise_into, gradient_sums, normalise, normalise_add, shifted_sums,
};
use crate::optim::{Parameter, Sink};

/// PyTorch's defaults.
const EPS: f64 = 1e-5;
const MOMENTUM: f32 = 0.1;

pub(crate) struct Norm {
    weight: Parameter,
    bias: Parameter,
    running_mean: Parameter,
    running_var: Parameter,
    pub(crate) activation: Activation,
    /// Of the last forward pass: mean, `weight * inverse`, and `1 / sqrt(var + eps)`.
    mean: Vec<f32>,
    scale: Vec<f32>,
    inverse: Vec<f64>,
    /// Per-channel scratch.
    sums: [Vec<f64>; 2],
    line: [Vec<f32>; 2],
}

impl Norm {
    /// # Shapes
    /// Input and output `[rows][channels]`.
    pub(crate) fn new(name: &str, channels: usize, activation: Activation) -> Self {
        let parameter = |part: &str| Parameter::new(format!("{name}.{part}"), channels);
        Self {
            weight: parameter("weight"),
            bias: parameter("bias"),
            running_mean: parameter("running_mean"),
            running_var: parameter("running_var"),
            activation,
            mean: vec![0.0; channels],
            scale: vec![0.0; channels],
            inverse: vec![0.0; channels],
            sums: [vec![0.0; channels], vec![0.0; channels]],
            line: [vec![0.0; channels], vec![0.0; channels]],
        }
    }

    /// `z = activation(batch norm of y (+ residual))`. In train mode with the batch's own statistics, which also move
    /// the running ones; else with the running ones.
    pub(crate) fn forward(&mut self, y: &[f32], residual: Option<&[f32]>, z: &mut [f32], train: bool) {
        let channels = self.mean.len();
        if train {
            let rows = y.len() / channels;
            let [sum, squares] = &mut self.sums;
            sum.fill(0.0);
            squares.fill(0.0);
            // The first row is as good a pivot as any: it is within the spread of the values.
            let pivot = &y[..channels];
            shifted_sums(y, pivot, sum, squares);
            #[allow(clippy::needless_range_loop, reason = "`c` goes through half a dozen arrays")]
            for c in 0..channels {
                let shifted = self.sums[0][c] / rows as f64;
                let variance = (self.sums[1][c] / rows as f64 - shifted * shifted).max(0.0);
                let mean = f64::from(pivot[c]) + shifted;
                let unbiased = variance * rows as f64 / (rows as f64 - 1.0);
                self.set(c, mean, variance);
                let running = &mut self.running_mean.values[c];
                *running = (1.0 - MOMENTUM) * *running + MOMENTUM * mean as f32;
                let running = &mut self.running_var.values[c];
                *running = (1.0 - MOMENTUM) * *running + MOMENTUM * unbiased as f32;
            }
        } else {
            for c in 0..channels {
                self.set(c, f64::from(self.running_mean.values[c]), f64::from(self.running_var.values[c]));
            }
        }
        let (shift, range) = (&self.bias.values, self.activation.range());
        match residual {
            None => normalise(y, z, &self.mean, &self.scale, shift, range),
            Some(r) => normalise_add(y, r, z, &self.mean, &self.scale, shift, range),
        }
    }

    fn set(&mut self, channel: usize, mean: f64, variance: f64) {
        self.mean[channel] = mean as f32;
        self.inverse[channel] = 1.0 / (variance + EPS).sqrt();
        self.scale[channel] = (f64::from(self.weight.values[channel]) * self.inverse[channel]) as f32;
    }

    /// The backward pass of a train-mode forward pass from `y` to `z`. `g` is the gradient of `z`; it becomes the
    /// gradient of the residual. The gradient of `y` goes into `dy`, or replaces it in `g` if `dy` is none.
    ///
    /// With `d = y - mean`, `i = 1 / sqrt(var + eps)` and sums over the batch of m rows:
    /// `dweight = i sum(g d)`, `dbias = sum(g)`, `dy = weight i (g - sum(g) / m - d i^2 sum(g d) / m)`.
    pub(crate) fn backward(
        &mut self,
        y: &[f32],
        z: &[f32],
        g: &mut [f32],
        dy: Option<&mut [f32]>,
        sink: &mut Sink<'_>,
    ) {
        let channels = self.mean.len();
        let rows = (y.len() / channels) as f64;
        let [sum, products] = &mut self.sums;
        sum.fill(0.0);
        products.fill(0.0);
        gradient_sums(g, z, y, &self.mean, self.activation.range(), sum, products);
        let [slope, offset] = &mut self.line;
        for c in 0..channels {
            let scale = f64::from(self.scale[c]);
            slope[c] = (-scale * self.inverse[c] * self.inverse[c] * products[c] / rows) as f32;
            offset[c] = (-scale * sum[c] / rows) as f32;
        }
        match dy {
            Some(dy) => denormalise_into(g, y, dy, &self.mean, &self.scale, slope, offset),
            None => denormalise(g, y, &self.mean, &self.scale, slope, offset),
        }
        // The lines have been used: they now carry the gradients.
        for c in 0..channels {
            slope[c] = (products[c] * self.inverse[c]) as f32;
            offset[c] = sum[c] as f32;
        }
        self.weight.take(slope, sink);
        self.bias.take(offset, sink);
    }

    pub(crate) fn reset_velocity(&mut self) {
        self.weight.velocity.fill(0.0);
        self.bias.velocity.fill(0.0);
    }

    pub(crate) fn load(&mut self, params: &Params) {
        for parameter in [&mut self.weight, &mut self.bias, &mut self.running_mean, &mut self.running_var] {
            parameter.load(params);
        }
    }

    pub(crate) fn store(&self, params: &mut Params) {
        for parameter in [&self.weight, &self.bias, &self.running_mean, &self.running_var] {
            parameter.store(params);
        }
    }
}
