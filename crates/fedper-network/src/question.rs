//! A question that a server asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedper_core::parts::Parts;
use fedper_core::round::{DeviceId, Download};
use fedper_core::split::Kept;
use fedper_core::strategy::Strategy;
use fedper_run::device::Task;
use fedper_run::error::Error;

use super::store::{Scope, Store};

/// A question that was understood.
pub(super) struct Question {
    pub(super) strategy: Arc<dyn Strategy>,
    pub(super) parts: Arc<Parts>,
    pub(super) federation: String,
    pub(super) devices: Vec<DeviceId>,
    /// Of each the last round that counted, if the server says so.
    pub(super) counted: Option<BTreeMap<DeviceId, u32>>,
    /// Whether a list for each device is wanted.
    pub(super) detailed: bool,
    /// Whether the base came as one array, and goes back so.
    pub(super) flat: bool,
    pub(super) message: Download,
}

impl Question {
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { federation: &self.federation, algorithm: self.strategy.name() }
    }
}

/// What `device` has of its own for this question; `None` if it follows from the seed.
pub(super) fn own(
    store: &Store,
    question: &Question,
    task: Task,
    device: DeviceId,
) -> Result<Option<Kept>, Error> {
    let parts = &*question.parts;
    if parts.kept.is_empty() {
        return Ok(None);
    }
    match (question.counted.as_ref().map(|counted| counted[&device]), task) {
        (Some(counted), _) => store.after(counted, question.scope(), device, parts),
        // A server that does not say it gets the newest.
        (None, Task::Train) => {
            store.at_the_beginning_of(question.message.round, question.scope(), device, parts)
        }
        (None, Task::Evaluate) => {
            Ok(store.state(question.scope(), device, parts)?.map(|state| state.personal))
        }
    }
}
