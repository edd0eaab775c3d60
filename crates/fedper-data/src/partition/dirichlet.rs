//! Dealing each class in proportions from a Dirichlet distribution.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use fedper_core::seed::{self, Random};

use super::deal::{Hand, stream};

/// How often the proportions are drawn anew before small devices are filled up.
const ATTEMPTS: usize = 100;

/// A device with fewer samples than this is too small, unless even a fair share is less than twice that.
const FEWEST: usize = 10;

/// Deals `pool` to `devices`, which are at most as many as there are samples; and says in words which were filled up.
pub(super) fn deal(mut pool: Hand, devices: usize, alpha: f64, seed: u64) -> (Vec<Hand>, Option<String>) {
    let total: usize = pool.iter().map(Vec::len).sum();
    let fewest = FEWEST.min(total / (2 * devices)).max(1);
    for (class, samples) in pool.iter_mut().enumerate() {
        seed::shuffle(&mut stream(seed, &format!("class {class}")), samples);
    }
    let mut rng = stream(seed, "dirichlet");
    let mut hands = attempt(&mut rng, &pool, devices, alpha);
    for _ in 1..ATTEMPTS {
        if hands.iter().all(|hand| size(hand) >= fewest) {
            break;
        }
        hands = attempt(&mut rng, &pool, devices, alpha);
    }
    let poor = hands.iter().filter(|hand| size(hand) < fewest).count();
    fill_up(&mut hands, fewest);
    let note = format!(
        "{poor} of {devices} devices were dealt fewer than {fewest} samples by Dirichlet({alpha}), {ATTEMPTS} times over, and \
         were filled up to {fewest} from the largest ones"
    );
    (hands, (poor > 0).then_some(note))
}

fn size(hand: &Hand) -> usize {
    hand.iter().map(Vec::len).sum()
}

fn attempt(rng: &mut Random, pool: &Hand, devices: usize, alpha: f64) -> Vec<Hand> {
    let total: usize = pool.iter().map(Vec::len).sum();
    let mut hands = vec![vec![Vec::new(); pool.len()]; devices];
    let mut sizes = vec![0; devices];
    for (class, samples) in pool.iter().enumerate() {
        let logs: Vec<f64> = (0..devices).map(|_| log_gamma_draw(rng, alpha)).collect();
        // NIID-Bench's rule: who has a fair share already gets nothing of this class.
        let open: Vec<bool> = sizes.iter().map(|&size| size * devices < total).collect();
        let largest = logs
            .iter()
            .zip(&open)
            .filter(|(_, open)| **open)
            .fold(f64::NEG_INFINITY, |m, (&log, _)| m.max(log));
        let weights: Vec<f64> = logs
            .iter()
            .zip(&open)
            .map(|(log, &open)| if open { libm::exp(log - largest) } else { 0.0 })
            .collect();
        let sum: f64 = weights.iter().sum();
        let (mut cumulative, mut from) = (0.0, 0);
        // Rounding must not leave the class's last samples undealt: the last device that is open takes the rest.
        let last = open.iter().rposition(|&open| open).unwrap_or(devices - 1);
        for device in 0..devices {
            cumulative += weights[device];
            let to = match device {
                device if device == last => samples.len(),
                _ => ((cumulative / sum * samples.len() as f64) as usize).clamp(from, samples.len()),
            };
            hands[device][class] = samples[from..to].to_vec();
            sizes[device] += to - from;
            from = to;
        }
    }
    hands
}

/// Moves samples to devices that have fewer than `fewest`, each from the device that has most, out of the class it has
/// most of.
fn fill_up(hands: &mut [Hand], fewest: usize) {
    let mut by_size: BTreeSet<(usize, Reverse<usize>)> =
        hands.iter().enumerate().map(|(device, hand)| (size(hand), Reverse(device))).collect();
    for poor in 0..hands.len() {
        let mut has = size(&hands[poor]);
        while has < fewest {
            let (most, Reverse(rich)) = by_size.pop_last().expect("there is a device");
            by_size.insert((most - 1, Reverse(rich)));
            by_size.remove(&(has, Reverse(poor)));
            has += 1;
            by_size.insert((has, Reverse(poor)));
            let hand = &mut hands[rich];
            let class = (0..hand.len()).max_by_key(|&class| (hand[class].len(), Reverse(class)));
            let class = class.expect("there is a class");
            let sample =
                hand[class].pop().expect("fewest is at most half a fair share, so the largest has more");
            hands[poor][class].push(sample);
        }
    }
}

