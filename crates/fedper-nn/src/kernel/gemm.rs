//! The matrix kernel: a tile of up to 14 rows by one panel of columns, kept in registers while it runs over a list of
//! segments (the taps of a convolution), so that a convolution needs no im2col and its output is written once.
//!
//! Why not the `gemm` crate: it allocates on every call, and adding tap after tap with it reads and writes the output
//! once per tap.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};

/// One term of a sum of products: where its left and right matrix begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) a: *const f32,
    pub(crate) b: *const f32,
}

/// How element (row, k) of the left matrix is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// `a[row * stride + k]`
    Rows,
    /// `a[k * stride + row]`: the left matrix is transposed.
    Columns,
}

/// What a tile of the output starts from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    Zero,
    /// What is there already.
    Add,
    /// The same row of values, one per column, in every row.
    Row(*const f32),
}

/// `c[row * c_stride + col] = start + sum over segments, k of a(row, k) * b[k * b_stride + col]`
///
/// # Shapes
/// `cols` is 1 to the panel width. `b` must be readable for the full panel width unless `cols` is less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) segments: &'a [Segment],
    pub(crate) k: usize,
    pub(crate) left: Left,
    pub(crate) a_stride: usize,
    pub(crate) b_stride: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    pub(crate) cols: usize,
    pub(crate) start: Start,
}

type Tile = unsafe fn(&Product<'_>, row: usize);

/// The matrix kernel of one instruction set.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Columns of a panel.
    pub(crate) panel: usize,
    /// By rows - 1, for `Left::Rows` and `Left::Columns`, full and partial panels.
    tiles: [[&'static [Tile]; 2]; 2],
    /// By rows - 1.
    dots: [unsafe fn(&Dots, row: usize); DOT_ROWS],
}

impl Kernel {
    /// The best one for this machine.
    pub(crate) fn best() -> &'static Kernel {
        static BEST: OnceLock<&'static Kernel> = OnceLock::new();
        BEST.get_or_init(|| Self::available()[0])
    }

    /// All that this machine can run, best first.
    pub(crate) fn available() -> Vec<&'static Kernel> {
        let mut kernels: Vec<&'static Kernel> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if super::Isa::best() == super::Isa::Avx512 {
                kernels.push(&AVX512);
            }
            if super::Isa::best() != super::Isa::Baseline {
                kernels.push(&AVX2);
            }
        }
        kernels.push(&PORTABLE);
        kernels
    }

    /// Computes `rows` rows of a product, in tiles of about equal height.
    ///
    /// # Safety
    /// All pointers of `product` must be valid for what its formula touches, and `c` must not overlap `a` and `b`.
    pub(crate) unsafe fn run(&self, product: &Product<'_>, rows: usize) {
        debug_assert!((1..=self.panel).contains(&product.cols));
        if rows == 0 {
            return;
        }
        let tiles =
            self.tiles[usize::from(product.left == Left::Columns)][usize::from(product.cols < self.panel)];
        let count = rows.div_ceil(tiles.len());
        let (height, extra) = (rows / count, rows % count);
        let mut row = 0;
        for i in 0..count {
            let height = height + usize::from(i < extra);
            // SAFETY: the caller vouches for the pointers; the kernel is one that this machine can run.
            unsafe { tiles[height - 1](product, row) };
            row += height;
        }
    }

    /// `dx[row][i] (+)= sum over o of dy[row][o] * w[o / panel][i][o % panel]`: an input gradient straight from weights
    /// in panels, for few rows, where writing the transposed weights first would cost more than the product itself.
    ///
    /// # Safety
    /// `dy` must hold `rows` rows of `outputs`, `dx` `rows` rows of `inputs`, and `w` for every panel of outputs, at
    /// `panel_stride`, `inputs` rows of a panel.
    pub(crate) unsafe fn dots(&self, p: &Dots, rows: usize) {
        for row in (0..rows).step_by(DOT_ROWS) {
            // SAFETY: passed on to the caller; the kernel is one that this machine can run.
            unsafe { self.dots[DOT_ROWS.min(rows - row) - 1](p, row) };
        }
    }
}

