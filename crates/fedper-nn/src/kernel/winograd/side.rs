//! Where a tile's activations lie.

use crate::kernel::BLOCK;

/// Activations `[block][position][sample][16]`, of which some neighbouring samples are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    /// Height and width.
    pub(crate) extent: [usize; 2],
    pub(crate) blocks: usize,
    /// From one block to the next, and from one position to the next.
    pub(crate) plane: usize,
    pub(crate) row: usize,
    /// Where the samples lie in a position, and how many values they are.
    pub(crate) first: usize,
    pub(crate) len: usize,
}

impl Side {
    /// Where a square of positions begins in the first block, and how far apart its blocks are; what lies outside is at
    /// `outside`, in every block.
    ///
    /// # Panics
    /// If there are not as many values.
    pub(super) fn square<const N: usize>(
        &self,
        values: usize,
        [row, column]: [isize; 2],
        outside: *const f32,
        base: *const f32,
    ) -> [[(*const f32, usize); N]; N] {
        let [height, width] = self.extent;
        let last = (self.blocks - 1) * self.plane + (height * width - 1) * self.row + self.first + self.len;
        assert!(last <= values && self.len.is_multiple_of(BLOCK));
        let inside = |first: isize, i: usize, end: usize| {
            first.checked_add_unsigned(i).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < end)
        };
        std::array::from_fn(|i| {
            let row = inside(row, i, height);
            std::array::from_fn(|j| match (row, inside(column, j, width)) {
                (Some(row), Some(column)) => {
                    (base.wrapping_add((row * width + column) * self.row + self.first), self.plane)
                }
                _ => (outside, 0),
            })
        })
    }
}
