//! Initial weights.

use fedper_core::params::Params;
use fedper_core::seed::{Random, fill_normal, fill_uniform};

use super::{Architecture, Op};

impl Architecture {
    /// Fresh parameters, each drawn from its own generator `random(name)`, so that what one parameter gets does not
    /// depend on which others there are.
    ///
    /// - convolution weights: normal, mean 0, std `sqrt(2 / fan_out)`, `fan_out = out / groups * kernel_h * kernel_w`
    ///   (He et al., arXiv:1502.01852, "fan out" mode, as in torchvision's ResNet; the division by `groups` is timm's,
    ///   whose MobileNet-v1 this is);
    /// - linear weights, and all biases of linear layers and convolutions: uniform in `±1 / sqrt(fan_in)`;
    /// - batch norm: weight 1, bias 0, running mean 0, running variance 1.
    pub fn init(&self, random: impl FnMut(&str) -> Random) -> Params {
        let mut params = Params::zeros(self.layout());
        self.init_where(&mut params, |_| true, random);
        params
    }

    /// Like [`Architecture::init`], but only for the parameters whose name `chosen` accepts; the others stay as they
    /// are, and so do parameters in `params` that this network does not have.
    ///
    /// # Panics
    /// If a parameter in `params` has this network's name but another size.
    pub fn init_where(
        &self,
        params: &mut Params,
        chosen: impl Fn(&str) -> bool,
        mut random: impl FnMut(&str) -> Random,
    ) {
        let mut fill = |name: &str, distribution: Distribution| {
            let Some(position) = params.layout().position(name).filter(|_| chosen(name)) else { return };
            let values = params.at_mut(position);
            match distribution {
                Distribution::Constant(value) => values.fill(value),
                Distribution::Normal(std) => fill_normal(&mut random(name), std, values),
                Distribution::Uniform(bound) => fill_uniform(&mut random(name), bound, values),
            }
        };
        for op in self.blocks.iter().flat_map(|block| &block.ops) {
            init_op(op, &mut fill);
        }
    }
}

enum Distribution {
    Constant(f32),
    Normal(f64),
    Uniform(f64),
}

fn init_op(op: &Op, fill: &mut impl FnMut(&str, Distribution)) {
    match op {
        Op::Conv2d { name, in_channels, out_channels, kernel, groups, bias, .. } => {
            let area = kernel[0] as f64 * kernel[1] as f64;
            let fan_out = (out_channels / groups) as f64 * area;
            fill(&format!("{name}.weight"), Distribution::Normal((2.0 / fan_out).sqrt()));
            if *bias {
                let fan_in = (in_channels / groups) as f64 * area;
                fill(&format!("{name}.bias"), Distribution::Uniform(1.0 / fan_in.sqrt()));
            }
        }
        Op::BatchNorm2d { name, .. } => {
            for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
            {
                fill(&format!("{name}.{part}"), Distribution::Constant(value));
            }
        }
        Op::Linear { name, in_features, .. } => {
            let bound = 1.0 / (*in_features as f64).sqrt();
            fill(&format!("{name}.weight"), Distribution::Uniform(bound));
            fill(&format!("{name}.bias"), Distribution::Uniform(bound));
        }
        Op::Residual { main, shortcut } => main.iter().chain(shortcut).for_each(|op| init_op(op, fill)),
        Op::Relu | Op::Relu6 | Op::MaxPool { .. } | Op::GlobalAvgPool | Op::Flatten => {}
    }
}