/// Operands of [`Kernel::dots`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dots {
    pub(crate) dy: *const f32,
    pub(crate) outputs: usize,
    pub(crate) w: *const f32,
    pub(crate) panel_stride: usize,
    pub(crate) dx: *mut f32,
    pub(crate) inputs: usize,
    pub(crate) add: bool,
}

/// Rows of [`Kernel::dots`] that share a load of weights.
const DOT_ROWS: usize = 10;

/// How many terms are added up in one chain before they join a total: one chain over thousands of terms loses more to
/// rounding than a sum of short ones, for a few percent of the time.
const CHAIN: usize = 128;

/// # Safety
/// As [`Kernel::run`]; the machine must have `S`.
#[inline(always)]
unsafe fn tile<S: Simd, const ROWS: usize, const COLUMNS: bool, const PART: bool>(
    p: &Product<'_>,
    row: usize,
) {
    let lanes = S::LANES;
    let first = p.cols.min(lanes);
    let second = p.cols - first;
    // SAFETY: the caller vouches for rows `row..row + ROWS` of `a` and `c`, for `cols` columns of `b` and `c`, and for
    // the second vector of a full panel; partial loads and stores touch `first + second == cols` lanes only.
    unsafe {
        let load = |at: *const f32| match PART {
            true => [S::load_part(at, first), S::load_part(at.wrapping_add(lanes), second)],
            false => [S::load(at), S::load(at.add(lanes))],
        };
        let c = p.c.add(row * p.c_stride);
        let mut totals = [[S::zero(); 2]; ROWS];
        match p.start {
            Start::Zero => {}
            Start::Add => {
                for (r, total) in totals.iter_mut().enumerate() {
                    *total = load(c.add(r * p.c_stride));
                }
            }
            Start::Row(values) => totals = [load(values); ROWS],
        }
        let mut sums = [[S::zero(); 2]; ROWS];
        let mut terms = 0;
        for segment in p.segments {
            let mut b = segment.b;
            let mut a = segment.a.wrapping_add(if COLUMNS { row } else { row * p.a_stride });
            let (a_row, a_term) = if COLUMNS { (1, p.a_stride) } else { (p.a_stride, 1) };
            let mut left = p.k;
            while left > 0 {
                let steps = left.min(CHAIN - terms);
                for _ in 0..steps {
                    let [b0, b1] = load(b);
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let v = S::splat(*a.add(r * a_row));
                        *sum = [S::mul_add(v, b0, sum[0]), S::mul_add(v, b1, sum[1])];
                    }
                    a = a.wrapping_add(a_term);
                    b = b.wrapping_add(p.b_stride);
                }
                left -= steps;
                terms += steps;
                if terms == CHAIN {
                    for (total, sum) in totals.iter_mut().zip(&mut sums) {
                        *total = [S::add(total[0], sum[0]), S::add(total[1], sum[1])];
                    }
                    sums = [[S::zero(); 2]; ROWS];
                    terms = 0;
                }
            }
        }
        for (sum, total) in sums.iter_mut().zip(&totals) {
            *sum = [S::add(sum[0], total[0]), S::add(sum[1], total[1])];
        }
        for (r, sum) in sums.iter().enumerate() {
            let to = c.add(r * p.c_stride);
            if PART {
                S::store_part(to, sum[0], first);
                S::store_part(to.wrapping_add(lanes), sum[1], second);
            } else {
                S::store(to, sum[0]);
                S::store(to.add(lanes), sum[1]);
            }
        }
    }
}

