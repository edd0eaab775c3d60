use super::*;
use crate::kernel::bf16::dot::{narrow, widen};
use crate::kernel::rows;
use crate::testing::noise;

fn kernels() -> Vec<(InstructionSet, &'static Kernel)> {
    InstructionSet::available().into_iter().map(|set| (set, Kernel::of(set))).collect()
}

/// Values that round up, down and to even, and those that are none.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut values = noise(len, seed);
    let special = [
        0.0,
        -0.0,
        1.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-40,
        -1e-40,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0x3f80_8001),
        f32::from_bits(0x3f80_7fff),
        f32::from_bits(0x007f_ffff),
    ];
    for (value, special) in values.iter_mut().step_by(3).zip(special) {
        *value = special;
    }
    values
}

#[test]
fn rounding_is_to_the_nearest() {
    for value in values(300_000, 1) {
        let (found, exact) = (f64::from(widen(narrow(value))), f64::from(value));
        if value.is_infinite() || value.abs() > 3.39e38 {
            assert!(found.is_infinite() && found.signum() == exact.signum());
        } else if !value.is_normal() {
            assert!(found == 0.0 && found.is_sign_positive() == value.is_sign_positive());
        } else {
            let step = (f64::from(value.to_bits() >> 23 & 0xff) - 127.0 - 7.0).exp2();
            let error = (found - exact).abs();
            assert!(
                error < step / 2.0 || error == step / 2.0 && narrow(value) & 1 == 0,
                "{value:e} {found:e}"
            );
        }
    }
    assert!(widen(narrow(f32::NAN)).is_nan());
    assert!(widen(narrow(f32::from_bits(0x7f80_0001))).is_nan());
}

#[test]
fn every_kernel_packs_what_plain_loops_do() {
    for (set, kernel) in kernels() {
        for count in [1, 2, 3, 16, 31, 32, 33, 70, 96] {
            let (x, y) = (values(count * BLOCK, 2), values(count * BLOCK, 3));
            for high in [None, Some(rows(&y))] {
                let mut found = vec![1; count * DEPTH];
                kernel.rows(rows(&x), high, &mut found);
                for (i, &found) in found.iter().enumerate() {
                    let (row, k) = (i / DEPTH, i % DEPTH);
                    let expected = match k < BLOCK {
                        true => narrow(x[row * BLOCK + k]),
                        false => high.map_or(0, |high| narrow(high[row][k - BLOCK])),
                    };
                    assert_eq!(found, expected, "{set}, row {row}, {k}");
                }
            }
            for stride in [BLOCK, 2 * BLOCK] {
                let x = values(count * stride, 4);
                let mut found = vec![1; count.next_multiple_of(DEPTH) * BLOCK];
                kernel.pairs(&x, stride, count, &mut found);
                for (i, &found) in found.iter().enumerate() {
                    let (row, column) = (i / DEPTH * 2 + i % 2, i % DEPTH / 2);
                    let expected = if row < count { narrow(x[row * stride + column]) } else { 0 };
                    assert_eq!(found, expected, "{set}, row {row}, {column}");
                }
            }
            let steps = count.div_ceil(DEPTH);
            for distance in [[DEPTH, TILE], [steps * DEPTH + 2, DEPTH]] {
                let mut found = vec![1; BLOCK * distance[0] + steps * distance[1]];
                kernel.lines(rows(&x), &mut found, distance);
                for channel in 0..BLOCK {
                    for row in 0..steps * DEPTH {
                        let found = found[channel * distance[0] + row / DEPTH * distance[1] + row % DEPTH];
                        let expected = if row < count { narrow(x[row * BLOCK + channel]) } else { 0 };
                        assert_eq!(found, expected, "{set}, row {row}, {channel}");
                    }
                }
            }
        }
        for stride in [BLOCK, 2 * BLOCK] {
            let (x, y) = (values(BLOCK * stride, 5), values(BLOCK * stride, 6));
            for high in [None, Some(&y[..])] {
                let mut found = vec![1; TILE];
                kernel.turned(&x, high, stride, 0, &mut found);
                for (i, &found) in found.iter().enumerate() {
                    let (k, column) = (i / DEPTH * 2 + i % 2, i % DEPTH / 2);
                    let expected = match k < BLOCK {
                        true => narrow(x[column * stride + k]),
                        false => high.map_or(0, |high| narrow(high[column * stride + k - BLOCK])),
                    };
                    assert_eq!(found, expected, "{set}, {k}, {column}");
                }
            }
        }
    }
}

