//! From what a device was dealt to what it trains and is tested on.

use fedper_core::seed::{self, Purpose};

use super::Shard;
use super::deal::{Hand, apportion};

/// Takes `fraction` of each device's samples out for testing, of each class in proportion, but never a class whole.
pub(super) fn take_tests(hands: &mut [Hand], fraction: f64, seed: u64) -> Vec<Hand> {
    hands
        .iter_mut()
        .enumerate()
        .map(|(device, hand)| {
            let mut rng = seed::derive(seed, Purpose::TestSplit, device as u64, 0);
            let sizes: Vec<f64> = hand.iter().map(|samples| samples.len() as f64).collect();
            let total = libm::round(sizes.iter().sum::<f64>() * fraction) as usize;
            let ties: Vec<usize> = (0..hand.len()).collect();
            let counts = apportion(total, &sizes, &mut vec![0.0; hand.len()], &ties);
            hand.iter_mut()
                .zip(counts)
                .map(|(samples, count)| {
                    seed::shuffle(&mut rng, samples);
                    samples.drain(..count.min(samples.len().saturating_sub(1))).collect()
                })
                .collect()
        })
        .collect()
}

/// Caps what a device trains on at `cap` samples, drawn `even`ly over its classes or in proportion to them, caps what
/// it is tested on alike, and puts both in their final order.
pub(super) fn shard(
    train: &mut Hand,
    test: &mut Hand,
    cap: Option<usize>,
    even: bool,
    seed: u64,
    device: usize,
) -> Shard {
    let mut rng = seed::derive(seed, Purpose::Partition, device as u64, 0);
    if let Some(cap) = cap {
        let weights: Vec<f64> = train
            .iter()
            .map(|samples| if even { samples.len().min(1) } else { samples.len() } as f64)
            .collect();
        let mut ties: Vec<usize> = (0..train.len()).collect();
        seed::shuffle(&mut rng, &mut ties);
        let quotas = apportion(cap, &weights, &mut vec![0.0; train.len()], &ties);
        for ((samples, tests), quota) in train.iter_mut().zip(test.iter_mut()).zip(quotas) {
            let had = samples.len();
            if had == 0 {
                continue;
            }
            seed::shuffle(&mut rng, samples);
            tests.truncate((tests.len() * quota).div_ceil(had));
            samples.truncate(quota);
            for _ in had..quota {
                samples.push(samples[seed::below(&mut rng, had as u64) as usize]);
            }
        }
    }
    let mut train = train.concat();
    seed::shuffle(&mut rng, &mut train);
    let mut test = test.concat();
    test.sort_unstable();
    Shard { train, test }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_stratified_and_leave_each_class_a_train_sample() {
        let mut hands =
            vec![vec![(0..1750).collect(), vec![], (2000..3750).collect()], vec![vec![1], vec![2], vec![3]]];
        let tests = take_tests(&mut hands, 0.25, 1);
        let sizes = |hand: &Hand| hand.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!((sizes(&hands[0]), sizes(&tests[0])), (vec![1312, 0, 1313], vec![438, 0, 437]));
        assert_eq!((sizes(&hands[1]), sizes(&tests[1])), (vec![1, 1, 1], vec![0, 0, 0]));
    }

    #[test]
    fn a_cap_is_even_or_proportional_and_the_test_follows() {
        let deal = || {
            (vec![(0..30).collect(), (100..110).collect()], vec![(200..206).collect(), (300..304).collect()])
        };
        let counts = |shard: &Shard| {
            let count = |samples: &[u32], range: std::ops::Range<u32>| {
                samples.iter().filter(|s| range.contains(s)).count()
            };
            [
                count(&shard.train, 0..30),
                count(&shard.train, 100..110),
                count(&shard.test, 200..206),
                count(&shard.test, 300..304),
            ]
        };
        for (cap, even, expected) in [
            (None, true, [30, 10, 6, 4]),
            (Some(20), true, [10, 10, 2, 4]),
            (Some(20), false, [15, 5, 3, 2]),
            (Some(100), true, [50, 50, 6, 4]),
        ] {
            let (mut train, mut test): (Hand, Hand) = deal();
            let shard = shard(&mut train, &mut test, cap, even, 1, 0);
            assert_eq!(counts(&shard), expected, "{cap:?} {even}");
            let mut unique = shard.train.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(
                unique.len(),
                shard.train.len().min(40).min(expected[0].min(30) + expected[1].min(10))
            );
        }
    }
}
