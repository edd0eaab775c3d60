//! Photographs of any number and size in flat memory: decoded once, resized, and kept as raw bytes in a file, from which
//! each batch reads what it needs.
//!
//! [`PhotoCache`] is that file with its index. It outlives the run, and processes may share it: whoever finds photos
//! missing takes the lock and decodes them; what lies in the file is never overwritten, so a run goes on reading what
//! it began with even if another one decodes a photo afresh because its file has changed.

mod cache;
mod index;
mod stored;

pub(crate) use cache::PhotoCache;
pub(crate) use stored::{Slot, Stored};
