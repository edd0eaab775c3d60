//! Slots put together.

use std::sync::Arc;

use super::{Begin, Like, Slot};
use crate::params::{Layout, Params, ParamsError, Spec};
use crate::split::Split;

/// Slots one after the other, laid out as one set of parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    slots: Vec<Slot>,
    /// Of each slot: its parameters under their bare names, and where its values begin.
    places: Vec<(Arc<Layout>, usize)>,
    layout: Arc<Layout>,
}

impl Bundle {
    /// # Panics
    /// If two slots have the same prefix.
    pub(super) fn new(split: &Split, slots: &[Slot]) -> Self {
        let mut places = Vec::with_capacity(slots.len());
        let (mut specs, mut start) = (Vec::new(), 0);
        for slot in slots {
            // The two sides of the cut are shared by everybody who has them.
            let layout = match slot.of {
                Like::Base => split.base().clone(),
                Like::Personal => split.personal().clone(),
                Like::Whole => split.whole().clone(),
                _ => Layout::new(slot.specs(split)).expect("a part of a layout has no duplicates"),
            };
            specs.extend(layout.specs().iter().map(|spec| slot.named(spec)));
            places.push((layout.clone(), start));
            start += layout.numel();
        }
        let layout = match (slots, &places[..]) {
            ([Slot { prefix: "", .. }], [(layout, _)]) => layout.clone(),
            _ => Layout::new(specs).expect("slots of one bundle have prefixes of their own"),
        };
        Self { slots: slots.to_vec(), places, layout }
    }

