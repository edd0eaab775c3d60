//! What the records say of an algorithm's rounds: what a run that goes on has to know of those that are done.

use std::collections::BTreeMap;
use std::path::Path;

use fedper_records::RoundRecord;
use fedper_records::files::for_each_line;

use crate::error::Error;

/// The rounds of one algorithm that are committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    /// The last round.
    pub done: u32,
    /// The mean accuracy of every round that was evaluated, in order.
    pub accuracies: Vec<(u32, f64)>,
    /// The round in which it failed for good, and why.
    pub ended: Option<(u32, String)>,
}

impl History {
    /// Of every algorithm in a `rounds.jsonl`.
    ///
    /// # Errors
    /// If the records cannot be read back.
    pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Self>, Error> {
        let mut found: BTreeMap<String, Self> = BTreeMap::new();
        for_each_line(path, |record: RoundRecord| {
            let history = found.entry(record.algorithm).or_default();
            history.done = record.round;
            history.accuracies.extend(record.accuracy.map(|accuracy| (record.round, accuracy.mean)));
            history.ended = record.ended.map(|reason| (record.round, reason));
        })?;
        Ok(found)
    }
}
