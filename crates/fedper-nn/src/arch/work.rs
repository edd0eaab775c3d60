//! How much arithmetic a network is.

use super::op::Shape;
use super::{Architecture, Op};

impl Architecture {
    /// Multiply-adds of one image's forward pass, in convolutions and linear layers; taps on padding count, as is usual
    /// in the literature. Training takes about three times as many: forward, and the gradients of input and weights.
    ///
    /// # Panics
    /// If the blocks do not fit each other, which [`Architecture::validate`] excludes.
    pub fn multiply_adds(&self) -> u64 {
        let mut shape = self.input_shape();
        self.blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(path(&block.ops, &mut shape)))
    }
}

/// The multiply-adds of `ops`; `shape` becomes that of their output.
fn path(ops: &[Op], shape: &mut Shape) -> u64 {
    // More than there are numbers for is the largest there is.
    let product = |factors: &[usize]| factors.iter().fold(1u64, |n, &factor| n.saturating_mul(factor as u64));
    let mut total = 0u64;
    for op in ops {
        let after = shape.after(op).expect("validated: shapes meet");
        let work = match op {
            Op::Conv2d { in_channels, kernel, groups, .. } => {
                product(&[after.numel(), in_channels / groups, kernel[0], kernel[1]])
            }
            Op::Linear { in_features, out_features, .. } => product(&[*in_features, *out_features]),
            Op::Residual { main, shortcut } => {
                path(main, &mut shape.clone()).saturating_add(path(shortcut, &mut shape.clone()))
            }
            _ => 0,
        };
        total = total.saturating_add(work);
        *shape = after;
    }
    total
}

#[cfg(test)]
mod tests {
    use crate::{Architecture, Block, InputShape, Model, Op, Stem};

    #[test]
    fn a_small_network_by_hand() {
        let conv = |name: &str, channels: [usize; 2], kernel: usize, groups: usize| Op::Conv2d {
            name: name.to_owned(),
            in_channels: channels[0],
            out_channels: channels[1],
            kernel: [kernel; 2],
            stride: 2,
            padding: kernel / 2,
            groups,
            bias: true,
        };
        let ops = vec![
            // 8x8 -> 4x4 positions, 6 channels, 3 x 9 taps each: 16 * 6 * 27 = 2592.
            conv("conv", [3, 6], 3, 1),
            Op::Relu,
            // 4x4 -> 2x2, both paths: depthwise 4 * 6 * 25 = 600, and 1x1 4 * 6 * 6 = 144.
            Op::Residual {
                main: vec![conv("depthwise", [6, 6], 5, 6)],
                shortcut: vec![conv("project", [6, 6], 1, 1)],
            },
            Op::Flatten,
            // 24 * 5 = 120.
            Op::Linear { name: "fc".to_owned(), in_features: 24, out_features: 5 },
        ];
        let input = InputShape { channels: 3, height: 8, width: 8 };
        let blocks = vec![Block { name: "all".to_owned(), ops }];
        let network = Architecture::from_blocks("small", input, 5, blocks).unwrap();
        assert_eq!(network.multiply_adds(), 2592 + 600 + 144 + 120);
    }

    /// He et al. (arXiv:1512.03385, table 1) give 3.6e9 for ResNet-34, Howard et al. (arXiv:1704.04861, table 4) 569e6
    /// for MobileNet-v1.
    #[test]
    fn published_networks_have_their_published_cost() {
        let input = InputShape { channels: 3, height: 224, width: 224 };
        let cost = |model| Architecture::new(model, Stem::Imagenet, input, 1000).unwrap().multiply_adds();
        assert_eq!(cost(Model::Resnet34), 3_663_761_408);
        assert_eq!(cost(Model::MobilenetV1) / 1_000_000, 568);
    }
}