/// A product of matrices that lie in some way, by plain loops.
struct Case {
    a: Vec<Half>,
    b: Vec<Half>,
    starts: Vec<[usize; 2]>,
    left: Left,
    right: Right,
    steps: usize,
}

impl Case {
    fn at(&self, row: usize, column: usize) -> f64 {
        let mut sum = 0.0;
        for [a, b] in &self.starts {
            for k in 0..self.steps * DEPTH {
                let a = a
                    + row / BLOCK * self.left.tile
                    + row % BLOCK * self.left.row
                    + k / DEPTH * self.left.step
                    + k % DEPTH;
                let b = b
                    + column / BLOCK * self.right.block
                    + k / DEPTH * self.right.step
                    + k % DEPTH / 2 * DEPTH
                    + column % BLOCK * 2
                    + k % 2;
                sum += f64::from(widen(self.a[a])) * f64::from(widen(self.b[b]));
            }
        }
        sum
    }
}

#[test]
fn every_kernel_multiplies_as_plain_loops_do() {
    let halves = |len, seed| noise(len, seed).into_iter().map(narrow).collect::<Vec<_>>();
    for (set, kernel) in kernels() {
        let _ready = kernel.ready();
        for (rows, blocks, steps, segments) in [
            (2usize, 1, 1, 1),
            (1, 1, 1, 1),
            (5, 2, 2, 3),
            (16, 1, 1, 1),
            (17, 2, 1, 2),
            (32, 2, 3, 1),
            (47, 1, 2, 2),
            (64, 2, 1, 9),
            (3, 2, 1, 0),
        ] {
            let tiles = rows.div_ceil(BLOCK);
            // As activations lie, and as their lines do.
            for left in [
                Left { row: DEPTH, tile: TILE, step: tiles * TILE + 64 },
                Left { row: 3 * DEPTH + 10, tile: BLOCK * (3 * DEPTH + 10), step: DEPTH },
            ] {
                let right = Right { block: TILE, step: blocks * TILE };
                let span = tiles * left.tile.max(BLOCK * left.row) + steps * left.step;
                let case = Case {
                    a: halves(span + segments * 40, 1),
                    b: halves((segments + 1) * steps * right.step, 2),
                    starts: (0..segments).map(|s| [s * 40, s * steps * right.step]).collect(),
                    left,
                    right,
                    steps,
                };
                let list: Vec<Segment> = case
                    .starts
                    .iter()
                    .map(|&[a, b]| Segment { a: case.a[a..].as_ptr(), b: case.b[b..].as_ptr() })
                    .collect();
                let bias = noise(2 * BLOCK, 3);
                let before = noise(blocks * (rows + 7) * BLOCK, 4);
                for start in [Start::Zero, Start::Add, Start::Row(bias.as_ptr())] {
                    let mut c = before.clone();
                    let outcome = Outcome { row: BLOCK, tile: BLOCK * BLOCK, block: (rows + 7) * BLOCK };
                    let product =
                        Product { segments: &list, steps, left, right, c: c.as_mut_ptr(), outcome, start };
                    // SAFETY: all lie in their vectors, with whole tiles of `a`.
                    unsafe { kernel.product(&product, blocks, rows) };
                    for (i, (&found, &before)) in c.iter().zip(&before).enumerate() {
                        let (block, row) = (i / outcome.block, i % outcome.block / BLOCK);
                        let column = block * BLOCK + i % BLOCK;
                        if row >= rows {
                            assert_eq!(found, before, "{set}: touched what is not its own");
                            continue;
                        }
                        let start = match start {
                            Start::Zero => 0.0,
                            Start::Add => f64::from(before),
                            Start::Row(_) => f64::from(bias[column]),
                        };
                        let expected = start + case.at(row, column);
                        assert!((f64::from(found) - expected).abs() < 2e-5, "{set}: {found} {expected}");
                    }
                }
                // As the gradient of weights lies: rows of two blocks.
                if rows.is_multiple_of(BLOCK) {
                    let mut c = vec![0.0; rows * blocks * BLOCK];
                    let width = blocks * BLOCK;
                    let outcome = Outcome { row: width, tile: BLOCK * width, block: BLOCK };
                    let product = Product {
                        segments: &list,
                        steps,
                        left,
                        right,
                        c: c.as_mut_ptr(),
                        outcome,
                        start: Start::Zero,
                    };
                    // SAFETY: as above.
                    unsafe { kernel.product(&product, blocks, rows) };
                    for (i, &found) in c.iter().enumerate() {
                        assert!((f64::from(found) - case.at(i / width, i % width)).abs() < 2e-5, "{set}");
                    }
                }
            }
        }
    }
}
