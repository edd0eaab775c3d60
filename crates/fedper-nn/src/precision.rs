//! What convolutions compute in.

use std::fmt;
use std::str::FromStr;

use crate::NnError;

/// What a network's convolutions multiply.
///
/// What is stored (weights, velocities, activations, gradients) is always f32, and so is what else is computed: batch norm,
/// depthwise convolutions, linear layers, a first convolution that is pooled as it is computed (`cnn`'s), the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f32. Where the machine has AMX, convolutions with many channels in small planes multiply three parts in bf16 of each
    /// value, which add up to it: no further from exact sums than products of f32, and faster.
    #[default]
    Fp32,
    /// Activations, weights and gradients rounded to bf16 (8 bits of mantissa, f32's range) as a convolution reads them;
    /// products are added up in f32. Fast where the machine has instructions for it ([`crate::InstructionSet::Amx`],
    /// [`crate::InstructionSet::Avx512Bf16`]), and the same up to the order of additions, but slow, where it has not.
    Bf16,
}

impl Precision {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Fp32, Self::Bf16];
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = NnError;

    fn from_str(name: &str) -> Result<Self, NnError> {
        Self::ALL.into_iter().find(|precision| precision.to_string() == name).ok_or_else(|| {
            NnError::UnknownName {
                what: "precision",
                found: name.to_owned(),
                known: Self::ALL.map(|precision| precision.to_string()).join(", "),
            }
        })
    }
}
