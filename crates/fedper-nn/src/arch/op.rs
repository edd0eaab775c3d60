//! The vocabulary networks are written in.

use std::fmt;

use fedper_core::params::Spec;

/// The size of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputShape {
    /// Values per pixel: 1 for grey, 3 for colour.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl InputShape {
    /// Values per image; `usize::MAX` if that is more than there are numbers for, which no [`Architecture`] takes.
    ///
    /// [`Architecture`]: crate::Architecture
    pub fn numel(&self) -> usize {
        let sides = [self.channels, self.height, self.width];
        if sides.contains(&0) { 0 } else { sides.iter().fold(1, |n: usize, &side| n.saturating_mul(side)) }
    }
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

/// One operation of a network. `name` is the prefix of its parameters' names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Cross-correlation with zero padding, as PyTorch's `Conv2d`: parameters `name.weight`
    /// `[out, in / groups, kernel_h, kernel_w]` and, with `bias`, `name.bias` `[out]`.
    Conv2d {
        /// Prefix of the parameters' names.
        name: String,
        /// Channels of the input.
        in_channels: usize,
        /// Channels of the output.
        out_channels: usize,
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Step between output positions, both ways.
        stride: usize,
        /// Zeros around the input, on all four sides.
        padding: usize,
        /// Into how many independent convolutions the channels are divided; `in_channels` makes it depthwise.
        groups: usize,
        /// Whether there is a bias.
        bias: bool,
    },
    /// Batch normalisation over batch and positions, eps 1e-5, momentum 0.1: parameters `name.weight`, `name.bias`,
    /// buffers `name.running_mean`, `name.running_var`, all `[channels]`.
    BatchNorm2d {
        /// Prefix of the parameters' names.
        name: String,
        /// Channels of input and output.
        channels: usize,
    },
    /// Normalisation of each sample by itself, over all positions and groups of neighbouring channels, eps 1e-5, as
    /// PyTorch's `GroupNorm`: if `affine`, parameters `name.weight` and `name.bias` `[channels]`.
    GroupNorm {
        /// Prefix of the parameters' names.
        name: String,
        /// How many groups, which divides the channels.
        groups: usize,
        /// Channels of input and output.
        channels: usize,
        /// Whether what is normalised is scaled and shifted channel by channel.
        affine: bool,
    },
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// The largest value in each square window; padding never wins.
    MaxPool {
        /// Side of the window, at most 15.
        kernel: usize,
        /// Step between windows.
        stride: usize,
        /// Positions around the input, at most half a window.
        padding: usize,
    },
    /// The mean over all positions; leaves one.
    GlobalAvgPool,
    /// Reads what comes as one vector, in PyTorch's order: channel, row, column.
    Flatten,
    /// A fully connected layer with bias: parameters `name.weight` `[out, in]`, `name.bias` `[out]`.
    Linear {
        /// Prefix of the parameters' names.
        name: String,
        /// Values that come in.
        in_features: usize,
        /// Values that go out.
        out_features: usize,
    },
    /// The sum of two paths from the same input; an empty path is the input itself.
    Residual {
        /// The first path.
        main: Vec<Op>,
        /// The second path.
        shortcut: Vec<Op>,
    },
}

impl Op {
    /// The prefix of its parameters' names, if it has parameters of its own.
    pub fn name(&self) -> Option<&str> {
        match self {
            Op::Conv2d { name, .. }
            | Op::BatchNorm2d { name, .. }
            | Op::GroupNorm { name, .. }
            | Op::Linear { name, .. } => Some(name),
            Op::Relu
            | Op::Relu6
            | Op::MaxPool { .. }
            | Op::GlobalAvgPool
            | Op::Flatten
            | Op::Residual { .. } => None,
        }
    }

    /// Its parameters, in PyTorch's order, with how they begin; those of a residual's paths are its own.
    pub(crate) fn parameters(&self) -> Vec<(Spec, Init)> {
        let trainable = |name: &str, part: &str, shape: &[usize], init| {
            (Spec::trainable(format!("{name}.{part}"), shape), init)
        };
        match self {
            Op::Conv2d { name, in_channels, out_channels, kernel, groups, bias, .. } => {
                let area = kernel[0] as f64 * kernel[1] as f64;
                let [fan_in, fan_out] =
                    [in_channels, out_channels].map(|channels| (channels / groups) as f64 * area);
                let shape = [*out_channels, in_channels / groups, kernel[0], kernel[1]];
                let weight = trainable(name, "weight", &shape, Init::Normal((2.0 / fan_out).sqrt()));
                let bias = bias
                    .then(|| trainable(name, "bias", &[*out_channels], Init::Uniform(1.0 / fan_in.sqrt())));
                [weight].into_iter().chain(bias).collect()
            }
            Op::BatchNorm2d { name, channels } => {
                let statistic = |part: &str, value| {
                    (Spec::buffer(format!("{name}.{part}"), [*channels]), Init::Constant(value))
                };
                vec![
                    trainable(name, "weight", &[*channels], Init::Constant(1.0)),
                    trainable(name, "bias", &[*channels], Init::Constant(0.0)),
                    statistic("running_mean", 0.0),
                    statistic("running_var", 1.0),
                ]
            }
            Op::GroupNorm { name, channels, affine, .. } => {
                let parts = [("weight", 1.0), ("bias", 0.0)].into_iter().filter(|_| *affine);
                parts
                    .map(|(part, value)| trainable(name, part, &[*channels], Init::Constant(value)))
                    .collect()
            }
            Op::Linear { name, in_features, out_features } => {
                let bound = Init::Uniform(1.0 / (*in_features as f64).sqrt());
                vec![
                    trainable(name, "weight", &[*out_features, *in_features], bound),
                    trainable(name, "bias", &[*out_features], bound),
                ]
            }
            Op::Residual { main, shortcut } => main.iter().chain(shortcut).flat_map(Op::parameters).collect(),
            Op::Relu | Op::Relu6 | Op::MaxPool { .. } | Op::GlobalAvgPool | Op::Flatten => Vec::new(),
        }
    }
}

