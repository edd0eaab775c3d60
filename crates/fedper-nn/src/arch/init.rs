//! Initial weights.

use fedper_core::params::Params;
use fedper_core::seed::{Random, fill_normal, fill_uniform};

use super::{Architecture, Init, Op};

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
        for (spec, init) in self.blocks.iter().flat_map(|block| &block.ops).flat_map(Op::parameters) {
            let name = &spec.name;
            let Some(position) = params.layout().position(name).filter(|_| chosen(name)) else { continue };
            let values = params.at_mut(position);
            match init {
                Init::Constant(value) => values.fill(value),
                Init::Normal(std) => fill_normal(&mut random(name), std, values),
                Init::Uniform(bound) => fill_uniform(&mut random(name), bound, values),
            }
        }
    }
}
