//! The built-in networks.

use std::fmt;
use std::str::FromStr;

use super::{Block, InputShape, Op};
use crate::NnError;

/// A built-in network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Model {
    /// ResNet-34 (He et al., arXiv:1512.03385), torchvision's names. 18 blocks: stem, 16 basic blocks, `fc`.
    Resnet34,
    /// MobileNet-v1 (Howard et al., arXiv:1704.04861) as timm's `mobilenetv1_100`: its names, and ReLU6 where the paper
    /// has ReLU. 15 blocks: stem, 13 depthwise-separable blocks, `classifier`.
    MobilenetV1,
    /// The convolutional network of McMahan et al. (arXiv:1602.05629) as PFLlib's `FedAvgCNN`: two unpadded 5x5
    /// convolutions (32, 64), each with ReLU and 2x2 max-pool, and a hidden layer of 512. 4 blocks.
    Cnn,
    /// The 2NN of McMahan et al. (arXiv:1602.05629): two hidden layers of 200 with ReLU. 3 blocks.
    Mlp,
}

impl Model {
    /// Every model.
    pub const ALL: [Model; 4] = [Model::Resnet34, Model::MobilenetV1, Model::Cnn, Model::Mlp];

    fn name(self) -> &'static str {
        match self {
            Model::Resnet34 => "resnet34",
            Model::MobilenetV1 => "mobilenet_v1",
            Model::Cnn => "cnn",
            Model::Mlp => "mlp",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Model {
    type Err = NnError;

    fn from_str(text: &str) -> Result<Self, NnError> {
        Self::ALL.into_iter().find(|model| model.name() == text).ok_or_else(|| NnError::UnknownName {
            what: "model",
            found: text.to_owned(),
            known: Self::ALL.map(Model::name).join(", "),
        })
    }
}

/// How `resnet34` and `mobilenet_v1` begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stem {
    /// As published, for images of about 224 pixels: ResNet 7x7 stride 2 and 3x3 max-pool stride 2, MobileNet 3x3
    /// stride 2.
    Imagenet,
    /// For images of about 32 pixels: 3x3 stride 1, no max-pool.
    Cifar,
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stem::Imagenet => "imagenet",
            Stem::Cifar => "cifar",
        })
    }
}

impl FromStr for Stem {
    type Err = NnError;

    fn from_str(text: &str) -> Result<Self, NnError> {
        match text {
            "imagenet" => Ok(Stem::Imagenet),
            "cifar" => Ok(Stem::Cifar),
            _ => Err(NnError::UnknownName {
                what: "stem",
                found: text.to_owned(),
                known: "imagenet, cifar".to_owned(),
            }),
        }
    }
}

/// What normalises in `resnet34` and `mobilenet_v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Over the batch and all positions, channel by channel: as published.
    #[default]
    Batch,
    /// Over all positions of a sample, in groups of 16 neighbouring channels.
    Group,
    /// The same in so many groups.
    Groups(usize),
}

/// Channels of a group unless something else is asked for.
const GROUP: usize = 16;

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Norm::Batch => f.pad("batch"),
            Norm::Group => f.pad("group"),
            Norm::Groups(groups) => f.pad(&format!("group:{groups}")),
        }
    }
}

impl FromStr for Norm {
    type Err = NnError;

    fn from_str(text: &str) -> Result<Self, NnError> {
        let groups = text.strip_prefix("group:").and_then(|groups| groups.parse().ok()).filter(|&n| n > 0);
        match (text, groups) {
            ("batch", _) => Ok(Norm::Batch),
            ("group", _) => Ok(Norm::Group),
            (_, Some(groups)) => Ok(Norm::Groups(groups)),
            _ => Err(NnError::UnknownName {
                what: "norm",
                found: text.to_owned(),
                known: "batch, group, group:COUNT".to_owned(),
            }),
        }
    }
}

impl Norm {
    fn op(self, name: impl Into<String>, channels: usize) -> Op {
        let (name, affine) = (name.into(), true);
        match self {
            Norm::Batch => Op::BatchNorm2d { name, channels },
            Norm::Group => Op::GroupNorm { name, groups: channels / GROUP, channels, affine },
            Norm::Groups(groups) => Op::GroupNorm { name, groups, channels, affine },
        }
    }
}

/// The blocks of `model`, or why this input cannot be fed to it.
pub(super) fn blocks(
    model: Model,
    stem: Stem,
    norm: Norm,
    input: InputShape,
    classes: usize,
) -> Result<Vec<Block>, String> {
    if norm != Norm::Batch && matches!(model, Model::Cnn | Model::Mlp) {
        return Err(format!("`{model}` normalises nothing: leave `{norm}` out"));
    }
    match model {
        Model::Resnet34 => Ok(resnet34(stem, norm, input.channels, classes)),
        Model::MobilenetV1 => Ok(mobilenet_v1(stem, norm, input.channels, classes)),
        Model::Cnn => cnn(input, classes),
        Model::Mlp => Ok(mlp(input, classes)),
    }
}

fn block(name: impl Into<String>, ops: Vec<Op>) -> Block {
    Block { name: name.into(), ops }
}