/// # Safety
/// As [`Kernel::dots`], for rows `row..row + ROWS`; the machine must have `S`.
#[inline(always)]
unsafe fn dots<S: Simd, const ROWS: usize>(p: &Dots, row: usize) {
    // SAFETY: loads of `dy` stop at `outputs`, the last panel of `w` is filled up, `dx` is written at `inputs` places.
    unsafe {
        let width = 2 * S::LANES;
        for input in 0..p.inputs {
            let mut sums = [S::zero(); ROWS];
            let (mut w, mut output) = (p.w.add(input * width), 0);
            while output < p.outputs {
                for half in 0..2 {
                    let at = output + half * S::LANES;
                    let lanes = p.outputs.saturating_sub(at);
                    let v = S::load(w.add(half * S::LANES));
                    for (r, sum) in sums.iter_mut().enumerate() {
                        let dy = p.dy.wrapping_add((row + r) * p.outputs + at);
                        let dy = if lanes >= S::LANES { S::load(dy) } else { S::load_part(dy, lanes) };
                        *sum = S::mul_add(dy, v, *sum);
                    }
                }
                w = w.wrapping_add(p.panel_stride);
                output += width;
            }
            for (r, sum) in sums.iter().enumerate() {
                let dx = p.dx.add((row + r) * p.inputs + input);
                *dx = S::sum(*sum) + if p.add { *dx } else { 0.0 };
            }
        }
    }
}

/// The functions of one instruction set, compiled for it.
macro_rules! kernel {
    ($static:ident, $module:ident, $simd:ty, $(#[$feature:meta])?, [$($rows:literal)*]) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn at<const ROWS: usize, const COLUMNS: bool, const PART: bool>(p: &Product<'_>, row: usize) {
                // SAFETY: passed on to the caller.
                unsafe { tile::<$simd, ROWS, COLUMNS, PART>(p, row) }
            }

            $(#[$feature])?
            unsafe fn dots<const ROWS: usize>(p: &Dots, row: usize) {
                // SAFETY: passed on to the caller.
                unsafe { super::dots::<$simd, ROWS>(p, row) }
            }

            pub(super) static $static: Kernel = Kernel {
                panel: 2 * <$simd as Simd>::LANES,
                tiles: [
                    [&[$(at::<$rows, false, false>),*], &[$(at::<$rows, false, true>),*]],
                    [&[$(at::<$rows, true, false>),*], &[$(at::<$rows, true, true>),*]],
                ],
                dots: [
                    dots::<1>, dots::<2>, dots::<3>, dots::<4>, dots::<5>, dots::<6>, dots::<7>, dots::<8>,
                    dots::<9>, dots::<10>,
                ],
            };
        }
        use $module::$static;
    };
}

