//! Randomness is derived, never ambient: seed -> (purpose, device, round) -> a ChaCha8 stream.
//!
//! The derivation, so that a reader can reproduce any draw: the 32-byte ChaCha key is four little-endian `u64`,
//! `seed`, `purpose` (the discriminant of [`Purpose`]), `device` ([`SERVER`] for the server) and `round` (0 outside
//! rounds). Where one purpose needs several independent sequences (one per parameter, say), the ChaCha stream number is
//! the FNV-1a hash of the sequence's name ([`named`]). Draws never depend on threads, scheduling or the platform: the
//! functions below use integer arithmetic and `libm` only.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The generator every draw comes from.
pub type Random = ChaCha8Rng;

/// The `device` of what is drawn for the server or for the federation as a whole.
pub const SERVER: u64 = u64::MAX;

/// What a sequence of random numbers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights; one named sequence per parameter.
    Init = 1,
    /// Which classes and samples a device holds.
    Partition = 2,
    /// Which of its samples a device keeps for testing.
    TestSplit = 3,
    /// Which devices take part in a round.
    Participation = 4,
    /// The order of a device's samples in a round.
    Shuffle = 5,
    /// Crops and flips.
    Augment = 6,
    /// Which devices fail in a round.
    Failure = 7,
    /// Which devices are evaluated.
    Evaluation = 8,
    /// The split of an embedded dataset into train and test.
    Dataset = 9,
    /// The order of a device's samples when it fine-tunes before evaluation.
    FineTune = 10,
    /// On which of its samples a device measures batch-norm statistics.
    Statistics = 11,
    /// The order in which a device names the classes.
    Labels = 12,
}

/// The generator for `purpose` on `device` in `round`.
pub fn derive(seed: u64, purpose: Purpose, device: u64, round: u64) -> Random {
    let mut key = [0; 32];
    for (chunk, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, device, round]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Like [`derive()`], for the sequence called `name`.
pub fn named(seed: u64, purpose: Purpose, device: u64, round: u64, name: &str) -> Random {
    let mut hash = Fnv1a::new();
    hash.write(name.as_bytes());
    let mut rng = derive(seed, purpose, device, round);
    rng.set_stream(hash.finish());
    rng
}

/// A uniform integer in `0..bound`, without bias (by rejection).
///
/// # Panics
/// If `bound` is 0.
pub fn below(rng: &mut Random, bound: u64) -> u64 {
    assert!(bound > 0, "no integer lies below 0");
    let zone = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < zone {
            return draw % bound;
        }
    }
}

/// A uniform number in `[0, 1)` with 53 random bits.
pub fn uniform(rng: &mut Random) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Two independent standard normal numbers (Box-Muller).
pub fn normal_pair(rng: &mut Random) -> [f64; 2] {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform(rng)));
    let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * uniform(rng));
    [radius * cos, radius * sin]
}

/// Fills `values` with normal numbers of mean 0 and standard deviation `std`.
pub fn fill_normal(rng: &mut Random, std: f64, values: &mut [f32]) {
    for pair in values.chunks_mut(2) {
        for (value, draw) in pair.iter_mut().zip(normal_pair(rng)) {
            *value = (std * draw) as f32;
        }
    }
}

/// Fills `values` with uniform numbers in `[-bound, bound)`.
pub fn fill_uniform(rng: &mut Random, bound: f64, values: &mut [f32]) {
    for value in values {
        *value = (bound * (2.0 * uniform(rng) - 1.0)) as f32;
    }
}

/// Shuffles in place (Fisher-Yates from the end).
pub fn shuffle<T>(rng: &mut Random, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i as u64 + 1) as usize);
    }
}