/// A square convolution without bias, as a norm follows it.
fn conv(
    name: impl Into<String>,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
) -> Op {
    Op::Conv2d {
        name: name.into(),
        in_channels: channels[0],
        out_channels: channels[1],
        kernel: [kernel; 2],
        stride,
        padding,
        groups,
        bias: false,
    }
}

fn linear(name: &str, in_features: usize, out_features: usize) -> Op {
    Op::Linear { name: name.to_owned(), in_features, out_features }
}

fn resnet34(stem: Stem, norm: Norm, channels: usize, classes: usize) -> Vec<Block> {
    let norm = |name: String, channels| norm.op(name, channels);
    let (kernel, stride) = match stem {
        Stem::Imagenet => (7, 2),
        Stem::Cifar => (3, 1),
    };
    let mut ops =
        vec![conv("conv1", [channels, 64], kernel, stride, kernel / 2, 1), norm("bn1".into(), 64), Op::Relu];
    if stem == Stem::Imagenet {
        ops.push(Op::MaxPool { kernel: 3, stride: 2, padding: 1 });
    }
    let mut blocks = vec![block("stem", ops)];
    let mut width_in = 64;
    for (stage, (width, count)) in [(64, 3), (128, 4), (256, 6), (512, 3)].into_iter().enumerate() {
        for index in 0..count {
            let name = format!("layer{}.{index}", stage + 1);
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let main = vec![
                conv(format!("{name}.conv1"), [width_in, width], 3, stride, 1, 1),
                norm(format!("{name}.bn1"), width),
                Op::Relu,
                conv(format!("{name}.conv2"), [width, width], 3, 1, 1, 1),
                norm(format!("{name}.bn2"), width),
            ];
            let shortcut = match stride {
                1 => vec![],
                _ => vec![
                    conv(format!("{name}.downsample.0"), [width_in, width], 1, stride, 0, 1),
                    norm(format!("{name}.downsample.1"), width),
                ],
            };
            blocks.push(block(name, vec![Op::Residual { main, shortcut }, Op::Relu]));
            width_in = width;
        }
    }
    blocks.push(block("fc", vec![Op::GlobalAvgPool, Op::Flatten, linear("fc", 512, classes)]));
    blocks
}

fn mobilenet_v1(stem: Stem, norm: Norm, channels: usize, classes: usize) -> Vec<Block> {
    let norm = |name: String, channels| norm.op(name, channels);
    let stride = match stem {
        Stem::Imagenet => 2,
        Stem::Cifar => 1,
    };
    let ops = vec![conv("conv_stem", [channels, 32], 3, stride, 1, 1), norm("bn1".into(), 32), Op::Relu6];
    let mut blocks = vec![block("stem", ops)];
    let mut width_in = 32;
    for (stage, (width, count)) in [(64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)].into_iter().enumerate()
    {
        for index in 0..count {
            let name = format!("blocks.{stage}.{index}");
            let stride = if stage > 0 && index == 0 { 2 } else { 1 };
            let ops = vec![
                conv(format!("{name}.conv_dw"), [width_in, width_in], 3, stride, 1, width_in),
                norm(format!("{name}.bn1"), width_in),
                Op::Relu6,
                conv(format!("{name}.conv_pw"), [width_in, width], 1, 1, 0, 1),
                norm(format!("{name}.bn2"), width),
                Op::Relu6,
            ];
            blocks.push(block(name, ops));
            width_in = width;
        }
    }
    let head = vec![Op::GlobalAvgPool, Op::Flatten, linear("classifier", 1024, classes)];
    blocks.push(block("classifier", head));
    blocks
}

fn cnn(input: InputShape, classes: usize) -> Result<Vec<Block>, String> {
    // Each 5x5 convolution takes 4 positions off, each max-pool halves, rounding down.
    let side = |extent: usize| {
        let first = extent.checked_sub(4)? / 2;
        Some(first.checked_sub(4)? / 2).filter(|&side| side > 0)
    };
    let (Some(height), Some(width)) = (side(input.height), side(input.width)) else {
        return Err(format!("the input is too small: {input}, but `cnn` needs at least 16x16 pixels"));
    };
    let stage = |name: &str, channels: [usize; 2]| {
        vec![
            Op::Conv2d {
                name: format!("{name}.0"),
                in_channels: channels[0],
                out_channels: channels[1],
                kernel: [5; 2],
                stride: 1,
                padding: 0,
                groups: 1,
                bias: true,
            },
            Op::Relu,
            Op::MaxPool { kernel: 2, stride: 2, padding: 0 },
        ]
    };
    Ok(vec![
        block("conv1", stage("conv1", [input.channels, 32])),
        block("conv2", stage("conv2", [32, 64])),
        block(
            "fc1",
            vec![
                Op::Flatten,
                linear("fc1.0", height.saturating_mul(width).saturating_mul(64), 512),
                Op::Relu,
            ],
        ),
        block("fc", vec![linear("fc", 512, classes)]),
    ])
}

fn mlp(input: InputShape, classes: usize) -> Vec<Block> {
    vec![
        block("fc1", vec![Op::Flatten, linear("fc1", input.numel(), 200), Op::Relu]),
        block("fc2", vec![linear("fc2", 200, 200), Op::Relu]),
        block("fc3", vec![linear("fc3", 200, classes)]),
    ]
}
