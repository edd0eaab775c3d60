//! What devices send, folded slot by slot.

use std::sync::Arc;

use crate::aggregate::Aggregator;
use crate::cores::Cores;
use crate::params::ParamsError;
use crate::parts::{Fold, Parts};
use crate::round::DeviceId;
use crate::split::Shared;
use crate::strategy::Folded;

/// Folds what devices send, each slot in its own way, over the devices that sent it.
#[derive(Debug)]
pub struct Folding {
    parts: Arc<Parts>,
    slots: Vec<Aggregator>,
}

impl Folding {
    /// For the answers of `devices`.
    pub fn new(parts: Arc<Parts>, devices: &[DeviceId]) -> Self {
        let slot = |nth| Aggregator::new(parts.up.slot_layout(nth).clone(), devices.iter().copied());
        Self { slots: (0..parts.up.slots().len()).map(slot).collect(), parts }
    }

    /// On these cores instead of the caller's alone.
    #[must_use]
    pub fn on(self, cores: Cores) -> Self {
        Self { slots: self.slots.into_iter().map(|slot| slot.on(cores)).collect(), ..self }
    }

    /// Takes what a device sent. `weight` is that of a weighted mean; it stands for `devices` others in the rest.
    ///
    /// # Errors
    /// If it is not what devices are to send. The device then counts as failed.
    pub fn add(
        &mut self,
        device: DeviceId,
        sent: Shared,
        weight: f64,
        devices: u32,
    ) -> Result<(), ParamsError> {
        let slots = match self.parts.up.unpack(sent.into_params()) {
            Ok(slots) => slots,
            Err(error) => {
                self.skip(device);
                return Err(error);
            }
        };
        for ((aggregator, slot), fold) in self.slots.iter_mut().zip(slots).zip(&self.parts.folds) {
            let weight = match fold {
                Fold::Weighted => weight,
                Fold::Uniform => devices.into(),
                // A sum of several comes as their sum.
                Fold::Sum => 1.0,
            };
            match slot {
                Some(params) => aggregator.add(device, params, weight),
                None => aggregator.skip(device),
            }
        }
        Ok(())
    }

    /// Goes on without a device.
    pub fn skip(&mut self, device: DeviceId) {
        self.slots.iter_mut().for_each(|slot| slot.skip(device));
    }

    /// Each slot, folded. Devices still out count as failed.
    pub fn finish(self) -> Folded {
        let slots = self.slots.into_iter().zip(self.parts.up.slots()).zip(&self.parts.folds);
        Folded(slots.map(|((aggregator, slot), &fold)| (slot.prefix, aggregator.fold(fold))).collect())
    }

    /// The same as one answer of all these devices; `None` if none answered.
    pub fn together(self) -> Option<Shared> {
        let parts = self.parts.clone();
        let slots: Vec<_> =
            self.finish().0.into_iter().filter_map(|(prefix, slot)| Some((prefix, slot?))).collect();
        let nothing = slots.is_empty();
        let packed = parts.up.pack(slots).expect("each slot is laid out as it was sent");
        (!nothing).then(|| Shared::new(packed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Layout, Params, Spec};
    use crate::parts::{Like, Slot};
    use crate::split::Split;

    fn parts() -> Arc<Parts> {
        let layout = Layout::new(vec![Spec::trainable("w", [1])]).unwrap();
        let more = |prefix| Slot::new(prefix, Like::Whole);
        let parts = Parts::of(Split::all_base(&layout));
        Arc::new(parts.collecting(more("uniform/"), Fold::Uniform).collecting(more("sum/"), Fold::Sum))
    }

    fn sent(parts: &Parts, slots: &[(&str, f32)]) -> Shared {
        let slot = |&(prefix, value): &(&'static str, f32)| {
            (prefix, Params::from_values(parts.split.whole().clone(), vec![value]).unwrap())
        };
        let slots: Vec<(&'static str, f32)> = slots
            .iter()
            .map(|&(prefix, value)| {
                let known = ["", "uniform/", "sum/"].into_iter().find(|known| *known == prefix).unwrap();
                (known, value)
            })
            .collect();
        Shared::new(parts.up.pack(slots.iter().map(slot).collect()).unwrap())
    }

    fn values(mut folded: Folded) -> [Option<f32>; 3] {
        ["", "uniform/", "sum/"].map(|slot| folded.take(slot).map(|params| params.values()[0]))
    }

    #[test]
    fn each_slot_is_folded_in_its_own_way_over_those_that_sent_it() {
        let parts = parts();
        let devices = [0, 1, 2, 3].map(DeviceId);
        let mut folding = Folding::new(parts.clone(), &devices);
        folding.add(DeviceId(2), sent(&parts, &[("", 8.0), ("sum/", 1.0)]), 1.0, 1).unwrap();
        folding
            .add(DeviceId(0), sent(&parts, &[("", 4.0), ("uniform/", 2.0), ("sum/", 5.0)]), 3.0, 1)
            .unwrap();
        folding.add(DeviceId(1), sent(&parts, &[("uniform/", 6.0)]), 99.0, 1).unwrap();
        folding.skip(DeviceId(3));
        assert_eq!(values(folding.finish()), [Some(5.0), Some(4.0), Some(6.0)]);
        assert_eq!(values(Folding::new(parts, &devices).finish()), [None; 3]);
    }

    #[test]
    fn what_several_send_together_counts_as_all_of_them() {
        let parts = parts();
        let devices = [0, 1, 2].map(DeviceId);
        let answers = [[4.0, 2.0, 5.0], [8.0, 6.0, 1.0], [0.0, 1.0, 2.0]];
        let slots = |a: [f32; 3]| [("", a[0]), ("uniform/", a[1]), ("sum/", a[2])];
        let mut apart = Folding::new(parts.clone(), &devices);
        let mut together = Folding::new(parts.clone(), &devices[..2]);
        for (device, answer) in devices.into_iter().zip(answers) {
            apart.add(device, sent(&parts, &slots(answer)), 1.0, 1).unwrap();
            if device.0 < 2 {
                together.add(device, sent(&parts, &slots(answer)), 1.0, 1).unwrap();
            }
        }
        let mut both = Folding::new(parts.clone(), &devices);
        both.add(DeviceId(0), together.together().unwrap(), 2.0, 2).unwrap();
        both.skip(DeviceId(1));
        both.add(DeviceId(2), sent(&parts, &slots(answers[2])), 1.0, 1).unwrap();
        assert_eq!(values(apart.finish()), values(both.finish()));
        assert!(Folding::new(parts, &devices).together().is_none());
    }

    #[test]
    fn what_no_method_sends_is_a_failure() {
        let parts = parts();
        let mut folding = Folding::new(parts.clone(), &[DeviceId(0)]);
        let other = Params::zeros(Layout::new(vec![Spec::trainable("v", [1])]).unwrap());
        assert!(folding.add(DeviceId(0), Shared::new(other), 1.0, 1).is_err());
        assert_eq!(values(folding.finish()), [None; 3]);
    }
}
