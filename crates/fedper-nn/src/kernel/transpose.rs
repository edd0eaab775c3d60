//! Transposition of the small matrices that weights are made of.

use super::versions;

versions! {
    /// `to[column][row] = from[row][column]` for `columns` columns of `rows` rows; rows beyond are set to 0.
    ///
    /// # Shapes
    /// `from` `[rows][width]`, `to` `[columns][width]`, `rows` and `columns` at most `width`.
    pub(crate) fn transpose(from: &[f32], to: &mut [f32], width: usize, rows: usize, columns: usize) {
        for (column, to) in to.chunks_exact_mut(width).take(columns).enumerate() {
            for (row, to) in to.iter_mut().enumerate() {
                *to = if row < rows { from[row * width + column] } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn transposes_and_fills_up() {
        for (width, rows, columns) in [(1, 1, 1), (4, 3, 2), (32, 32, 32), (32, 17, 31), (16, 16, 5)] {
            let from = noise(rows * width, 1);
            let mut to = vec![f32::NAN; columns * width];
            transpose(&from, &mut to, width, rows, columns);
            for column in 0..columns {
                for row in 0..width {
                    let expected = if row < rows { from[row * width + column] } else { 0.0 };
                    assert_eq!(to[column * width + row], expected);
                }
            }
        }
    }
}
