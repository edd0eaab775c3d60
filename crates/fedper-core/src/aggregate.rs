//! The server's weighted mean, streaming.
//!
//! W_B(k) = sum_j n_j W_B,j(k) / sum_j n_j over the devices that answered (arXiv:1912.00818, algorithm 1, and
//! McMahan et al., arXiv:1602.05629). Sums are f64, are added in the order of device numbers whatever the order of
//! arrival, and are divided once: the result depends neither on scheduling nor on the number of threads, bit for bit.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::cores::Cores;
use crate::params::{Layout, Params};
use crate::parts::Fold;
use crate::round::DeviceId;

/// How many bases are added in one pass. A sum is twice as long as a value and is both read and written, so adding bases
/// one by one moves five times their bytes through memory; eight at a time, one and a half times.
const GROUP: usize = 8;

/// Sums that are worth a core of their own: adding to fewer takes no longer than starting a thread.
const SUMS_A_CORE: usize = 1 << 18;

/// Averages the bases of one round's devices as they arrive.
///
/// An answer is held while a device with a smaller number is still out, and then until there are eight to add in one
/// pass. Devices that work in order keep at most one answer a worker and seven more here.
#[derive(Debug)]
pub struct Aggregator {
    layout: Arc<Layout>,
    cores: Cores,
    sums: Vec<f64>,
    /// Nothing has been added to the sums.
    fresh: bool,
    weight: f64,
    /// What is to be added next, in the order of devices; fewer than a group.
    ready: Vec<(Params, f64)>,
    /// Devices that are out, and those behind one that is; what came early waits in the value.
    pending: BTreeMap<DeviceId, Option<Answer>>,
}

/// What became of a device that was asked.
#[derive(Debug)]
enum Answer {
    Params(Params, f64),
    Failed,
}

impl Aggregator {
    /// For the answers of `devices`, whose bases are laid out as `layout`.
    pub fn new(layout: Arc<Layout>, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        let sums = vec![0.0; layout.numel()];
        Self {
            layout,
            cores: Cores::ONE,
            sums,
            fresh: true,
            weight: 0.0,
            ready: Vec::with_capacity(GROUP),
            pending: devices.into_iter().map(|device| (device, None)).collect(),
        }
    }

    /// Adds and divides on these cores, if the bases are large, instead of the caller's alone.
    pub fn on(self, cores: Cores) -> Self {
        Self { cores, ..self }
    }

    /// Takes a device's base with its weight; an answer that is not awaited (unknown device, second answer) is ignored.
    ///
    /// # Panics
    /// If the base is laid out otherwise.
    pub fn add(&mut self, device: DeviceId, base: Params, weight: f64) {
        assert!(*base.layout() == self.layout, "average of different layouts");
        self.answer(device, Answer::Params(base, weight));
    }

    /// Goes on without a device.
    pub fn skip(&mut self, device: DeviceId) {
        self.answer(device, Answer::Failed);
    }

    fn answer(&mut self, device: DeviceId, answer: Answer) {
        if let Some(slot @ None) = self.pending.get_mut(&device) {
            *slot = Some(answer);
        }
        while let Some(first) = self.pending.first_entry()
            && first.get().is_some()
        {
            if let Some(Answer::Params(base, weight)) = first.remove() {
                self.weight += weight;
                self.ready.push((base, weight));
                if self.ready.len() == GROUP {
                    self.add_ready();
                }
            }
        }
    }

    fn add_ready(&mut self) {
        let share = self.cores.share(self.sums.len(), SUMS_A_CORE);
        add(&mut self.sums, self.fresh, &self.ready, self.cores, share);
        self.fresh &= self.ready.is_empty();
        self.ready.clear();
    }

    /// The mean; `None` if no device with a weight answered. Devices still out count as failed.
    pub fn finish(self) -> Option<Params> {
        self.fold(Fold::Weighted)
    }

    /// The same, or the sum.
    pub(crate) fn fold(mut self, fold: Fold) -> Option<Params> {
        let out: Vec<DeviceId> =
            self.pending.iter().filter(|(_, answer)| answer.is_none()).map(|(&device, _)| device).collect();
        for device in out {
            self.skip(device);
        }
        self.add_ready();
        (self.weight > 0.0).then(|| {
            let share = self.cores.share(self.sums.len(), SUMS_A_CORE);
            let by = if fold == Fold::Sum { 1.0 } else { self.weight };
            let values = divide(&self.sums, by, self.cores, share);
            Params::from_values(self.layout, values).expect("one sum a value")
        })
    }
}

