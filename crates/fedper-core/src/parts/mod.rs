//! What a method sends, keeps and remembers: named parameters in *slots*.
//!
//! A slot is a set of parameters with a common prefix: the model's own have none (`conv1.weight`), others have one that ends
//! in `/` (`control/conv1.weight`, `own/fc.weight`) or are a few values under the slot's own name (`alpha`). A [`Bundle`] is
//! slots one after the other, as one flat set of parameters. So whatever sends, stores or averages parameters does it for
//! every method alike, and a method only says which slots there are, where they live, how they begin, and how the server
//! folds them ([`Parts`]).

mod bundle;
mod slot;

use std::sync::Arc;

pub use self::bundle::{Bundle, part_of};
pub use self::slot::{Begin, Fold, Like, Slot};
use crate::params::{Params, ParamsError};
use crate::split::{Kept, Shared, Split};

/// What a method sends and keeps, for one network and cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// The network's cut: what is the model's own in what is sent, and in what is kept.
    pub split: Split,
    /// What lasts on the server.
    pub server: Bundle,
    /// What a device is sent: slots of the server's.
    pub down: Bundle,
    /// What a device sends.
    pub up: Bundle,
    /// How the server folds each slot of [`Parts::up`].
    pub folds: Vec<Fold>,
    /// What lasts on the device; it has no wire encoding.
    pub kept: Bundle,
}

impl Parts {
    /// FedPer's: the base goes down and up and is averaged, the personal layers are kept.
    pub fn of(split: Split) -> Self {
        let base = Slot::new("", Like::Base).begins(Begin::Drawn);
        let personal = Slot::new("", Like::Personal).begins(Begin::Drawn).private();
        let base = Bundle::new(&split, &[base]);
        Self {
            server: base.clone(),
            down: base.clone(),
            up: base,
            folds: vec![Fold::Weighted],
            kept: Bundle::new(&split, &[personal]),
            split,
        }
    }

    fn with(&self, bundle: &Bundle, slot: Slot) -> Bundle {
        Bundle::new(&self.split, &[bundle.slots(), &[slot]].concat())
    }

    /// With another slot on the device.
    #[must_use]
    pub fn keeping(self, slot: Slot) -> Self {
        Self { kept: self.with(&self.kept, slot), ..self }
    }

    /// With another slot on the server.
    #[must_use]
    pub fn remembering(self, slot: Slot) -> Self {
        Self { server: self.with(&self.server, slot), ..self }
    }

    /// With another slot that devices are sent; it is one of the server's.
    #[must_use]
    pub fn sending(self, slot: Slot) -> Self {
        Self { down: self.with(&self.down, slot), ..self }
    }

    /// With another slot that devices send.
    #[must_use]
    pub fn collecting(self, slot: Slot, fold: Fold) -> Self {
        let up = self.with(&self.up, slot);
        Self { up, folds: [&self.folds[..], &[fold]].concat(), ..self }
    }

    /// With the model folded otherwise.
    #[must_use]
    pub fn folding_model(mut self, fold: Fold) -> Self {
        self.folds[0] = fold;
        self
    }

    /// The same for another cut of the same network.
    #[must_use]
    pub fn cut(&self, split: Split) -> Self {
        let again = |bundle: &Bundle| Bundle::new(&split, bundle.slots());
        Self {
            server: again(&self.server),
            down: again(&self.down),
            up: again(&self.up),
            folds: self.folds.clone(),
            kept: again(&self.kept),
            split,
        }
    }

    /// The server's state, from all of its slots.
    ///
    /// # Panics
    /// If one is missing or laid out otherwise.
    pub fn state(&self, slots: Vec<(&str, Params)>) -> Shared {
        let params = self.server.pack(slots).expect("each slot is laid out as it is");
        assert!(params.layout() == self.server.layout(), "a slot of the server's state is missing");
        Shared::new(params)
    }

    /// What a device is sent of the server's `state`; the same if that is all of it.
    pub fn downloaded(&self, state: &Arc<Shared>) -> Arc<Shared> {
        if self.down.slots() == self.server.slots() {
            return state.clone();
        }
        let slots =
            self.down.slots().iter().map(|slot| (slot.prefix, self.server.take(state.params(), slot.prefix)));
        let params = self.down.pack(slots.collect()).expect("what is sent is a part of the server's state");
        Arc::new(Shared::new(params))
    }

    /// Stored parameters of the server, matched by name and shape.
    ///
    /// # Errors
    /// If they are those of another method, network or cut.
    pub fn adopt_state(&self, params: Params) -> Result<Shared, ParamsError> {
        self.server.adopt(params).map(Shared::new)
    }

    /// The base under bare names, and what else lasts on the server, if anything does.
    pub fn base_and_rest(&self, state: &Shared) -> (Params, Option<Params>) {
        let take = |slot: &Slot| (slot.prefix, self.server.take(state.params(), slot.prefix));
        let rest: Vec<_> =
            self.server.slots().iter().filter(|slot| !slot.prefix.is_empty()).map(take).collect();
        let packed = || self.server.pack(rest).expect("slots of its own");
        (self.server.take(state.params(), ""), (self.server.slots().len() > 1).then(packed))
    }

    /// What a device sent, matched by name and shape.
    ///
    /// # Errors
    /// If it is that of another method, network or cut.
    pub fn adopt_sent(&self, params: Params) -> Result<Shared, ParamsError> {
        self.up.adopt(params).map(Shared::new)
    }

    /// What a device was sent, matched by name and shape.
    ///
    /// # Errors
    /// If it is that of another method, network or cut.
    pub fn adopt_received(&self, params: Params) -> Result<Shared, ParamsError> {
        self.down.adopt(params).map(Shared::new)
    }

    /// What a device has stored, matched by name and shape.
    ///
    /// # Errors
    /// If it is that of another method, network or cut.
    pub fn adopt_kept(&self, params: Params) -> Result<Kept, ParamsError> {
        self.kept.adopt(params).map(Kept::new)
    }

    /// The base in what a device has received, under bare names.
    pub fn model_of(&self, received: &Shared) -> Params {
        self.down.take(received.params(), "")
    }

    /// The network of the model's own slots: what was received, with the device's own personal layers.
    pub fn join(&self, received: &Shared, own: &Kept) -> Params {
        match (self.down.slots().len(), self.kept.slots().len()) {
            (1, 1) => self.split.join(received, own),
            _ => self.split.join_params(&self.model_of(received), &self.kept.take(own.params(), "")),
        }
    }
}

#[cfg(test)]
mod tests;
