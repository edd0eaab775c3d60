//! The server's weighted mean, streaming.
//!
//! W_B(k) = sum_j n_j W_B,j(k) / sum_j n_j over the devices that answered (arXiv:1912.00818, algorithm 1, and
//! McMahan et al., arXiv:1602.05629). Sums are f64, are added in the order of device numbers whatever the order of
//! arrival, and are divided once: the result depends neither on scheduling nor on the number of threads, bit for bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::params::{Layout, Params};
use crate::round::DeviceId;
use crate::split::BaseParams;

/// How many bases are added in one pass. A sum is twice as long as a value and is both read and written, so adding bases
/// one by one moves five times their bytes through memory; eight at a time, one and a half times.
const GROUP: usize = 8;

/// Averages the bases of one round's devices as they arrive.
///
/// An answer is held while a device with a smaller number is still out, and then until there are eight to add in one
/// pass. Devices that work in order keep at most one answer a worker and seven more here.
#[derive(Debug)]
pub struct Aggregator {
    layout: Arc<Layout>,
    sums: Vec<f64>,
    weight: f64,
    /// What is to be added next, in the order of devices; fewer than a group.
    ready: Vec<(BaseParams, f64)>,
    /// Devices that are out, and those behind one that is; what came early waits in the value.
    pending: BTreeMap<DeviceId, Option<Answer>>,
}

/// What became of a device that was asked.
#[derive(Debug)]
enum Answer {
    Base(BaseParams, f64),
    Failed,
}

impl Aggregator {
    /// For the answers of `devices`, whose bases are laid out as `layout`.
    pub fn new(layout: Arc<Layout>, devices: impl IntoIterator<Item = DeviceId>) -> Self {
        let sums = vec![0.0; layout.numel()];
        Self {
            layout,
            sums,
            weight: 0.0,
            ready: Vec::with_capacity(GROUP),
            pending: devices.into_iter().map(|device| (device, None)).collect(),
        }
    }

    /// Takes a device's base with its weight; an answer that is not awaited (unknown device, second answer) is ignored.
    ///
    /// # Panics
    /// If the base is laid out otherwise.
    pub fn add(&mut self, device: DeviceId, base: BaseParams, weight: f64) {
        assert!(*base.params().layout() == self.layout, "average of different layouts");
        self.answer(device, Answer::Base(base, weight));
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
            if let Some(Answer::Base(base, weight)) = first.remove() {
                self.weight += weight;
                self.ready.push((base, weight));
                if self.ready.len() == GROUP {
                    self.add_ready();
                }
            }
        }
    }

    fn add_ready(&mut self) {
        let rest = add_groups::<GROUP>(&mut self.sums, &self.ready);
        let rest = add_groups::<4>(&mut self.sums, rest);
        let rest = add_groups::<2>(&mut self.sums, rest);
        add_groups::<1>(&mut self.sums, rest);
        self.ready.clear();
    }

    /// The mean; `None` if no device with a weight answered. Devices still out count as failed.
    pub fn finish(mut self) -> Option<BaseParams> {
        let out: Vec<DeviceId> =
            self.pending.iter().filter(|(_, answer)| answer.is_none()).map(|(&device, _)| device).collect();
        for device in out {
            self.skip(device);
        }
        self.add_ready();
        (self.weight > 0.0).then(|| {
            let values = self.sums.iter().map(|sum| (sum / self.weight) as f32).collect();
            BaseParams::new(Params::from_values(self.layout, values).expect("one sum a value"))
        })
    }
}

/// Adds as many whole groups of `N` as there are, each sum in the order of `bases`; returns the bases that are left.
fn add_groups<'a, const N: usize>(
    sums: &mut [f64],
    bases: &'a [(BaseParams, f64)],
) -> &'a [(BaseParams, f64)] {
    let (groups, rest) = bases.as_chunks::<N>();
    for group in groups {
        let weights = group.each_ref().map(|(_, weight)| *weight);
        // Slices of the sums' length: no bounds checks below, so the loop becomes vector instructions.
        let values = group.each_ref().map(|(base, _)| &base.params().values()[..sums.len()]);
        for (i, sum) in sums.iter_mut().enumerate() {
            let mut total = *sum;
            for (values, weight) in values.iter().zip(&weights) {
                total += weight * f64::from(values[i]);
            }
            *sum = total;
        }
    }
    rest
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

    fn base(layout: &Arc<Layout>, values: &[f32]) -> BaseParams {
        BaseParams::new(Params::from_values(layout.clone(), values.to_vec()).unwrap())
    }

    #[test]
    fn a_round_by_hand() {
        // Devices with 1, 3 and 6 samples; the last one fails: weights 1/4 and 3/4.
        let layout = layout(2);
        let mut aggregator = Aggregator::new(layout.clone(), [0, 1, 2].map(DeviceId));
        aggregator.skip(DeviceId(2));
        aggregator.add(DeviceId(1), base(&layout, &[4.0, 0.0]), 3.0);
        aggregator.add(DeviceId(0), base(&layout, &[8.0, -4.0]), 1.0);
        assert_eq!(aggregator.finish().unwrap().params().values(), [5.0, -1.0]);
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
        assert_eq!(aggregator.finish().unwrap().params().values(), [1.0]);
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
        assert_eq!(aggregator.finish().unwrap().params().values(), [1.0]);
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
                    prop_assert_eq!(mean.params().values()[i], (sum / total) as f32);
                }
            }
        }
    }
}
