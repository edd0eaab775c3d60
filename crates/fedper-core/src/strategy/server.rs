//! The server's side of a method: what devices sent, folded, and what is made of it.

use crate::params::Params;
use crate::parts::Parts;
use crate::split::Shared;

/// What a round was like, for the server.
#[derive(Clone, Copy, Debug)]
pub struct ServerRound<'a> {
    /// What the method sends and keeps.
    pub parts: &'a Parts,
    /// 1 for the first.
    pub round: u32,
    /// N: how many devices the federation has.
    pub devices: u64,
    /// How many were asked.
    pub asked: u64,
    /// How many answered.
    pub answered: u64,
}

impl ServerRound<'_> {
    /// A slot of the server's state, under bare names.
    pub fn state(&self, state: &Shared, slot: &str) -> Params {
        self.parts.server.take(state.params(), slot)
    }
}

/// What devices sent, slot by slot, each folded and rounded once.
#[derive(Debug)]
pub struct Folded(pub(crate) Vec<(&'static str, Option<Params>)>);

impl Folded {
    /// Takes a slot out; `None` if no device sent it.
    pub fn take(&mut self, slot: &str) -> Option<Params> {
        self.0.iter_mut().find(|(prefix, _)| *prefix == slot).and_then(|(_, params)| params.take())
    }

    /// Each slot of `state` as it was folded; where no device sent it, as it was.
    pub fn over(mut self, state: &Shared, parts: &Parts) -> Shared {
        let slots = parts.server.slots().iter().map(|slot| {
            let folded = self.take(slot.prefix);
            (slot.prefix, folded.unwrap_or_else(|| parts.server.take(state.params(), slot.prefix)))
        });
        parts.state(slots.collect())
    }
}
