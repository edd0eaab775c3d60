use super::*;
use crate::kernel::gemm::Start;
use crate::kernel::winograd::{output_gradients, outputs};
use crate::layer::testing::{self, Case};
use crate::parameter::{Parameters, Sink};
use crate::testing::noise;

#[test]
fn tiles_match_plain_loops() {
    for (kernel, input, padding, channels, samples) in [
        (3, [4, 4], 1, [16, 16], 1),
        (3, [7, 5], 1, [17, 33], 3),
        (3, [6, 9], 0, [33, 20], 2),
        (3, [5, 4], 2, [16, 48], 70),
        (5, [6, 6], 0, [32, 16], 1),
        (5, [9, 7], 2, [17, 40], 3),
        (5, [8, 5], 4, [16, 33], 2),
        (5, [8, 13], 0, [32, 20], 70),
    ] {
        let window = Window { input, kernel: [kernel; 2], stride: 1, padding };
        let scheme = Scheme::ALL.into_iter().find(|scheme| scheme.taps() == kernel).unwrap();
        let winograd = Winograd { scheme, input, output: window.output(), padding };
        let case = Case::new(window, channels, 1, samples, |value| value);
        let sides = case.sides;
        let mut bias = case.params.at(1).to_vec();
        bias.resize(sides[1].blocks * BLOCK, 0.0);
        for kernel in Kernel::available() {
            let mut weight = Weight::new("w.weight".into(), channels, 1, window.taps(), true, kernel);
            testing::load(&mut weight, &case.params);
            let mut scratch = Scratch::default();
            scratch.reserve(weight.panel_len(), weight.transposed_len());
            winograd.reserve(&mut scratch, sides.map(|side| side.blocks));
            // Larger tiles lose more to rounding.
            let tolerance = if scheme == Scheme::F2x3 { 3e-6 } else { 1e-5 };
            let what = format!("{winograd:?} {channels:?} {samples}");

            let mut found = noise(sides[1].len(samples), 6);
            let start = Start::Row(bias.as_ptr());
            let put = |points: &[f32], part: &Part| {
                let side = part.side(sides[1], window.output(), samples);
                outputs(points, &part.tile, &mut found, &side, part.corner, start);
            };
            let mut kept = winograd.points(sides.map(|side| side.blocks));
            winograd.product(kernel, sides, &weight, &mut kept, &case.x, samples, &mut scratch, put);
            case.check_output(&found, tolerance, &what);

            let mut found = case.before.clone();
            let (dx, dy) = (Some(&mut found[..]), &case.dy);
            let take = |points: &mut [f32], zeros: &[f32], part: &Part, _| {
                let side = part.side(sides[1], window.output(), samples);
                output_gradients(dy, &side, part.corner, zeros, points, &part.tile);
            };
            let (x, scratch) = (&case.x, &mut scratch);
            winograd.gradients(kernel, sides, &weight, &mut kept, true, x, dx, samples, scratch, 1, take);
            case.check_input_gradient(&found, tolerance, &what);

            let mut out = case.params.clone();
            for panel in weight.panels() {
                let gradient = &mut scratch.gradient[..window.taps() * weight.rows * panel.width()];
                winograd.gradient(&weight, panel, &kept.filters, gradient);
                let alive = vec![true; window.taps()];
                weight.take(panel, 0..window.taps(), gradient, &alive, Sink::Keep);
            }
            weight.parameters(&mut |parameter| parameter.store_gradient(&mut out));
            let bias = case.expected[2][out.at(0).len()..].iter().map(|&value| value as f32);
            out.at_mut(1).iter_mut().zip(bias).for_each(|(out, bias)| *out = bias);
            case.check_gradients(&out, tolerance, &what);
        }
    }
}