/// One device's shares of the classes that are `open`, up to a factor: a draw from a symmetric Dirichlet distribution.
pub(super) fn shares(rng: &mut Random, alpha: f64, open: impl Iterator<Item = bool>) -> Vec<f64> {
    let logs: Vec<f64> =
        open.map(|open| if open { log_gamma_draw(rng, alpha) } else { f64::NEG_INFINITY }).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // The largest has share 1, so that something is left where alpha is so small that all draws are 0.
    logs.iter().map(|&log| if log >= largest { 1.0 } else { libm::exp(log - largest) }).collect()
}

/// The logarithm of a draw from Gamma(`shape`, 1): for shapes far below 1 the draw itself would be 0.
///
/// G. Marsaglia, W. W. Tsang, *A Simple Method for Generating Gamma Variables*, ACM TOMS 26(3), 2000; for shapes below
/// 1 by their boost, Gamma(a) = Gamma(a + 1) · U^(1/a).
fn log_gamma_draw(rng: &mut Random, shape: f64) -> f64 {
    // 1 - uniform lies in (0, 1], whose logarithm is finite.
    let log_uniform = |rng: &mut Random| libm::log(1.0 - seed::uniform(rng));
    if shape < 1.0 {
        let boost = log_uniform(rng) / shape;
        return log_gamma_draw(rng, shape + 1.0) + boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let [x, _] = seed::normal_pair(rng);
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let log_v = 3.0 * libm::log(v);
        if log_uniform(rng) < 0.5 * x * x + d - d * libm::exp(log_v) + d * log_v {
            return libm::log(d) + log_v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedper_core::seed::{Purpose, SERVER, derive};

    #[test]
    fn gamma_has_its_mean_and_variance() {
        let mut rng = derive(5, Purpose::Partition, SERVER, 0);
        for shape in [0.3, 1.0, 4.5] {
            let n = 40_000;
            let draws: Vec<f64> = (0..n).map(|_| libm::exp(log_gamma_draw(&mut rng, shape))).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / f64::from(n);
            assert!((mean / shape - 1.0).abs() < 0.04, "shape {shape}: mean {mean}");
            assert!((variance / shape - 1.0).abs() < 0.1, "shape {shape}: variance {variance}");
        }
    }

    #[test]
    fn tiny_alpha_gives_whole_classes_and_huge_alpha_equal_shares() {
        let pool = || (0..10).map(|class| (class * 100..(class + 1) * 100).collect()).collect::<Hand>();
        for alpha in [1e-300, 1e-3] {
            let (hands, _) = deal(pool(), 10, alpha, 1);
            assert_eq!(hands.iter().map(size).sum::<usize>(), 1000);
            let largest: usize = hands.iter().flatten().map(Vec::len).max().unwrap();
            assert!(largest >= 90, "alpha {alpha}: {largest}");
        }
        let (hands, note) = deal(pool(), 10, 1e9, 1);
        assert_eq!(note, None);
        for hand in &hands {
            assert!((95..=105).contains(&size(hand)), "{}", size(hand));
        }
    }

    #[test]
    fn who_was_filled_up_is_said() {
        let pool = (0..10).map(|class| (class * 100..(class + 1) * 100).collect()).collect::<Hand>();
        let (hands, note) = deal(pool, 50, 0.01, 1);
        let filled = hands.iter().filter(|hand| size(hand) == 10).count();
        let note = note.expect("ten classes do not go round among fifty devices");
        let count: usize = note.split(' ').next().unwrap().parse().unwrap();
        assert!(count > 10 && filled >= count, "{filled}: {note}");
        assert!(note.contains("filled up to 10"), "{note}");
    }

    #[test]
    fn nobody_stays_below_the_minimum() {
        let mut hands = vec![vec![vec![1, 2, 3, 4], vec![5]], vec![vec![], vec![]], vec![vec![6], vec![]]];
        fill_up(&mut hands, 2);
        assert_eq!(hands, [vec![vec![1], vec![5]], vec![vec![4, 3], vec![]], vec![vec![6, 2], vec![]]]);
    }
}
