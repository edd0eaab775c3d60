//! Products by AMX's tiles.
//!
//! Written in assembly: the intrinsics are not in stable Rust. A tile register holds 16 rows of 64 bytes.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

use super::{BLOCK, Call};

/// Whether the processor has AMX's products of bf16, and the system lets this process use it.
pub(crate) fn is_here() -> bool {
    #[cfg(target_os = "linux")]
    {
        static HERE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *HERE.get_or_init(|| has_tiles() && is_permitted())
    }
    #[cfg(not(target_os = "linux"))]
    {
        has_tiles()
    }
}

fn has_tiles() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    /// That the system saves the tiles' configuration and data.
    const STATE: u64 = 1 << 17 | 1 << 18;
    if !is_x86_feature_detected!("xsave") || __cpuid_count(0, 0).eax < 7 {
        return false;
    }
    // SAFETY: the machine has XSAVE, and the system uses it where AVX-512 is detected, which is asked for first.
    let saved = unsafe { _xgetbv(0) };
    __cpuid_count(7, 0).edx & TILE_AND_BF16 == TILE_AND_BF16 && saved & STATE == STATE
}

/// Linux makes room for the tiles' data only when asked (since 5.16).
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: asks for more state to be saved for this process, and touches no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight whole tiles.
static CONFIGURATION: Configuration = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = 64;
        rows[tile] = BLOCK as u8;
        tile += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// Configures this thread's tiles.
///
/// # Safety
/// [`is_here`].
pub(super) unsafe fn begin() {
    // SAFETY: the caller has AMX; nothing but this module uses tiles.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, preserves_flags, readonly)) };
}

/// Gives the tiles back, so that a switch to another thread need not save them.
///
/// # Safety
/// [`is_here`].
pub(super) unsafe fn end() {
    // SAFETY: as in `begin`.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// `$name`: the sums in tiles 0 to 3, by rows and columns, the left matrix in 4 and 5, the right one in 6 and 7.
macro_rules! tile {
    ($name:ident, [$($zero:literal)*], [$($load:literal)*], [$($step:literal)*], [$($store:literal)*]) => {
        /// # Safety
        /// [`is_here`] and [`begin`]; as [`super::Kernel::product`].
        pub(super) unsafe fn $name(call: &Call) {
            // SAFETY: reads `call`, with distances and pointers as they lie in it, and what it names.
            unsafe {
                asm!(
                    $($zero,)*
                    "mov {t}, [{call} + 80]",
                    "test {t}, {t}",
                    "jz 5f",
                    "mov {row}, [{call} + 64]",
                    $($load,)*
                    "5:",
                    "mov {segment}, [{call}]",
                    "mov {count}, [{call} + 8]",
                    "mov {a_row}, [{call} + 24]",
                    "mov {a_step}, [{call} + 40]",
                    "mov {b_step}, [{call} + 56]",
                    "mov {row}, 64",
                    "test {count}, {count}",
                    "jz 4f",
                    "2:",
                    "mov {a}, [{segment}]",
                    "mov {b}, [{segment} + 8]",
                    "add {a}, [{call} + 144]",
                    "mov {a2}, [{call} + 32]",
                    "add {a2}, {a}",
                    "mov {b2}, [{call} + 48]",
                    "add {b2}, {b}",
                    "mov {t}, [{call} + 16]",
                    "3:",
                    $($step,)*
                    "add {a}, {a_step}",
                    "add {a2}, {a_step}",
                    "add {b}, {b_step}",
                    "add {b2}, {b_step}",
                    "dec {t}",
                    "jnz 3b",
                    "add {segment}, 16",
                    "dec {count}",
                    "jnz 2b",
                    "4:",
                    "mov {row}, [{call} + 72]",
                    $($store,)*
                    call = in(reg) call,
                    row = out(reg) _, t = out(reg) _, segment = out(reg) _, count = out(reg) _,
                    a_row = out(reg) _, a_step = out(reg) _, b_step = out(reg) _,
                    a = out(reg) _, a2 = out(reg) _, b = out(reg) _, b2 = out(reg) _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

tile!(tile_1x1, ["tilezero tmm0"], [
    "mov {t}, [{call} + 80]" "tileloadd tmm0, [{t} + {row}]"
], [
    "tileloadd tmm6, [{b} + {row}]"
    "tileloadd tmm4, [{a} + {a_row}]"
    "tdpbf16ps tmm0, tmm4, tmm6"
], [
    "mov {t}, [{call} + 112]" "tilestored [{t} + {row}], tmm0"
]);

tile!(tile_1x2, ["tilezero tmm0" "tilezero tmm1"], [
    "mov {t}, [{call} + 80]" "tileloadd tmm0, [{t} + {row}]"
    "mov {t}, [{call} + 88]" "tileloadd tmm1, [{t} + {row}]"
], [
    "tileloadd tmm6, [{b} + {row}]"
    "tileloadd tmm4, [{a} + {a_row}]"
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tileloadd tmm7, [{b2} + {row}]"
    "tdpbf16ps tmm1, tmm4, tmm7"
], [
    "mov {t}, [{call} + 112]" "tilestored [{t} + {row}], tmm0"
    "mov {t}, [{call} + 120]" "tilestored [{t} + {row}], tmm1"
]);

tile!(tile_2x1, ["tilezero tmm0" "tilezero tmm2"], [
    "mov {t}, [{call} + 80]" "tileloadd tmm0, [{t} + {row}]"
    "mov {t}, [{call} + 96]" "tileloadd tmm2, [{t} + {row}]"
], [
    "tileloadd tmm6, [{b} + {row}]"
    "tileloadd tmm4, [{a} + {a_row}]"
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tileloadd tmm5, [{a2} + {a_row}]"
    "tdpbf16ps tmm2, tmm5, tmm6"
], [
    "mov {t}, [{call} + 112]" "tilestored [{t} + {row}], tmm0"
    "mov {t}, [{call} + 128]" "tilestored [{t} + {row}], tmm2"
]);

tile!(tile_2x2, ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"], [
    "mov {t}, [{call} + 80]" "tileloadd tmm0, [{t} + {row}]"
    "mov {t}, [{call} + 88]" "tileloadd tmm1, [{t} + {row}]"
    "mov {t}, [{call} + 96]" "tileloadd tmm2, [{t} + {row}]"
    "mov {t}, [{call} + 104]" "tileloadd tmm3, [{t} + {row}]"
], [
    "tileloadd tmm6, [{b} + {row}]"
    "tileloadd tmm4, [{a} + {a_row}]"
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tileloadd tmm7, [{b2} + {row}]"
    "tdpbf16ps tmm1, tmm4, tmm7"
    "tileloadd tmm5, [{a2} + {a_row}]"
    "tdpbf16ps tmm2, tmm5, tmm6"
    "tdpbf16ps tmm3, tmm5, tmm7"
], [
    "mov {t}, [{call} + 112]" "tilestored [{t} + {row}], tmm0"
    "mov {t}, [{call} + 120]" "tilestored [{t} + {row}], tmm1"
    "mov {t}, [{call} + 128]" "tilestored [{t} + {row}], tmm2"
    "mov {t}, [{call} + 136]" "tilestored [{t} + {row}], tmm3"
]);