/// Adds `bases` to `sums`, or sets them if they are `fresh`, in parts of `share` sums. Each sum is added to in the order of
/// `bases`, whatever the parts.
fn add(sums: &mut [f64], fresh: bool, bases: &[(Params, f64)], cores: Cores, share: usize) {
    cores.each(sums.chunks_mut(share).enumerate(), |(i, part)| {
        let range = i * share..i * share + part.len();
        let (bases, fresh) = add_groups::<GROUP>(part, fresh, &range, bases);
        let (bases, fresh) = add_groups::<4>(part, fresh, &range, bases);
        let (bases, fresh) = add_groups::<2>(part, fresh, &range, bases);
        add_groups::<1>(part, fresh, &range, bases);
    });
}

/// Adds the values in `range` of as many whole groups of `N` as there are to `sums`, each sum in the order of `bases`.
/// Returns the bases that are left, and whether the sums are still fresh.
///
/// Fresh sums are zeros that are not read: memory that the system has not given yet would be given twice, for reading as
/// a shared page of zeros and then for writing, when the other threads are interrupted to hear of it.
fn add_groups<'a, const N: usize>(
    sums: &mut [f64],
    fresh: bool,
    range: &Range<usize>,
    bases: &'a [(Params, f64)],
) -> (&'a [(Params, f64)], bool) {
    let (groups, rest) = bases.as_chunks::<N>();
    for (g, group) in groups.iter().enumerate() {
        let first = fresh && g == 0;
        let weights = group.each_ref().map(|(_, weight)| *weight);
        // Slices of the sums' length: no bounds checks below, so the loop becomes vector instructions.
        let values = group.each_ref().map(|(base, _)| &base.values()[range.clone()][..sums.len()]);
        for (i, sum) in sums.iter_mut().enumerate() {
            let mut total = if first { 0.0 } else { *sum };
            for (values, weight) in values.iter().zip(&weights) {
                total += weight * f64::from(values[i]);
            }
            *sum = total;
        }
    }
    (rest, fresh && groups.is_empty())
}

