//! Blocks and operations in few words, for those who write a network of their own.

use super::{Block, Op};

impl Block {
    /// A run of operations that is base or personal as a whole.
    ///
    /// ```
    /// use fedper_nn::{Architecture, Block, InputShape, Op};
    ///
    /// let blocks = vec![
    ///     Block::new("conv1", vec![Op::conv("conv1", [1, 8], 3), Op::Relu, Op::max_pool(2)]),
    ///     Block::new("fc", vec![Op::Flatten, Op::linear("fc", 8 * 4 * 4, 3)]),
    /// ];
    /// let input = InputShape { channels: 1, height: 8, width: 8 };
    /// let network = Architecture::from_blocks("tiny", input, 3, blocks)?;
    /// assert_eq!(network.personal_names(1)?, ["fc.weight", "fc.bias"]);
    /// # Ok::<(), fedper_nn::NnError>(())
    /// ```
    pub fn new(name: impl Into<String>, ops: Vec<Op>) -> Self {
        Self { name: name.into(), ops }
    }
}

impl Op {
    /// A convolution with a square kernel and a bias that keeps height and width (of an odd kernel): stride 1, padding
    /// `kernel / 2`. [`Op::Conv2d`] has all there is to say about others.
    pub fn conv(name: impl Into<String>, [in_channels, out_channels]: [usize; 2], kernel: usize) -> Self {
        Self::Conv2d {
            name: name.into(),
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: 1,
            padding: kernel / 2,
            groups: 1,
            bias: true,
        }
    }

    /// Batch normalisation of so many channels.
    pub fn batch_norm(name: impl Into<String>, channels: usize) -> Self {
        Self::BatchNorm2d { name: name.into(), channels }
    }

    /// A fully connected layer.
    pub fn linear(name: impl Into<String>, in_features: usize, out_features: usize) -> Self {
        Self::Linear { name: name.into(), in_features, out_features }
    }

    /// The largest value of each of the windows side by side.
    pub fn max_pool(side: usize) -> Self {
        Self::MaxPool { kernel: side, stride: side, padding: 0 }
    }
}