#[cfg(target_arch = "x86_64")]
kernel!(AVX512, avx512, Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")],
    [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
#[cfg(target_arch = "x86_64")]
kernel!(AVX2, avx2, Avx2, #[target_feature(enable = "avx2,fma")], [1 2 3 4 5 6]);
#[cfg(not(target_arch = "aarch64"))]
kernel!(PORTABLE, portable, Portable, , [1 2 3 4 5 6]);
#[cfg(target_arch = "aarch64")]
kernel!(PORTABLE, portable, Portable, , [1 2 3 4 5 6 7 8 9 10 11 12]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    /// Every kernel, both left layouts, every tile height, partial panels, all three starts, several segments.
    #[test]
    fn products_match_plain_loops_on_odd_shapes() {
        for kernel in Kernel::available() {
            for left in [Left::Rows, Left::Columns] {
                for rows in [1, 2, 3, 5, 7, 11, 13, 14, 15, 17, 29, 31] {
                    for cols in
                        [1, 2, 3, kernel.panel / 2, kernel.panel / 2 + 1, kernel.panel - 1, kernel.panel]
                    {
                        for k in [0, 1, 2, 7, 33] {
                            for start in 0..3 {
                                check(kernel, left, rows, cols, k, start);
                            }
                        }
                    }
                }
            }
        }
    }

    fn check(kernel: &Kernel, left: Left, rows: usize, cols: usize, k: usize, start: usize) {
        let (segments, b_stride, c_stride) = (2, kernel.panel + 3, cols + 2);
        let a_stride = 1 + match left {
            Left::Rows => k,
            Left::Columns => rows,
        };
        // Exactly as long as the formula reaches, so that Miri or a guard page would see a read beyond the end.
        let a_len = match left {
            Left::Rows => (rows - 1) * a_stride + k,
            Left::Columns => k.saturating_sub(1) * a_stride + rows,
        };
        let a: Vec<Vec<f32>> = (0..segments).map(|s| noise(a_len, 1 + s)).collect();
        let b: Vec<Vec<f32>> =
            (0..segments).map(|s| noise(k.saturating_sub(1) * b_stride + cols, 5 + s)).collect();
        let before = noise((rows - 1) * c_stride + cols, 9);
        let bias = noise(cols, 11);
        let mut c = before.clone();
        let list: Vec<Segment> =
            a.iter().zip(&b).map(|(a, b)| Segment { a: a.as_ptr(), b: b.as_ptr() }).collect();
        let product = Product {
            segments: &list,
            k,
            left,
            a_stride,
            b_stride,
            c: c.as_mut_ptr(),
            c_stride,
            cols,
            start: [Start::Zero, Start::Add, Start::Row(bias.as_ptr())][start],
        };
        // SAFETY: the vectors are as long as the formula reaches.
        unsafe { kernel.run(&product, rows) };
        for i in 0..before.len() {
            let (row, col) = (i / c_stride, i % c_stride);
            if col >= cols {
                assert_eq!(c[i], before[i], "wrote beyond the columns");
                continue;
            }
            let mut expected = [0.0, f64::from(before[i]), f64::from(bias[col])][start];
            for (a, b) in a.iter().zip(&b) {
                for x in 0..k {
                    let left = match left {
                        Left::Rows => a[row * a_stride + x],
                        Left::Columns => a[x * a_stride + row],
                    };
                    expected += f64::from(left) * f64::from(b[x * b_stride + col]);
                }
            }
            assert!(
                (f64::from(c[i]) - expected).abs() < 1e-5 * (1.0 + k as f64),
                "{left:?} {rows} {cols} {k}"
            );
        }
    }

    #[test]
    fn dots_match_plain_loops_on_odd_shapes() {
        for kernel in Kernel::available() {
            for (rows, outputs, inputs) in
                [(1usize, 1usize, 1usize), (3, 17, 5), (10, 32, 2), (11, 33, 3), (23, 70, 7), (2, 8, 4)]
            {
                let width = kernel.panel;
                let panels = outputs.div_ceil(width);
                let (dy, mut w) = (noise(rows * outputs, 1), noise(panels * inputs * width, 2));
                for (i, w) in w.iter_mut().enumerate() {
                    if i / (inputs * width) * width + i % width >= outputs {
                        *w = 0.0;
                    }
                }
                for add in [false, true] {
                    let before = noise(rows * inputs, 3);
                    let mut dx = before.clone();
                    let panel_stride = inputs * width;
                    let (p, q, out) = (dy.as_ptr(), w.as_ptr(), dx.as_mut_ptr());
                    let operands = Dots { dy: p, outputs, w: q, panel_stride, dx: out, inputs, add };
                    // SAFETY: the vectors have these shapes.
                    unsafe { kernel.dots(&operands, rows) };
                    for (i, &found) in dx.iter().enumerate() {
                        let (row, input) = (i / inputs, i % inputs);
                        let at = |o: usize| w[(o / width * inputs + input) * width + o % width];
                        let sum = |o: usize| f64::from(dy[row * outputs + o]) * f64::from(at(o));
                        let start = if add { f64::from(before[i]) } else { 0.0 };
                        let expected = start + (0..outputs).map(sum).sum::<f64>();
                        assert!((f64::from(found) - expected).abs() < 1e-5, "{found} {expected}");
                    }
                }
            }
        }
    }
}