/// `sums` / `weight`, in parts of `share` values.
fn divide(sums: &[f64], weight: f64, cores: Cores, share: usize) -> Vec<f32> {
    let mut values = vec![0.0; sums.len()];
    cores.each(values.chunks_mut(share).zip(sums.chunks(share)), |(values, sums)| {
        for (value, sum) in values.iter_mut().zip(sums) {
            *value = (sum / weight) as f32;
        }
    });
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Spec;
    use crate::seed::{Purpose, derive, shuffle};
    use proptest::prelude::*;

    fn layout(n: usize) -> Arc<Layout> {
        Layout::new(vec![Spec::trainable("w", [n])]).unwrap()
    }

    fn base(layout: &Arc<Layout>, values: &[f32]) -> Params {
        Params::from_values(layout.clone(), values.to_vec()).unwrap()
    }

    #[test]
    fn a_round_by_hand() {
        // Devices with 1, 3 and 6 samples; the last one fails: weights 1/4 and 3/4.
        let layout = layout(2);
        let mut aggregator = Aggregator::new(layout.clone(), [0, 1, 2].map(DeviceId));
        aggregator.skip(DeviceId(2));
        aggregator.add(DeviceId(1), base(&layout, &[4.0, 0.0]), 3.0);
        aggregator.add(DeviceId(0), base(&layout, &[8.0, -4.0]), 1.0);
        assert_eq!(aggregator.finish().unwrap().values(), [5.0, -1.0]);
    }

    #[test]
    fn nobody_answered() {
        assert_eq!(Aggregator::new(layout(1), [DeviceId(0)]).finish(), None);
    }

    #[test]
    fn strangers_and_second_answers_are_ignored() {
        let layout = layout(1);
        let mut aggregator = Aggregator::new(layout.clone(), [DeviceId(1), DeviceId(2)]);
        aggregator.add(DeviceId(2), base(&layout, &[1.0]), 1.0);
        aggregator.add(DeviceId(2), base(&layout, &[7.0]), 1.0);
        aggregator.add(DeviceId(9), base(&layout, &[7.0]), 1.0);
        assert_eq!(aggregator.finish().unwrap().values(), [1.0]);
    }

    #[test]
    fn what_is_held_does_not_grow_with_the_number_of_devices() {
        let layout = layout(1);
        let count = 100;
        let mut aggregator = Aggregator::new(layout.clone(), (0..count).map(DeviceId));
        for device in 0..count {
            // Two workers: each second device answers before the one in front of it.
            aggregator.add(DeviceId(device ^ 1), base(&layout, &[1.0]), 1.0);
            let early = aggregator.pending.values().flatten().count();
            assert!(early <= 1 && aggregator.ready.len() < GROUP, "{early} early");
        }
        assert_eq!(aggregator.finish().unwrap().values(), [1.0]);
    }

    #[test]
    fn the_parts_do_not_matter() {
        for n in [1, 2, 5, 37] {
            let layout = layout(n);
            let bases: Vec<_> = (0..15u8)
                .map(|k| {
                    let values: Vec<f32> =
                        (0..n).map(|i| ((7 * i + 3) as f32).sin() / f32::from(k + 1)).collect();
                    (base(&layout, &values), f64::from(k) + 0.1)
                })
                .collect();
            let mut expected = vec![0.5; n];
            for (base, weight) in &bases {
                for (sum, &value) in expected.iter_mut().zip(base.values()) {
                    *sum += weight * f64::from(value);
                }
            }
            let mean = expected.iter().map(|sum| (sum / 7.0) as f32).collect::<Vec<_>>();
            for share in [1, 2, 3, 8, 64] {
                let mut sums = vec![0.5; n];
                add(&mut sums, false, &bases, Cores::ONE, share);
                assert_eq!(sums, expected, "{n} sums in parts of {share}");
                assert_eq!(divide(&sums, 7.0, Cores::ONE, share), mean, "{n} sums in parts of {share}");
                // Fresh sums are set, whatever is in them and whatever the number of bases, unless there is none.
                for count in [0, 1, 2, 3, 4, 7, 8, 9, 15] {
                    let (mut sums, mut zeros) = (vec![0.5; n], vec![0.0; n]);
                    add(&mut sums, true, &bases[..count], Cores::ONE, share);
                    add(&mut zeros, false, &bases[..count], Cores::ONE, share);
                    let expected = if count == 0 { vec![0.5; n] } else { zeros };
                    assert_eq!(sums, expected, "{n} sums in parts of {share}, {count} bases");
                }
            }
        }
    }

    #[test]
    fn a_large_base_is_shared_among_the_cores() {
        let most = |count, n| Cores::new(count, |_| ()).share(n, SUMS_A_CORE);
        assert_eq!(most(2, 0), 1);
        assert_eq!(most(2, 2 * SUMS_A_CORE - 1), 2 * SUMS_A_CORE - 1);
        assert_eq!(most(2, 2 * SUMS_A_CORE), SUMS_A_CORE);
        assert_eq!(most(2, 9 * SUMS_A_CORE + 1), (9 * SUMS_A_CORE).div_ceil(2) + 1);
        assert_eq!(most(0, 9 * SUMS_A_CORE), 9 * SUMS_A_CORE);
        assert_eq!(most(64, 3 * SUMS_A_CORE), SUMS_A_CORE);
    }

    #[test]
    fn the_cores_do_not_matter() {
        // In any order, here: the last piece first.
        let backwards = Cores::new(3, |pieces| pieces.into_iter().rev().for_each(|piece| piece()));
        let n = 3 * SUMS_A_CORE + 5;
        let layout = layout(n);
        let mean = |cores| {
            let mut aggregator = Aggregator::new(layout.clone(), (0..9).map(DeviceId)).on(cores);
            for device in 0..9u16 {
                let values: Vec<f32> = (0..n).map(|i| i as f32 / f32::from(device + 3)).collect();
                aggregator.add(DeviceId(device.into()), base(&layout, &values), f64::from(device) + 0.1);
            }
            aggregator.finish().unwrap()
        };
        assert_eq!(mean(backwards), mean(Cores::ONE));
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            devices in prop::collection::vec((prop::collection::vec(-1e3f32..1e3, 37), 1u32..1000, prop::bool::weighted(0.2)), 1..30),
            seed: u64,
        ) {
            let layout = layout(37);
            let run = |order: &[usize]| {
                let mut aggregator = Aggregator::new(layout.clone(), (0..devices.len() as u64).map(DeviceId));
                for &i in order {
                    let (values, n, fails) = &devices[i];
                    if *fails {
                        aggregator.skip(DeviceId(i as u64));
                    } else {
                        aggregator.add(DeviceId(i as u64), base(&layout, values), f64::from(*n));
                    }
                }
                aggregator.finish()
            };
            let mut order: Vec<usize> = (0..devices.len()).collect();
            let expected = run(&order);
            shuffle(&mut derive(seed, Purpose::Shuffle, 0, 0), &mut order);
            prop_assert_eq!(&run(&order), &expected);
            let total: f64 = devices.iter().filter(|d| !d.2).map(|d| f64::from(d.1)).sum();
            for i in 0..37 {
                let terms = devices.iter().filter(|d| !d.2).map(|d| f64::from(d.1) * f64::from(d.0[i]));
                let sum = terms.fold(0.0, |sum, term| sum + term);
                if let Some(mean) = &expected {
                    prop_assert_eq!(mean.values()[i], (sum / total) as f32);
                }
            }
        }
    }
}
