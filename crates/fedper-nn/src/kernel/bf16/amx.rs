//! Products by AMX's tiles.
//!
//! Written in assembly: the intrinsics are not in stable Rust. A tile register holds 16 rows of 64 bytes.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::mem::offset_of;
use std::sync::OnceLock;

use super::{BLOCK, Call};

/// Whether the processor has AMX's products of bf16, and the system lets this process use them: asked of Linux only.
pub(crate) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| has_tiles() && is_permitted())
}

fn has_tiles() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    /// That the system saves the tiles' configuration and data.
    const STATE: u64 = 1 << 17 | 1 << 18;
    if !is_x86_feature_detected!("xsave") || !is_x86_feature_detected!("avx512bf16") {
        return false;
    }
    // SAFETY: the machine has XSAVE, and the system uses it, or else AVX-512 would not be detected.
    let saved = unsafe { _xgetbv(0) };
    __cpuid_count(7, 0).edx & TILE_AND_BF16 == TILE_AND_BF16 && saved & STATE == STATE
}

/// Linux makes room for the tiles' data only when asked (since 5.16).
fn is_permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: asks for more state to be saved for this process, and touches no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
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

/// `$name`: the sums in tiles 0 to 3, by rows and columns, the left matrix in 4 and 5, the right one in 6 and 7. Names in
/// capitals are places in [`Call`].
macro_rules! tile {
    ($name:ident, [$($zero:literal)*], [$($load:literal)*], [$([$($step:expr),* $(,)?])*], [$($store:literal)*]) => {
        /// # Safety
        /// [`is_here`] and [`begin`]; as [`super::Kernel::product`].
        pub(super) unsafe fn $name(call: &Call) {
            // SAFETY: reads `call`, with distances and pointers as they lie in it, and what it names.
            unsafe {
                asm!(
                    $($zero,)*
                    "mov {t}, [{call} + {START}]",
                    "test {t}, {t}",
                    "jz 5f",
                    "mov {row}, [{call} + {START_ROW}]",
                    $($load,)*
                    "5:",
                    "mov {a_row}, [{call} + {A_ROW}]",
                    "mov {part}, [{call} + {A_PART}]",
                    "mov {row}, 64",
                    $(
                    "mov {segment}, [{call} + {SEGMENTS}]",
                    "mov {count}, [{call} + {COUNT}]",
                    "test {count}, {count}",
                    "jz 4f",
                    "2:",
                    "mov {a}, [{segment}]",
                    "mov {b}, [{segment} + 8]",
                    "add {a}, [{call} + {A_FIRST}]",
                    "mov {a2}, [{call} + {A_TILE}]",
                    "add {a2}, {a}",
                    "mov {b2}, [{call} + {B_BLOCK}]",
                    "add {b2}, {b}",
                    "mov {t}, [{call} + {STEPS}]",
                    "3:",
                    $($step,)*
                    "add {a}, [{call} + {A_STEP}]",
                    "add {a2}, [{call} + {A_STEP}]",
                    "add {b}, [{call} + {B_STEP}]",
                    "add {b2}, [{call} + {B_STEP}]",
                    "dec {t}",
                    "jnz 3b",
                    "add {segment}, 16",
                    "dec {count}",
                    "jnz 2b",
                    "4:",
                    )*
                    "mov {row}, [{call} + {C_ROW}]",
                    $($store,)*
                    call = in(reg) call,
                    row = out(reg) _, t = out(reg) _, segment = out(reg) _, count = out(reg) _,
                    a_row = out(reg) _, part = out(reg) _,
                    a = out(reg) _, a2 = out(reg) _, b = out(reg) _, b2 = out(reg) _,
                    SEGMENTS = const offset_of!(Call, segments),
                    COUNT = const offset_of!(Call, count),
                    STEPS = const offset_of!(Call, steps),
                    A_ROW = const offset_of!(Call, a_row),
                    A_TILE = const offset_of!(Call, a_tile),
                    A_STEP = const offset_of!(Call, a_step),
                    A_PART = const offset_of!(Call, a_part),
                    B_BLOCK = const offset_of!(Call, b_block),
                    B_STEP = const offset_of!(Call, b_step),
                    START_ROW = const offset_of!(Call, start_row),
                    C_ROW = const offset_of!(Call, c_row),
                    START = const offset_of!(Call, start),
                    C = const offset_of!(Call, c),
                    A_FIRST = const offset_of!(Call, a_first),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

/// Both kinds of kernels for one or two tiles of rows by one or two of columns. A step of the one that rounds loads both
/// matrices and multiplies; the exact one goes through [`super::TERMS`], and loads what the next term has another part of.
macro_rules! kernels {
    ($rounding:ident, $exact:ident, $zero:tt, $load:tt,
     [$($left:literal)*], [$($right:literal)*], [$($product:literal)*], $store:tt) => {
        tile!($rounding, $zero, $load, [[
            $(concat!($right, "]"),)* $($left,)* $($product,)*
        ]], $store);
        tile!($exact, $zero, $load, [[
            $($left,)* $(concat!($right, " + 2048]"),)* $($product,)*
            $(concat!($right, " + 1024]"),)* $($product,)*
            "add {a}, {part}", "add {a2}, {part}",
            $($left,)* $($product,)*
            $(concat!($right, "]"),)* $($product,)*
            "add {a}, {part}", "add {a2}, {part}",
            $($left,)* $($product,)*
            "sub {a}, {part}", "sub {a2}, {part}", "sub {a}, {part}", "sub {a2}, {part}",
        ] [
            $(concat!($right, "]"),)* $($left,)* $($product,)*
        ]], $store);
    };
}

kernels!(tile_1x1, exact_1x1, ["tilezero tmm0"], [
    "mov {t}, [{call} + {START}]" "tileloadd tmm0, [{t} + {row}]"
], [
    "tileloadd tmm4, [{a} + {a_row}]"
], [
    "tileloadd tmm6, [{b} + {row}"
], [
    "tdpbf16ps tmm0, tmm4, tmm6"
], [
    "mov {t}, [{call} + {C}]" "tilestored [{t} + {row}], tmm0"
]);

kernels!(tile_1x2, exact_1x2, ["tilezero tmm0" "tilezero tmm1"], [
    "mov {t}, [{call} + {START}]" "tileloadd tmm0, [{t} + {row}]"
    "mov {t}, [{call} + {START} + 8]" "tileloadd tmm1, [{t} + {row}]"
], [
    "tileloadd tmm4, [{a} + {a_row}]"
], [
    "tileloadd tmm6, [{b} + {row}"
    "tileloadd tmm7, [{b2} + {row}"
], [
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tdpbf16ps tmm1, tmm4, tmm7"
], [
    "mov {t}, [{call} + {C}]" "tilestored [{t} + {row}], tmm0"
    "mov {t}, [{call} + {C} + 8]" "tilestored [{t} + {row}], tmm1"
]);

kernels!(tile_2x1, exact_2x1, ["tilezero tmm0" "tilezero tmm2"], [
    "mov {t}, [{call} + {START}]" "tileloadd tmm0, [{t} + {row}]"
    "mov {t}, [{call} + {START} + 16]" "tileloadd tmm2, [{t} + {row}]"
], [
    "tileloadd tmm4, [{a} + {a_row}]"
    "tileloadd tmm5, [{a2} + {a_row}]"
], [
    "tileloadd tmm6, [{b} + {row}"
], [
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tdpbf16ps tmm2, tmm5, tmm6"
], [
    "mov {t}, [{call} + {C}]" "tilestored [{t} + {row}], tmm0"
    "mov {t}, [{call} + {C} + 16]" "tilestored [{t} + {row}], tmm2"
]);

kernels!(tile_2x2, exact_2x2, ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"], [
    "mov {t}, [{call} + {START}]" "tileloadd tmm0, [{t} + {row}]"
    "mov {t}, [{call} + {START} + 8]" "tileloadd tmm1, [{t} + {row}]"
    "mov {t}, [{call} + {START} + 16]" "tileloadd tmm2, [{t} + {row}]"
    "mov {t}, [{call} + {START} + 24]" "tileloadd tmm3, [{t} + {row}]"
], [
    "tileloadd tmm4, [{a} + {a_row}]"
    "tileloadd tmm5, [{a2} + {a_row}]"
], [
    "tileloadd tmm6, [{b} + {row}"
    "tileloadd tmm7, [{b2} + {row}"
], [
    "tdpbf16ps tmm0, tmm4, tmm6"
    "tdpbf16ps tmm1, tmm4, tmm7"
    "tdpbf16ps tmm2, tmm5, tmm6"
    "tdpbf16ps tmm3, tmm5, tmm7"
], [
    "mov {t}, [{call} + {C}]" "tilestored [{t} + {row}], tmm0"
    "mov {t}, [{call} + {C} + 8]" "tilestored [{t} + {row}], tmm1"
    "mov {t}, [{call} + {C} + 16]" "tilestored [{t} + {row}], tmm2"
    "mov {t}, [{call} + {C} + 24]" "tilestored [{t} + {row}], tmm3"
]);