    /// Its slots, in order.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The parameters of all slots, under their prefixes.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The parameters of the `nth` slot, under their bare names.
    pub fn slot_layout(&self, nth: usize) -> &Arc<Layout> {
        &self.places[nth].0
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    fn position(&self, prefix: &str) -> Option<usize> {
        self.slots.iter().position(|slot| slot.prefix == prefix)
    }

    /// Whether there is a slot with this prefix.
    pub fn has(&self, prefix: &str) -> bool {
        self.position(prefix).is_some()
    }

    /// One slot of `params`, under bare names.
    ///
    /// # Panics
    /// If there is no such slot, or `params` are laid out otherwise.
    pub fn take(&self, params: &Params, prefix: &str) -> Params {
        let nth = self.position(prefix).unwrap_or_else(|| panic!("there is no slot `{prefix}`"));
        assert!(*params.layout() == self.layout, "parameters of another bundle");
        let (layout, start) = &self.places[nth];
        let values = params.values()[*start..start + layout.numel()].to_vec();
        Params::from_values(layout.clone(), values).expect("a slot's values are its layout's")
    }

    /// Slots with bare names, one after the other. What is not in `slots` is left out.
    ///
    /// # Errors
    /// [`ParamsError`] if a slot is not one of these, or not laid out as it should be.
    pub fn pack(&self, slots: Vec<(&str, Params)>) -> Result<Params, ParamsError> {
        let mut found: Vec<Option<Params>> = self.slots.iter().map(|_| None).collect();
        for (prefix, params) in slots {
            let nth = self.position(prefix).ok_or_else(|| ParamsError::Unknown(prefix.to_owned()))?;
            found[nth] = Some(fitted(&self.places[nth].0, params)?);
        }
        if let [only @ Some(_)] = &mut found[..] {
            let values = only.take().map(Params::into_values).unwrap_or_default();
            return Params::from_values(self.layout.clone(), values);
        }
        let present: Vec<usize> = (0..self.slots.len()).filter(|&nth| found[nth].is_some()).collect();
        let mut values = Vec::new();
        found.iter().flatten().for_each(|slot| values.extend_from_slice(slot.values()));
        Params::from_values(self.layout_of(&present), values)
    }

    fn layout_of(&self, present: &[usize]) -> Arc<Layout> {
        if present.len() == self.slots.len() {
            return self.layout.clone();
        }
        let specs = present
            .iter()
            .flat_map(|&nth| self.places[nth].0.specs().iter().map(move |spec| self.slots[nth].named(spec)));
        Layout::new(specs.collect()).expect("a part of a layout has no duplicates")
    }

    /// Takes apart what holds some or all of the slots, in order: `None` for those that are left out.
    ///
    /// # Errors
    /// [`ParamsError`] if it is laid out otherwise.
    pub fn unpack(&self, params: Params) -> Result<Vec<Option<Params>>, ParamsError> {
        let present = self.present(params.layout());
        let layout = self.layout_of(&present);
        if *params.layout() != layout {
            let unknown = |spec: &&Spec| layout.position(&spec.name).is_none();
            return Err(match params.layout().specs().iter().find(unknown) {
                Some(unknown) => ParamsError::Unknown(unknown.name.clone()),
                None => ParamsError::Length { expected: layout.numel(), found: params.layout().numel() },
            });
        }
        let mut slots: Vec<Option<Params>> = self.slots.iter().map(|_| None).collect();
        if let [only] = present[..] {
            // Without copying: its bare names differ by the prefix alone.
            slots[only] = Some(Params::from_values(self.places[only].0.clone(), params.into_values())?);
            return Ok(slots);
        }
        let mut start = 0;
        for nth in present {
            let layout = &self.places[nth].0;
            let values = params.values()[start..start + layout.numel()].to_vec();
            slots[nth] = Some(Params::from_values(layout.clone(), values)?);
            start += layout.numel();
        }
        Ok(slots)
    }

    /// The slots whose first parameter `layout` names; one without any is there in any case.
    fn present(&self, layout: &Layout) -> Vec<usize> {
        let first = |nth: &usize| {
            let spec = self.places[*nth].0.specs().first().map(|spec| self.slots[*nth].named(spec));
            spec.is_none_or(|spec| layout.position(&spec.name).is_some())
        };
        (0..self.slots.len()).filter(first).collect()
    }

    /// What it begins with: `drawn` gives initial weights, of its owner or ([`Begin::Common`]) the server's; `received` is
    /// the network that was received first.
    pub fn begin(&self, drawn: impl Fn(&Arc<Layout>, Begin) -> Params, received: Option<&Params>) -> Params {
        let mut values = Vec::with_capacity(self.layout.numel());
        for (slot, (layout, _)) in self.slots.iter().zip(&self.places) {
            match slot.begin {
                _ if layout.is_empty() => {}
                Begin::Drawn | Begin::Common => {
                    values.extend_from_slice(drawn(layout, slot.begin).values());
                }
                Begin::Received => {
                    let received = received.expect("whoever begins with what was received has received it");
                    let part = part_of(layout, received).expect("a part of the network");
                    values.extend_from_slice(part.values());
                }
                Begin::Zero => values.resize(values.len() + layout.numel(), 0.0),
                Begin::Value(value) => values.resize(values.len() + layout.numel(), value),
            }
        }
        Params::from_values(self.layout.clone(), values).expect("each slot gave its own")
    }

    /// Whether what it begins with depends on what is received.
    pub fn begins_received(&self) -> bool {
        self.slots.iter().any(|slot| slot.begin == Begin::Received)
    }

    /// `params`, stored or sent earlier, matched by name and shape.
    ///
    /// # Errors
    /// If a parameter is missing, unknown, or of another shape.
    pub fn adopt(&self, params: Params) -> Result<Params, ParamsError> {
        fitted(&self.layout, params)
    }
}

/// Exactly the parameters of `layout`, matched by name and shape; without copying where they are laid out so.
fn fitted(layout: &Arc<Layout>, params: Params) -> Result<Params, ParamsError> {
    if params.layout() == layout {
        return Params::from_values(layout.clone(), params.into_values());
    }
    let mut own = Params::zeros(layout.clone());
    for (spec, values) in params.iter() {
        own.set(&spec.name, &spec.shape, values)?;
    }
    match layout.specs().iter().find(|spec| params.layout().position(&spec.name).is_none()) {
        Some(missing) => Err(ParamsError::Missing(missing.name.clone())),
        None => Ok(own),
    }
}

/// The parameters of `layout` that `params` has by name.
///
/// # Errors
/// [`ParamsError::Missing`] if one is not there.
pub fn part_of(layout: &Arc<Layout>, params: &Params) -> Result<Params, ParamsError> {
    let mut values = Vec::with_capacity(layout.numel());
    for spec in layout.specs() {
        let found = params.get(&spec.name).filter(|found| found.len() == spec.numel());
        values.extend_from_slice(found.ok_or_else(|| ParamsError::Missing(spec.name.clone()))?);
    }
    Params::from_values(layout.clone(), values)
}
