//! The inner loops, each in several versions for the instruction sets there are, one of which is chosen at run time.
//!
//! Two kinds: what works on blocks of channels is written in the vectors of [`simd`]; what does not care where a value
//! lies is a plain loop that the compiler vectorises, compiled once per instruction set by [`versions!`]. On a given
//! machine the choice never changes, so results repeat bit for bit. Only [`gemm`], [`linear`], [`depthwise`],
//! [`window`] and [`winograd`] fuse multiply and add, so the others give the same bits on every instruction set too.

pub(crate) mod bf16;
pub(crate) mod buffer;
pub(crate) mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod isa;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod pool;
pub(crate) mod simd;
pub(crate) mod transpose;
pub(crate) mod window;
pub(crate) mod winograd;

use crate::{InstructionSet, Precision};

/// The matrix kernels of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    pub(crate) matrix: &'static gemm::Kernel,
    /// If its convolutions multiply in bf16: rounded, or as exactly as f32.
    pub(crate) bf16: Option<&'static bf16::Kernel>,
    /// Whether everything is computed in the plainest way there is, to compare with.
    pub(crate) plain: bool,
}

impl Kernels {
    /// Those of an instruction set that this machine has.
    pub(crate) fn of(set: InstructionSet, precision: Precision) -> Self {
        let bf16 = match precision {
            Precision::Fp32 => bf16::Kernel::exact(set),
            Precision::Bf16 => Some(bf16::Kernel::rounding(set)),
        };
        Self { matrix: gemm::Kernel::of(set), bf16, plain: false }
    }

    /// Those that this process uses, as the environment says.
    pub(crate) fn here(precision: Precision) -> Self {
        match isa::is_plain() {
            true => Self::plain(),
            false => Self::of(InstructionSet::current(), precision),
        }
    }

    /// Those that compute in the plainest way, which is in f32.
    pub(crate) fn plain() -> Self {
        Self { plain: true, bf16: None, ..Self::of(InstructionSet::current(), Precision::Fp32) }
    }

    /// The kernel that is as exact as f32, if there is one.
    pub(crate) fn exact(&self) -> Option<&'static bf16::Kernel> {
        self.bf16.filter(|kernel| !kernel.rounds())
    }

    /// The kernel that rounds, if operands are rounded.
    pub(crate) fn rounding(&self) -> Option<&'static bf16::Kernel> {
        self.bf16.filter(|kernel| kernel.rounds())
    }
}

/// Channels that lie together: one vector of AVX-512, two of AVX2, four of SSE2 or NEON.
pub(crate) const BLOCK: usize = 16;

/// How many blocks hold so many channels.
pub(crate) fn blocks(channels: usize) -> usize {
    channels.div_ceil(BLOCK)
}

/// The channels of a block at one position of one sample.
pub(crate) type Row = [f32; BLOCK];

/// Values as rows.
///
/// # Panics
/// If they are not whole rows.
#[inline(always)]
pub(crate) fn rows(values: &[f32]) -> &[Row] {
    let (rows, rest) = values.as_chunks();
    assert!(rest.is_empty(), "whole rows");
    rows
}

/// As [`rows`].
#[inline(always)]
pub(crate) fn rows_mut(values: &mut [f32]) -> &mut [Row] {
    let (rows, rest) = values.as_chunks_mut();
    assert!(rest.is_empty(), "whole rows");
    rows
}

/// Compiles a function once per instruction set and calls the best one. A macro, because `#[target_feature]` cannot be
/// a generic parameter. What the body calls must be `#[inline(always)]` to be compiled along.
macro_rules! versions {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "said once for all kernels: they take what they touch")]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt")]
                #[allow(clippy::too_many_arguments, reason = "as above")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "as above")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { plain($($arg),*) }
                match $crate::InstructionSet::current().vectors() {
                    // SAFETY: the machine has every feature that the function is compiled for.
                    $crate::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            #[allow(unreachable_code, reason = "reached without AVX2")]
            plain($($arg),*)
        }
    };
}
pub(crate) use versions;

/// As [`versions!`] for a function written in vectors: `$s` is the instruction set's [`simd::Simd`]. Where the compiler
/// is left to vectorise a loop over rows of a block by itself, it does so across rows, with gathers. The body may use
/// `$s` freely, and vouches for its pointers.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$s:ident>($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "said once for all kernels: they take what they touch")]
        $vis fn $name($($arg: $ty),*) {
            /// # Safety
            /// The machine must have `$s`.
            #[inline(always)]
            unsafe fn generic<$s: $crate::kernel::simd::Simd>($($arg: $ty),*) {
                // SAFETY: the caller has `$s`, and the body stays within its slices.
                unsafe { $body }
            }
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt")]
                fn avx512($($arg: $ty),*) {
                    // SAFETY: compiled for what it uses.
                    unsafe { generic::<$crate::kernel::simd::Avx512>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    // SAFETY: as above.
                    unsafe { generic::<$crate::kernel::simd::Avx2>($($arg),*) }
                }
                match $crate::InstructionSet::current().vectors() {
                    // SAFETY: the machine has every feature that the function is compiled for.
                    $crate::InstructionSet::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::InstructionSet::Avx2 => return unsafe { avx2($($arg),*) },
                    _ => {}
                }
            }
            // SAFETY: every machine has it.
            #[allow(unreachable_code, reason = "reached without AVX2")]
            unsafe { generic::<$crate::kernel::simd::Portable>($($arg),*) }
        }
    };
}
pub(crate) use vectorised;
