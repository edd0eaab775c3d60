//! Transposition of the small matrices that weights are made of.

use super::{BLOCK, vectorised};

vectorised! {
    /// `to[j][i] = from[i][j]`: one block of rows becomes one block of columns.
    ///
    /// # Shapes
    /// `from` [`BLOCK`] rows of `from_width`, `to` [`BLOCK`] rows of `to_width`; both may end with the block.
    pub(crate) fn transpose<S>(from: &[f32], from_width: usize, to: &mut [f32], to_width: usize) {
        assert!(from.len() >= (BLOCK - 1) * from_width + BLOCK && to.len() >= (BLOCK - 1) * to_width + BLOCK);
        S::transpose(from.as_ptr(), from_width, to.as_mut_ptr(), to_width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn columns_become_rows() {
        for (from_width, to_width) in [(BLOCK, BLOCK), (32, 16), (17, 40)] {
            let from = noise(BLOCK * from_width, 1);
            let before = noise(BLOCK * to_width, 2);
            let mut to = before.clone();
            transpose(&from, from_width, &mut to, to_width);
            for i in 0..BLOCK {
                for j in 0..to_width {
                    let expected =
                        if j < BLOCK { from[j * from_width + i] } else { before[i * to_width + j] };
                    assert_eq!(to[i * to_width + j], expected);
                }
            }
        }
    }
}
