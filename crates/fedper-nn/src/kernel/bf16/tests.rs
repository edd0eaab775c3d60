use super::*;
use crate::kernel::bf16::dot::{narrow, widen};
use crate::kernel::rows;
use crate::testing::noise;

fn kernels() -> Vec<(String, &'static Kernel)> {
    let sets = InstructionSet::available().into_iter();
    sets.flat_map(|set| [Some(Kernel::rounding(set)), Kernel::exact(set)].map(|kernel| (set, kernel)))
        .filter_map(|(set, kernel)| kernel.map(|kernel| (format!("{set}, {} parts", kernel.parts), kernel)))
        .collect()
}

/// What a kernel makes of a value: its parts.
fn parts(kernel: &Kernel, value: f32) -> Vec<Half> {
    match kernel.parts {
        1 => vec![narrow(value)],
        _ => dot::parts::<PARTS>(value).to_vec(),
    }
}

/// Whether they are the same, of which one may be NaN in another way.
fn same(found: Half, expected: Half) -> bool {
    found == expected || widen(found).is_nan() && widen(expected).is_nan()
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
fn parts_add_up_to_what_was_cut() {
    for value in noise(300_000, 1).into_iter().chain([0.0, -0.0, 1.0, -1.5e30, 3e38, 1e-30, f32::EPSILON]) {
        let sum: f64 = dot::parts::<PARTS>(value).map(|part| f64::from(widen(part))).iter().sum();
        assert_eq!(sum, f64::from(value));
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let sum: f32 = dot::parts::<PARTS>(value).map(widen).iter().sum();
        assert!(sum.is_nan());
    }
}

#[test]
fn every_kernel_packs_what_plain_loops_do() {
    for (set, kernel) in kernels() {
        let zero = vec![0; kernel.parts];
        for count in [1, 2, 3, 16, 31, 32, 33, 70, 96] {
            let (x, y) = (values(count * BLOCK, 2), values(count * BLOCK, 3));
            let steps = count.div_ceil(DEPTH);
            for high in [None, Some(rows(&y))] {
                let mut found = vec![1; count * kernel.parts * DEPTH];
                kernel.rows(rows(&x), high, &mut found);
                for (row, k) in (0..count).flat_map(|row| (0..DEPTH).map(move |k| (row, k))) {
                    let expected = match k < BLOCK {
                        true => parts(kernel, x[row * BLOCK + k]),
                        false => high.map_or(zero.clone(), |high| parts(kernel, high[row][k - BLOCK])),
                    };
                    for (part, expected) in expected.into_iter().enumerate() {
                        let found = found[(row * kernel.parts + part) * DEPTH + k];
                        assert!(same(found, expected), "{set}, row {row}, {k}, part {part}");
                    }
                }
            }
            for stride in [BLOCK, 2 * BLOCK] {
                let x = values(count * stride, 4);
                let mut found = vec![1; steps * kernel.parts * TILE];
                kernel.pairs(&x, stride, count, &mut found);
                for (row, column) in
                    (0..steps * DEPTH).flat_map(|row| (0..BLOCK).map(move |column| (row, column)))
                {
                    let expected =
                        if row < count { parts(kernel, x[row * stride + column]) } else { zero.clone() };
                    for (part, expected) in expected.into_iter().enumerate() {
                        let tile = (row / DEPTH * kernel.parts + part) * TILE;
                        let found = found[tile + row % DEPTH / 2 * DEPTH + 2 * column + row % 2];
                        assert!(same(found, expected), "{set}, row {row}, {column}, part {part}");
                    }
                }
            }
            let pitch = steps * DEPTH + 2;
            for distance in [[DEPTH, kernel.parts * TILE, TILE], [kernel.parts * pitch, DEPTH, pitch]] {
                let mut found = vec![1; BLOCK * distance[0] + steps * distance[1]];
                kernel.lines(rows(&x), &mut found, distance);
                for (channel, row) in
                    (0..BLOCK).flat_map(|channel| (0..steps * DEPTH).map(move |row| (channel, row)))
                {
                    let expected =
                        if row < count { parts(kernel, x[row * BLOCK + channel]) } else { zero.clone() };
                    for (part, expected) in expected.into_iter().enumerate() {
                        let [channel_at, step, part_at] = distance;
                        let at = channel * channel_at + row / DEPTH * step + part * part_at + row % DEPTH;
                        assert!(same(found[at], expected), "{set}, row {row}, {channel}, part {part}");
                    }
                }
            }
        }
        for stride in [BLOCK, 2 * BLOCK] {
            let (x, y) = (values(BLOCK * stride, 5), values(BLOCK * stride, 6));
            for high in [None, Some(&y[..])] {
                let mut found = vec![1; kernel.parts * TILE];
                kernel.turned(&x, high, stride, 0, &mut found);
                for (k, column) in (0..DEPTH).flat_map(|k| (0..BLOCK).map(move |column| (k, column))) {
                    let expected = match k < BLOCK {
                        true => parts(kernel, x[column * stride + k]),
                        false => {
                            high.map_or(zero.clone(), |high| parts(kernel, high[column * stride + k - BLOCK]))
                        }
                    };
                    for (part, expected) in expected.into_iter().enumerate() {
                        let found = found[part * TILE + k / 2 * DEPTH + 2 * column + k % 2];
                        assert!(same(found, expected), "{set}, {k}, {column}, part {part}");
                    }
                }
            }
        }
    }
}

/// A product of matrices that lie in some way, by plain loops.
struct Case {
    terms: Vec<[usize; 2]>,
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
                for [left, right] in &self.terms {
                    let [a, b] = [self.a[a + left * self.left.part], self.b[b + right * TILE]];
                    sum += f64::from(widen(a)) * f64::from(widen(b));
                }
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
            let parts = kernel.parts;
            let row = parts * DEPTH;
            let pitch = 3 * DEPTH + 10;
            for left in [
                Left { row, tile: BLOCK * row, step: tiles * BLOCK * row + 64, part: DEPTH },
                Left { row: parts * pitch, tile: BLOCK * parts * pitch, step: DEPTH, part: pitch },
            ] {
                let right = Right { block: parts * TILE, step: blocks * parts * TILE };
                let span = tiles * left.tile.max(BLOCK * left.row) + steps * left.step;
                let case = Case {
                    terms: if parts == 1 { vec![[0, 0]] } else { TERMS.to_vec() },
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
                        assert!((f64::from(found) - expected).abs() < 5e-5, "{set}: {found} {expected}");
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
                        assert!((f64::from(found) - case.at(i / width, i % width)).abs() < 5e-5, "{set}");
                    }
                }
            }
        }
    }
}