/// The distribution that a parameter's values are first drawn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Init {
    Constant(f32),
    /// Mean 0, and this standard deviation.
    Normal(f64),
    /// From minus this to this.
    Uniform(f64),
}

/// A run of operations that is base or personal as a whole: the unit that `K_P` counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// For people: `stem`, `layer3.0`, `classifier`.
    pub name: String,
    /// What it does, in order.
    pub ops: Vec<Op>,
}

/// More values than any machine can address: what flows between operations is no more, so that sizes made of it do not
/// overflow.
pub(crate) const MOST: usize = 1 << 48;

/// Channels, height and width of what flows between operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// After [`Op::Flatten`] the values are one vector, though the engine keeps them where they are.
    pub(crate) flat: bool,
}

impl Shape {
    pub(crate) fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, flat: false }
    }

    pub(crate) fn positions(&self) -> usize {
        self.height * self.width
    }

    pub(crate) fn numel(&self) -> usize {
        self.positions() * self.channels
    }

    /// Itself, unless it is of more than [`MOST`] values.
    pub(crate) fn checked(self) -> Result<Shape, String> {
        let values = self.channels.checked_mul(self.height).and_then(|n| n.checked_mul(self.width));
        match values {
            Some(0..=MOST) => Ok(self),
            _ => Err(format!(
                "{}x{}x{} are more values than fit into any memory",
                self.channels, self.height, self.width
            )),
        }
    }

    /// What `op` makes of it, or why it cannot.
    pub(crate) fn after(&self, op: &Op) -> Result<Shape, String> {
        let spatial = |what: &str| match self.flat && self.positions() > 1 {
            true => Err(format!("{what} of a flattened input")),
            false => Ok(()),
        };
        let windows = |extent: usize, kernel: usize, stride: usize, padding: usize| {
            if kernel == 0 || stride == 0 {
                return Err("a kernel or a stride of 0".to_owned());
            }
            let padded = padding.checked_mul(2).and_then(|both| both.checked_add(extent));
            let Some(padded) = padded else {
                return Err(format!("a padding of {padding}"));
            };
            if padded < kernel {
                return Err(format!(
                    "the input is too small: a window of {kernel} does not fit {extent} positions with padding {padding}"
                ));
            }
            Ok((padded - kernel) / stride + 1)
        };
        let channels = |expected: usize| match expected == self.channels {
            true => Ok(()),
            false => Err(format!("expects {expected} channels, but {} come", self.channels)),
        };
        match op {
            Op::Conv2d { in_channels, out_channels, kernel, stride, padding, groups, .. } => {
                spatial("a convolution")?;
                channels(*in_channels)?;
                if *out_channels == 0 {
                    return Err("0 output channels".to_owned());
                }
                if *groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
                    return Err(format!(
                        "{groups} groups do not divide {in_channels} and {out_channels} channels"
                    ));
                }
                Shape::new(
                    *out_channels,
                    windows(self.height, kernel[0], *stride, *padding)?,
                    windows(self.width, kernel[1], *stride, *padding)?,
                )
                .checked()
            }
            Op::BatchNorm2d { channels: expected, .. } => {
                spatial("batch norm")?;
                channels(*expected)?;
                Ok(*self)
            }
            Op::GroupNorm { groups, channels: expected, .. } => {
                spatial("group norm")?;
                channels(*expected)?;
                if *groups == 0 || expected % groups != 0 {
                    return Err(format!("{groups} groups do not divide {expected} channels"));
                }
                Ok(*self)
            }
            Op::Relu | Op::Relu6 => Ok(*self),
            Op::MaxPool { kernel, stride, padding } => {
                spatial("max-pool")?;
                if *kernel > 15 {
                    return Err(format!("a max-pool window of {kernel}, at most 15 are supported"));
                }
                if *padding > kernel / 2 {
                    return Err(format!("max-pool padding {padding} is more than half its window {kernel}"));
                }
                Ok(Shape::new(
                    self.channels,
                    windows(self.height, *kernel, *stride, *padding)?,
                    windows(self.width, *kernel, *stride, *padding)?,
                ))
            }
            Op::GlobalAvgPool => {
                spatial("average pool")?;
                Ok(Shape::new(self.channels, 1, 1))
            }
            Op::Flatten => Ok(Shape { flat: true, ..*self }),
            Op::Linear { in_features, out_features, .. } => {
                if !self.flat && self.positions() > 1 {
                    return Err("a linear layer needs a flattened input".to_owned());
                }
                if *in_features != self.numel() {
                    return Err(format!("expects {in_features} features, but {} come", self.numel()));
                }
                if *out_features == 0 {
                    return Err("0 output features".to_owned());
                }
                Shape { flat: true, ..Shape::new(*out_features, 1, 1) }.checked()
            }
            Op::Residual { main, shortcut } => {
                if main.is_empty() && shortcut.is_empty() {
                    return Err("a residual of two empty paths".to_owned());
                }
                let path = |ops: &[Op]| {
                    ops.iter().try_fold(*self, |shape, op| {
                        shape.after(op).map_err(|reason| match op.name() {
                            Some(name) => format!("`{name}`: {reason}"),
                            None => reason,
                        })
                    })
                };
                let (a, b) = (path(main)?, path(shortcut)?);
                if a != b {
                    return Err(format!(
                        "the two paths of a residual end in different shapes: {a:?} and {b:?}"
                    ));
                }
                Ok(a)
            }
        }
    }
}
