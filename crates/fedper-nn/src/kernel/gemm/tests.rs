use super::*;
use crate::testing::noise;

/// Row `row`, value `k` of a left matrix.
fn left(rows: Rows, row: usize, k: usize) -> usize {
    match rows {
        Rows::Blocked { plane, .. } => k / BLOCK * plane + row * BLOCK + k % BLOCK,
        Rows::Lines { stride, .. } => row * stride + k,
    }
}

/// How long a left matrix of so many rows is.
fn extent(rows: Rows, count: usize) -> (usize, usize) {
    match rows {
        Rows::Blocked { blocks, .. } => (blocks * BLOCK, left(rows, count - 1, blocks * BLOCK - 1) + 1),
        Rows::Lines { len, .. } => (len, left(rows, count - 1, len.max(1) - 1) + 1),
    }
}

fn shapes(count: usize) -> Vec<Rows> {
    let mut shapes: Vec<Rows> =
        [1, 2, 9].map(|blocks| Rows::Blocked { blocks, plane: (count + 1) * BLOCK }).into();
    shapes.extend([0, 1, 3, 21, 147, 300].map(|len| Rows::Lines { len, stride: len + 5 }));
    shapes
}

#[test]
fn products_match_plain_loops_on_odd_shapes() {
    for kernel in Kernel::available() {
        for blocks in 1..=kernel.blocks {
            for count in [1, 2, 3, 5, 7, 11, 13, 14, 15, 17, 29, 31] {
                for rows in shapes(count) {
                    for start in 0..3 {
                        check_product(kernel, blocks, rows, count, start);
                    }
                }
            }
        }
    }
}

fn check_product(kernel: &Kernel, blocks: usize, rows: Rows, count: usize, start: usize) {
    let width = blocks * BLOCK;
    let (k, a_len) = extent(rows, count);
    let c_plane = (count + 2) * BLOCK;
    // Exactly as long as the formula reaches, so that a guard page would see a read beyond the end.
    let a: Vec<Vec<f32>> = (0..2).map(|s| noise(a_len, 1 + s)).collect();
    let b: Vec<Vec<f32>> = (0..2).map(|s| noise(k * width, 5 + s)).collect();
    let before = noise((blocks - 1) * c_plane + count * BLOCK, 9);
    let bias = noise(width, 11);
    let mut c = before.clone();
    let segments: Vec<Segment> =
        a.iter().zip(&b).map(|(a, b)| Segment { a: a.as_ptr(), b: b.as_ptr() }).collect();
    let product = Product {
        segments: &segments,
        rows,
        c: c.as_mut_ptr(),
        c_plane,
        start: [Start::Zero, Start::Add, Start::Row(bias.as_ptr())][start],
    };
    // SAFETY: the vectors are as long as the formula reaches.
    unsafe { kernel.product(&product, blocks, count) };
    for i in 0..before.len() {
        let (block, row, lane) = (i / c_plane, i % c_plane / BLOCK, i % BLOCK);
        if row >= count {
            assert_eq!(c[i], before[i], "wrote between the blocks");
            continue;
        }
        let column = block * BLOCK + lane;
        let mut expected = [0.0, f64::from(before[i]), f64::from(bias[column])][start];
        for (a, b) in a.iter().zip(&b) {
            for x in 0..k {
                expected += f64::from(a[left(rows, row, x)]) * f64::from(b[x * width + column]);
            }
        }
        assert!((f64::from(c[i]) - expected).abs() < 1e-5 * (1.0 + k as f64), "{rows:?} {count} {start}");
    }
}

#[test]
fn outer_products_match_plain_loops_on_odd_shapes() {
    for kernel in Kernel::available() {
        for blocks in 1..=kernel.blocks {
            for count in [1, 2, 3, 17, 127, 129, 300] {
                for inputs in shapes(count) {
                    let width = blocks * BLOCK;
                    let (k, x_len) = extent(inputs, count);
                    let dy_plane = (count + 1) * BLOCK;
                    let x = noise(x_len, 1);
                    let dy = noise((blocks - 1) * dy_plane + count * BLOCK, 2);
                    let before = noise(k * width, 3);
                    let mut dw = before.clone();
                    // Two stretches, the first of which is empty if there is one row.
                    let first = count / 2;
                    let at = |row: usize, rows| Stretch {
                        x: x[left(inputs, row, 0)..].as_ptr(),
                        dy: dy[row * BLOCK..].as_ptr(),
                        rows,
                    };
                    let stretches = &[at(0, first), at(first, count - first)];
                    let add = count != 17;
                    let outer = Outer { stretches, inputs, dy_plane, dw: dw.as_mut_ptr(), add };
                    // SAFETY: the vectors are as long as the formula reaches.
                    unsafe { kernel.outer(&outer, blocks) };
                    for (i, found) in dw.iter().enumerate() {
                        let (input, column) = (i / width, i % width);
                        let sum: f64 = (0..count)
                            .map(|r| {
                                f64::from(x[left(inputs, r, input)])
                                    * f64::from(dy[column / BLOCK * dy_plane + r * BLOCK + column % BLOCK])
                            })
                            .sum();
                        let expected = if add { f64::from(before[i]) } else { 0.0 } + sum;
                        assert!((f64::from(*found) - expected).abs() < 1e-5 * (1.0 + count as f64));
                    }
                }
            }
        }
    }
}
