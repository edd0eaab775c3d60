use super::*;
use crate::kernel::elementwise;
use crate::testing::noise;

/// Tiles whose inputs lie in no order and with something between them; how far apart, and how many weights they have.
fn tiles(samples: usize, outputs: usize) -> (Vec<Tile>, usize, usize) {
    let (plane, len) = ((samples + 2) * BLOCK, BLOCK * outputs);
    let tiles = [3, 4, 0, 1, 2].into_iter().enumerate();
    let tiles = tiles.map(|(i, place)| Tile { x: place * plane, w: i * len });
    (tiles.collect(), plane, 5 * len)
}

/// Every input of every tile: where a sample's value lies, and the weight to an output.
fn inputs(tiles: &[Tile]) -> Vec<(usize, Tile, usize)> {
    let all = tiles.iter().flat_map(|tile| (0..BLOCK).map(move |i| (*tile, i)));
    all.map(|(tile, i)| (tile.x + i, tile, i)).collect()
}

fn weight(tile: Tile, i: usize, o: usize) -> usize {
    tile.w + o * BLOCK + i
}

fn close(found: f32, expected: f32) -> bool {
    (found - expected).abs() < 1e-5 * (1.0 + expected.abs())
}

#[test]
fn the_forward_pass_matches_plain_loops() {
    for (samples, outputs) in [(1, 16), (2, 48), (3, 16), (9, 32), (10, 32), (23, 16), (200, 16)] {
        let (tiles, plane, weights) = tiles(samples, outputs);
        let (x, w) = (noise(5 * plane, 1), noise(weights, 2));
        let (bias, y_plane) = (noise(outputs, 3), (samples + 1) * BLOCK);
        let before = noise(outputs / BLOCK * y_plane, 4);
        let mut y = before.clone();
        forward(&Inputs { x: &x, samples, tiles: &tiles, outputs }, &w, &bias, &mut y, y_plane);
        for (at, &found) in y.iter().enumerate() {
            let (n, o) = (at % y_plane / BLOCK, at / y_plane * BLOCK + at % BLOCK);
            if n == samples {
                assert_eq!(found, before[at]);
                continue;
            }
            let products = inputs(&tiles)
                .into_iter()
                .map(|(place, tile, i)| x[place + n * BLOCK] * w[weight(tile, i, o)]);
            assert!(close(found, bias[o] + products.sum::<f32>()));
        }
    }
}

#[test]
fn the_backward_pass_matches_plain_loops() {
    for (samples, outputs, [momentum, weight_decay], add, steps) in [
        (1, 16, [0.0, 0.01], false, true),
        (2, 32, [0.9, 0.0], true, true),
        (3, 16, [0.9, 0.01], false, true),
        (7, 32, [0.0, 0.0], true, true),
        (10, 160, [0.9, 0.01], false, true),
        (10, 32, [0.9, 0.0], true, true),
        (10, 144, [0.0, 0.01], true, true),
        (23, 16, [0.9, 0.01], true, false),
        (26, 272, [0.9, 0.01], true, true),
    ] {
        let (tiles, plane, weights) = tiles(samples, outputs);
        let (x, dy, before) = (noise(5 * plane, 1), noise(outputs * samples, 2), noise(5 * plane, 5));
        let (w, v) = (noise(weights, 3), noise(weights, 4));
        let sgd = Sgd { lr: 0.1, momentum, weight_decay };
        let (mut new_w, mut new_v, mut dx) = (w.clone(), v.clone(), before.clone());
        let layer = Inputs { x: &x, samples, tiles: &tiles, outputs };
        backward(&layer, &dy, &mut dx, add, &mut new_w, &mut new_v, steps.then_some(&sgd));

        // Whether weights change now or later makes no difference to the inputs' gradient.
        let (mut same_dx, mut same_w, mut same_v) = (before.clone(), w.clone(), v.clone());
        backward(&layer, &dy, &mut same_dx, add, &mut same_w, &mut same_v, None);
        assert!(same_dx == dx && same_w == w && same_v == v);

        let mut expected_dx = before;
        let mut gradient = vec![0.0; weights];
        for (place, tile, i) in inputs(&tiles) {
            for n in 0..samples {
                let at = place + n * BLOCK;
                let products = (0..outputs).map(|o| dy[o * samples + n] * w[weight(tile, i, o)]);
                expected_dx[at] = if add { expected_dx[at] } else { 0.0 } + products.sum::<f32>();
            }
            for o in 0..outputs {
                let products = (0..samples).map(|n| x[place + n * BLOCK] * dy[o * samples + n]);
                gradient[weight(tile, i, o)] = products.sum();
            }
        }
        let (mut expected_w, mut expected_v) = (w, v);
        if steps && momentum == 0.0 {
            elementwise::sgd_plain(&mut expected_w, &gradient, sgd.lr, sgd.weight_decay);
        } else if steps {
            let Sgd { lr, momentum, weight_decay } = sgd;
            elementwise::sgd(&mut expected_w, &mut expected_v, &gradient, lr, momentum, weight_decay);
        }
        assert!(dx.iter().zip(&expected_dx).all(|(&f, &e)| close(f, e)));
        assert!(new_w.iter().zip(&expected_w).all(|(&f, &e)| close(f, e)));
        assert!(new_v.iter().zip(&expected_v).all(|(&f, &e)| close(f, e)));
    }
}
