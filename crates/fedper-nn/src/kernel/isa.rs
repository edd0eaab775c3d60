//! Which instruction set the kernels are run in.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::bf16::amx;
use crate::{NnError, Precision};

/// An instruction set that the kernels are written for.
///
/// Results repeat bit for bit in one instruction set; between two they differ by rounding. So that a run can be repeated
/// on a machine that has more, the environment variable `FEDPER_KERNELS` can name one of those that a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// [`InstructionSet::Avx512Bf16`] with AMX's tiles of bf16, which multiply f32 too, in three parts.
    Amx,
    /// AVX-512 with its products of bf16: the same as AVX-512 where nothing is in bf16.
    Avx512Bf16,
    /// x86-64 with AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// Whatever every machine of an architecture has: SSE2 on x86-64, NEON on aarch64.
    Portable,
}

impl InstructionSet {
    const ALL: [Self; 5] = [Self::Amx, Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Portable];

    /// Those that this machine has, best first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.is_here()).collect()
    }

    /// The one that this process uses: as `FEDPER_KERNELS` says, or the best one that the machine has.
    ///
    /// # Panics
    /// If [`InstructionSet::from_environment`] is an error.
    #[inline]
    pub fn current() -> Self {
        static CURRENT: OnceLock<InstructionSet> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::from_environment().unwrap_or_else(|error| panic!("{error}")))
    }

    /// The one to use, before anything is computed.
    ///
    /// # Errors
    /// [`NnError::UnknownName`] if `FEDPER_KERNELS` names none that this machine has.
    pub fn from_environment() -> Result<Self, NnError> {
        match std::env::var("FEDPER_KERNELS") {
            Ok(name) => name.parse(),
            Err(_) => Ok(Self::available()[0]),
        }
    }

    /// Whether the environment asks for something that there is not; see [`crate::Network::plain`] for what
    /// `FEDPER_ENGINE=plain` does to every network.
    ///
    /// # Errors
    /// [`NnError::UnknownName`] if `FEDPER_ENGINE` is anything but `plain` or `fast`, or if `FEDPER_KERNELS` names no
    /// instruction set of this machine.
    pub fn check_environment() -> Result<(), NnError> {
        Self::from_environment().and(plain_from_environment().map(|_| ()))
    }

    /// What of it a network of this precision makes use of.
    pub fn used_in(self, precision: Precision) -> Self {
        match (self, precision) {
            (Self::Avx512Bf16, Precision::Fp32) => Self::Avx512,
            _ => self,
        }
    }

    /// What of it has vectors of f32.
    #[inline]
    pub(crate) fn vectors(self) -> Self {
        if self.multiplies_bf16() { Self::Avx512 } else { self }
    }

    /// Whether it has instructions for products of bf16.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Amx | Self::Avx512Bf16)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_here(self) -> bool {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Self::Amx => Self::Avx512Bf16.is_here() && amx::is_here(),
            Self::Avx512Bf16 => Self::Avx512.is_here() && is_x86_feature_detected!("avx512bf16"),
            Self::Avx512 => {
                avx2 && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("popcnt")
            }
            Self::Avx2 => avx2,
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_here(self) -> bool {
        self == Self::Portable
    }
}

fn plain_from_environment() -> Result<bool, NnError> {
    match std::env::var("FEDPER_ENGINE").as_deref() {
        Err(_) | Ok("fast") => Ok(false),
        Ok("plain") => Ok(true),
        Ok(name) => Err(NnError::UnknownName {
            what: "way of FEDPER_ENGINE",
            found: name.to_owned(),
            known: "plain, fast".to_owned(),
        }),
    }
}

/// Whether this process computes everything in the plainest way.
///
/// # Panics
/// If [`InstructionSet::check_environment`] is an error.
pub(crate) fn is_plain() -> bool {
    static PLAIN: OnceLock<bool> = OnceLock::new();
    *PLAIN.get_or_init(|| plain_from_environment().unwrap_or_else(|error| panic!("{error}")))
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for InstructionSet {
    type Err = NnError;

    fn from_str(name: &str) -> Result<Self, NnError> {
        let available = Self::available();
        available.iter().copied().find(|set| set.name() == name).ok_or_else(|| NnError::UnknownName {
            what: "instruction set of this machine",
            found: name.to_owned(),
            known: available.iter().map(|set| set.name()).collect::<Vec<_>>().join(", "),
        })
    }
}
