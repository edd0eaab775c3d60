//! More devices than samples: each draws its own from the whole dataset, on demand.

use std::ops::Range;

use fedper_core::seed::{self, Purpose, Random, SERVER};

use super::deal::{self, Hand, apportion};
use super::{PartitionOptions, Scheme, Shard, TestSplit, dirichlet};
use crate::Dataset;

/// What every device draws from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawn {
    pub(super) devices: usize,
    /// Train samples of each device.
    pub(super) samples: usize,
    /// No sample is in both.
    train: Hand,
    test: Hand,
    classes: Classes,
    seed: u64,
}

/// Which classes a device draws.
#[derive(Clone, Debug, PartialEq)]
enum Classes {
    /// So many a device, one device after the other.
    Held { per_device: usize, classes: Vec<u16> },
    /// In proportions drawn from a Dirichlet distribution, times the class's samples.
    Dirichlet { alpha: f64 },
    /// As they come.
    Any,
}

impl Drawn {
    /// For options that were checked.
    ///
    /// # Panics
    /// If they say nothing of samples per device, or devices are folders.
    pub(super) fn new(dataset: &Dataset, options: &PartitionOptions) -> Self {
        let PartitionOptions { devices, seed, .. } = *options;
        let count = dataset.classes.len();
        let of = |range: Range<usize>| deal::by_class(dataset.images.labels(), range, count);
        let all = dataset.images.len();
        let (train, test) = match options.test {
            TestSplit::Own => (of(0..dataset.train_len), of(dataset.train_len..all)),
            TestSplit::Fraction(fraction) => set_aside(of(0..all), fraction, seed),
        };
        let classes = match options.scheme {
            Scheme::Classes { per_device } => {
                Classes::Held { per_device, classes: deal::holdings(count, devices, per_device, seed) }
            }
            Scheme::Dirichlet { alpha } => Classes::Dirichlet { alpha },
            Scheme::Iid => Classes::Any,
            Scheme::Folder => unreachable!("a folder's samples are its own"),
        };
        let samples = options.samples_per_device.expect("devices are told how many samples to draw");
        Self { devices, samples, train, test, classes, seed }
    }

    /// The first device whose classes have no train sample at all.
    pub(super) fn first_empty(&self) -> Option<usize> {
        match &self.classes {
            Classes::Held { per_device, classes } => classes
                .chunks(*per_device)
                .position(|held| held.iter().all(|&class| self.train[usize::from(class)].is_empty())),
            _ => self.train.iter().all(Vec::is_empty).then_some(0),
        }
    }

    pub(super) fn shard(&self, device: usize) -> Shard {
        assert!(device < self.devices, "there is no device {device}");
        let mut rng = seed::derive(self.seed, Purpose::Partition, device as u64, 0);
        let mut shard = Shard::default();
        for (class, quota) in self.quotas(device, &mut rng).into_iter().enumerate().filter(|&(_, q)| q > 0) {
            let (train, test) = (&self.train[class], &self.test[class]);
            let had = train.len();
            let mut draw = |from: &[u32], count: usize, into: &mut Vec<u32>| {
                let drawn = seed::sample(&mut rng, from.len() as u64, count as u64);
                into.extend(drawn.into_iter().map(|place| from[place as usize]));
            };
            draw(train, quota.min(had), &mut shard.train);
            draw(test, (test.len() * quota).div_ceil(had).min(test.len()), &mut shard.test);
            for _ in had..quota {
                shard.train.push(train[seed::below(&mut rng, had as u64) as usize]);
            }
        }
        seed::shuffle(&mut rng, &mut shard.train);
        shard.test.sort_unstable();
        shard
    }

    /// How many train samples of each class a device draws; none of a class that has none.
    fn quotas(&self, device: usize, rng: &mut Random) -> Vec<usize> {
        let sizes = || self.train.iter().map(|samples| samples.len() as f64);
        let weights: Vec<f64> = match &self.classes {
            Classes::Held { per_device, classes } => {
                let mut weights = vec![0.0; self.train.len()];
                for &class in &classes[device * per_device..][..*per_device] {
                    weights[usize::from(class)] = self.train[usize::from(class)].len().min(1) as f64;
                }
                weights
            }
            Classes::Dirichlet { alpha } => {
                let shares =
                    dirichlet::shares(rng, *alpha, self.train.iter().map(|samples| !samples.is_empty()));
                sizes().zip(shares).map(|(size, share)| size * share).collect()
            }
            Classes::Any => {
                let ends: Vec<usize> =
                    sizes().scan(0, |end, n| Some(*end + n as usize).inspect(|e| *end = *e)).collect();
                let all = ends.last().copied().unwrap_or(0) as u64;
                let mut quotas = vec![0; ends.len()];
                for _ in 0..self.samples {
                    let place = seed::below(rng, all) as usize;
                    quotas[ends.partition_point(|&end| end <= place)] += 1;
                }
                return quotas;
            }
        };
        let mut ties: Vec<usize> = (0..weights.len()).collect();
        seed::shuffle(rng, &mut ties);
        apportion(self.samples, &weights, &mut vec![0.0; weights.len()], &ties)
    }
}

/// Takes `fraction` of each class out for testing, but never a class whole: what one device tests on, none trains on.
fn set_aside(mut pool: Hand, fraction: f64, seed: u64) -> (Hand, Hand) {
    let test = pool.iter_mut().enumerate().map(|(class, samples)| {
        let name = format!("class {class}");
        seed::shuffle(&mut seed::named(seed, Purpose::TestSplit, SERVER, 0, &name), samples);
        let count = libm::round(samples.len() as f64 * fraction) as usize;
        samples.drain(..count.min(samples.len().saturating_sub(1))).collect()
    });
    let test = test.collect();
    (pool, test)
}
