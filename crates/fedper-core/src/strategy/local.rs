//! Local training: what a device reaches alone.

use std::sync::Arc;

use super::{About, Entry, Strategy};
use crate::parts::Parts;
use crate::split::Split;

/// Nothing is averaged, nothing is sent.
pub struct Local;

impl Local {
    pub(super) const ENTRY: Entry = Entry::new("local", &[], |_| Arc::new(Local));
}

impl Strategy for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn about(&self) -> About {
        About {
            line: "every device trains alone, nothing is sent",
            source: "",
            kept: "the whole network",
            learns: "how many samples a device has",
        }
    }

    /// Everything is personal, whatever cut is configured.
    fn parts(&self, cut: &Split) -> Parts {
        Parts::of(Split::all_personal(cut.whole()))
    }
}
