use super::*;
use crate::kernel::{Kernels, bf16};
use crate::layer::testing::{self, Case, gradients};
use crate::layer::way::{Way, Ways};
use crate::testing::noise;
use crate::{InstructionSet, Precision};

#[test]
fn convolutions_match_plain_loops() {
    let window = |input, kernel, stride, padding| Window { input, kernel, stride, padding };
    for (window, channels, groups, samples) in [
        (window([1, 1], [3, 3], 1, 1), [20, 40], 1, 32),
        (window([1, 1], [3, 3], 1, 1), [20, 40], 1, 31),
        (window([4, 4], [3, 3], 1, 1), [32, 32], 1, 32),
        (window([4, 5], [3, 3], 1, 1), [70, 17], 1, 3),
        (window([7, 5], [3, 3], 2, 1), [17, 33], 1, 5),
        // Fewer columns than the stride.
        (window([1, 1], [3, 3], 2, 1), [16, 33], 1, 20),
        (window([2, 1], [3, 3], 2, 1), [40, 16], 1, 5),
        (window([5, 2], [3, 4], 3, 1), [16, 16], 1, 32),
        // Columns that are filled up.
        (window([5, 4], [3, 3], 1, 1), [20, 40], 1, 20),
        (window([6, 5], [3, 3], 2, 1), [16, 33], 1, 17),
        (window([8, 6], [3, 3], 2, 1), [16, 48], 1, 64),
        (window([6, 6], [1, 1], 1, 0), [64, 16], 1, 7),
        (window([5, 4], [1, 1], 2, 0), [16, 64], 1, 33),
        (window([9, 7], [5, 5], 1, 0), [33, 20], 1, 10),
        (window([2, 9], [3, 5], 3, 2), [6, 9], 3, 4),
        (window([3, 3], [2, 2], 4, 0), [8, 8], 2, 2),
        (window([70, 2], [1, 3], 1, 3), [4, 4], 1, 1),
        // More than is multiplied at a time.
        (window([40, 40], [3, 3], 1, 1), [32, 17], 1, 8),
        (window([24, 20], [1, 1], 1, 0), [64, 48], 1, 14),
    ] {
        let rounded = Case::new(window, channels, groups, samples, bf16::rounded);
        let exact = Case::new(window, channels, groups, samples, |value| value);
        let outputs = exact.sides[1];
        let all = InstructionSet::available().into_iter();
        let all = all.flat_map(|set| [(set, Precision::Bf16, &rounded), (set, Precision::Fp32, &exact)]);
        for (set, precision, case) in all {
            let kernels = Kernels::of(set, precision);
            let Some(kernel) = kernels.bf16 else { continue };
            let own = Bf16::new(kernel, &window);
            let ways = Ways::new(vec![Way::Parts; samples + 1]);
            let mut conv = Conv::new("w", &window, channels, groups, true, kernels, ways);
            testing::load(&mut conv, &case.params);
            let mut scratch = Scratch::default();
            // A batch smaller than there is memory for, after one that used it all.
            own.reserve(&mut scratch, &conv.weight, case.sides, samples + 1);
            for halves in &mut scratch.halves {
                halves.fill(0x7fc0);
            }
            let tolerance = match kernel.rounds() {
                true => 3e-6,
                // A long chain, which the plainest kernel does not add up as well as AMX does.
                false if outputs.positions * samples > 4000 => 1e-5,
                // Without the last part it would be 1e-6 at least.
                false => 6e-7,
            };
            let what = format!("{set} {precision} {window:?} {channels:?} {samples}");

            let mut found = noise(outputs.len(samples), 6);
            let mut blocks = 0;
            let x = (&case.x[..], case.sides[0]);
            let mut done = |range: std::ops::Range<usize>, part: &mut [f32]| {
                assert_eq!((range.start, part.len()), (blocks, range.len() * outputs.stride(samples)));
                blocks = range.end;
            };
            testing::forward(x, &mut found, samples, &mut scratch, &mut done, |pass| {
                conv.forward_bf16(own, pass);
            });
            assert_eq!(blocks, outputs.blocks);
            case.check_output(&found, tolerance, &what);

            let mut found = case.before.clone();
            // With the input's gradient, and without.
            for dx in [Some(&mut found), None] {
                testing::backward(x, &case.dy, dx, samples, &mut scratch, |pass| {
                    conv.backward_bf16(own, pass);
                });
                case.check_gradients(&gradients(&conv, case.layout()), tolerance, &what);
            }
            case.check_input_gradient(&found, tolerance, &what);
        }
    }
}
