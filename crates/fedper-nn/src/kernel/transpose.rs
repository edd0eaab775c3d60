//! Transposition of the small matrices that weights are made of.

use super::{BLOCK, Row, versions};

versions! {
    /// `to[i][first + j] = from[j][at + i]`: one block of rows becomes one block of columns.
    ///
    /// # Shapes
    /// `from` [`BLOCK`] rows of `from_width`, `to` [`BLOCK`] rows of `to_width`.
    pub(crate) fn transpose(from: &[f32], from_width: usize, to: &mut [f32], to_width: usize) {
        let mut block = [[0f32; BLOCK]; BLOCK];
        for (j, row) in block.iter_mut().enumerate() {
            row.copy_from_slice(&from[j * from_width..][..BLOCK]);
        }
        // Four times, rows that are 8, 4, 2 and 1 apart exchange halves, quarters, eighths and single values.
        for distance in [8, 4, 2, 1] {
            let before = block;
            for i in 0..BLOCK {
                block[i] = match i & distance == 0 {
                    true => exchange(&before[i], &before[i + distance], distance, false),
                    false => exchange(&before[i - distance], &before[i], distance, true),
                };
            }
        }
        for (i, row) in block.iter().enumerate() {
            to[i * to_width..][..BLOCK].copy_from_slice(row);
        }
    }
}

/// Of two rows, the groups of `distance` values with even numbers, or those with odd numbers, alternating.
#[inline(always)]
fn exchange(upper: &Row, lower: &Row, distance: usize, odd: bool) -> Row {
    std::array::from_fn(|l| match (l & distance == 0, odd) {
        (true, false) => upper[l],
        (false, false) => lower[l - distance],
        (true, true) => upper[l + distance],
        (false, true) => lower[l],
    })
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
