//! The ways in which convolutions and linear layers are computed. `network::plan` chooses among them.

use std::fmt;

/// A way to compute a convolution or a linear layer, with both gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// A first convolution and its max-pool, from images: tiles of a line, pooled in registers.
    PooledLines,
    /// A first convolution and its max-pool, from images: the four positions of a window together, pooled in registers.
    PooledWindows,
    /// A first convolution, from images that are rounded to bf16.
    RoundedImages,
    /// A first layer, from images: each row of a window is a run of values.
    Images,
    /// A vector of weights for each tap.
    Depthwise,
    /// Winograd's tiles, pooled in registers.
    PooledTiles,
    /// Winograd's tiles: a matrix product for each of their points.
    Tiles,
    /// Operands rounded to bf16.
    Rounded,
    /// Operands cut into three parts of bf16, which together are as exact as f32.
    Parts,
    /// A matrix product for each tap.
    Taps,
    /// A walk over the weights as they lie, which reads and changes each once.
    Walk,
    /// Matrix products of samples, inputs and outputs.
    Matrix,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Way::PooledLines => "pooled lines",
            Way::PooledWindows => "pooled windows",
            Way::RoundedImages => "rounded images",
            Way::Images => "images",
            Way::Depthwise => "depthwise",
            Way::PooledTiles => "pooled tiles",
            Way::Tiles => "tiles",
            Way::Rounded => "rounded",
            Way::Parts => "parts",
            Way::Taps => "taps",
            Way::Walk => "walk",
            Way::Matrix => "matrix",
        })
    }
}

/// How a layer computes batches of each size.
#[derive(Clone, Debug)]
pub(crate) struct Ways(Vec<Way>);

impl Ways {
    /// Of batches of 1, 2, 3 and so on.
    pub(crate) fn new(by_samples: Vec<Way>) -> Self {
        Self(by_samples)
    }

    /// How it computes a batch of so many samples, for which there is memory.
    pub(crate) fn of(&self, samples: usize) -> Way {
        self.0[samples - 1]
    }

    /// The largest batch that it computes in `way`; 0 if there is none.
    pub(crate) fn largest(&self, way: Way) -> usize {
        self.0.iter().rposition(|&own| own == way).map_or(0, |last| last + 1)
    }
}
