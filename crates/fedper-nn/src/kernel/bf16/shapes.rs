//! Where the matrices of a product lie.

use super::Half;
use crate::kernel::gemm::Start;

/// One term of a sum of products: where its left and right matrix begin.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) a: *const Half,
    pub(crate) b: *const Half,
}

impl Segment {
    pub(crate) const NONE: Self = Self { a: std::ptr::null(), b: std::ptr::null() };
}

/// How far apart the rows of a matrix, its tiles of 16 rows, its steps, and the parts of a row are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub(crate) row: usize,
    pub(crate) tile: usize,
    pub(crate) step: usize,
    pub(crate) part: usize,
}

/// How far apart the blocks of 16 columns of a matrix, and its steps are. A tile's parts follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    pub(crate) block: usize,
    pub(crate) step: usize,
}

/// How far apart the rows of the result, its tiles of 16 rows, and its blocks of 16 columns are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) row: usize,
    pub(crate) tile: usize,
    pub(crate) block: usize,
}

/// `c[row][column] = start + sum over segments, k of a[row][k] * b[k][column]`, `steps` times [`DEPTH`] deep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) segments: &'a [Segment],
    pub(crate) steps: usize,
    pub(crate) left: Left,
    pub(crate) right: Right,
    pub(crate) c: *mut f32,
    pub(crate) outcome: Outcome,
    pub(crate) start: Start,
}