/// `count` different integers of `0..n`, each subset equally likely, in ascending order (Floyd's algorithm: memory and
/// time follow `count`, not `n`).
///
/// # Panics
/// If `count` exceeds `n`.
pub fn sample(rng: &mut Random, n: u64, count: u64) -> Vec<u64> {
    assert!(count <= n, "a sample of {count} out of {n}");
    let mut chosen = BTreeSet::new();
    for last in n - count..n {
        let draw = below(rng, last + 1);
        if !chosen.insert(draw) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

/// The 64-bit FNV-1a hash: tiny, fixed forever, and the same everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Fnv1a(u64);

impl Fnv1a {
    /// The hash of nothing.
    #[allow(clippy::new_without_default, reason = "there is one way to make it, and it takes no default")]
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Appends `bytes`.
    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The hash of everything written.
    pub fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coordinate_of_the_derivation_matters() {
        let first = |mut rng: Random| rng.next_u64();
        let base = first(derive(1, Purpose::Init, 2, 3));
        assert_eq!(base, first(derive(1, Purpose::Init, 2, 3)));
        for other in [
            derive(0, Purpose::Init, 2, 3),
            derive(1, Purpose::Shuffle, 2, 3),
            derive(1, Purpose::Init, 0, 3),
            derive(1, Purpose::Init, 2, 0),
            named(1, Purpose::Init, 2, 3, "fc.weight"),
        ] {
            assert_ne!(base, first(other));
        }
    }

    #[test]
    fn draws_are_fixed_forever() {
        // A change here changes every partition and every run that was ever published.
        let mut rng = derive(42, Purpose::Partition, SERVER, 0);
        let mut order: Vec<u32> = (0..8).collect();
        shuffle(&mut rng, &mut order);
        assert_eq!(order, [0, 6, 5, 1, 3, 2, 7, 4]);
    }

    #[test]
    fn moments_of_the_draws() {
        let mut rng = derive(7, Purpose::Init, 0, 0);
        let n = 100_000u32;
        let moments = |draws: &[f32]| {
            let mean = draws.iter().map(|&d| f64::from(d)).sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|&d| (f64::from(d) - mean).powi(2)).sum::<f64>() / f64::from(n);
            (mean, variance)
        };
        let mut draws = vec![0.0; n as usize];
        fill_normal(&mut rng, 2.0, &mut draws);
        let (mean, variance) = moments(&draws);
        assert!(mean.abs() < 0.03 && (variance - 4.0).abs() < 0.08, "{mean} {variance}");
        fill_uniform(&mut rng, 3.0, &mut draws);
        let (mean, variance) = moments(&draws);
        assert!(mean.abs() < 0.03 && (variance - 3.0).abs() < 0.06, "{mean} {variance}");
        assert!(draws.iter().all(|d| (-3.0..=3.0).contains(d)));
        let counts = (0..n).fold([0u32; 3], |mut counts, _| {
            counts[below(&mut rng, 3) as usize] += 1;
            counts
        });
        assert!(counts.iter().all(|c| c.abs_diff(n / 3) < 700), "{counts:?}");
    }

    #[test]
    fn samples_are_distinct_and_evenly_drawn() {
        let mut counts = [0u32; 10];
        for round in 0..5000 {
            let drawn = sample(&mut derive(3, Purpose::Participation, SERVER, round), 10, 3);
            assert!(drawn.len() == 3 && drawn.windows(2).all(|pair| pair[0] < pair[1]), "{drawn:?}");
            drawn.iter().for_each(|&i| counts[i as usize] += 1);
        }
        assert!(counts.iter().all(|count| count.abs_diff(1500) < 150), "{counts:?}");
        assert_eq!(sample(&mut derive(3, Purpose::Participation, SERVER, 0), 4, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn a_sample_costs_its_own_size() {
        let drawn = sample(&mut derive(3, Purpose::Participation, SERVER, 1), u64::MAX, 100);
        assert!(drawn.len() == 100 && drawn.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn fnv1a_matches_its_published_vectors() {
        let hash = |text: &str| {
            let mut hash = Fnv1a::new();
            hash.write(text.as_bytes());
            hash.finish()
        };
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
