//! What devices keep between rounds, as far as it fits into memory.
//!
//! The round's transaction holds everything ([`OpenRound`]); this is a cache in front of it, so nothing is lost by
//! leaving something out. What was not used for the longest time is left out first.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::Kept;

use crate::error::Error;
use crate::rundir::OpenRound;

/// What an entry costs beyond its values, in bytes: two places in a map, two allocations.
const OVERHEAD: u64 = 200;

/// One federation's personal parameters.
pub(crate) struct PersonalStore {
    parts: Arc<Parts>,
    /// How many devices' parameters may be held.
    most: u64,
    held: BTreeMap<DeviceId, Held>,
    /// Devices by when they were last used.
    by_use: BTreeMap<u64, DeviceId>,
    uses: u64,
}

struct Held {
    params: Arc<Kept>,
    last_use: u64,
}

impl PersonalStore {
    /// For devices that keep what `parts` says, in at most `budget` bytes.
    pub(crate) fn new(parts: Arc<Parts>, budget: u64) -> Self {
        let most = budget / (4 * parts.kept.layout().numel() as u64 + OVERHEAD);
        Self { parts, most, held: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// What `device` keeps; `None` if it has never trained, or keeps nothing at all.
    ///
    /// # Errors
    /// If it cannot be read back.
    pub(crate) fn get(&mut self, device: DeviceId, open: &OpenRound) -> Result<Option<Arc<Kept>>, Error> {
        if self.parts.kept.is_empty() {
            return Ok(None);
        }
        let known = self.held.get(&device).map(|held| held.params.clone());
        let params = match known {
            Some(params) => Some(params),
            None => open.kept(device, &self.parts)?.map(Arc::new),
        };
        if let Some(params) = &params {
            self.hold(device, params.clone());
        }
        Ok(params)
    }

    /// `device` keeps `params` from now on.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn put(&mut self, device: DeviceId, params: Kept, open: &mut OpenRound) -> Result<(), Error> {
        if !self.parts.kept.is_empty() {
            open.keep(device, &params)?;
            self.hold(device, Arc::new(params));
        }
        Ok(())
    }

    fn hold(&mut self, device: DeviceId, params: Arc<Kept>) {
        self.uses += 1;
        let held = Held { params, last_use: self.uses };
        if let Some(before) = self.held.insert(device, held) {
            self.by_use.remove(&before.last_use);
        }
        self.by_use.insert(self.uses, device);
        while self.held.len() as u64 > self.most {
            let (_, oldest) = self.by_use.pop_first().expect("one place for each device that is held");
            self.held.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use fedper_core::params::{Layout, Params, Spec};
    use fedper_core::split::Split;

    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let layout = Layout::new(vec![Spec::trainable("fc", [25])]).unwrap();
        let parts = Arc::new(Parts::of(Split::all_personal(&layout)));
        let own = || Arc::new(parts.adopt_kept(Params::zeros(layout.clone())).unwrap());
        let mut store = PersonalStore::new(parts.clone(), 999);
        for device in [1, 2, 3, 1, 4] {
            store.hold(DeviceId(device), own());
        }
        // 300 bytes each: three fit.
        assert_eq!(store.held.keys().map(|device| device.0).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(store.by_use.len(), 3);
        let mut none = PersonalStore::new(parts.clone(), 299);
        none.hold(DeviceId(1), own());
        assert!(none.held.is_empty() && none.by_use.is_empty());
    }
}
