//! Ctrl-C: the first ends a run at its last checkpoint, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// Set by Ctrl-C.
pub(super) static STOP: AtomicBool = AtomicBool::new(false);

/// Sets [`STOP`] at the first Ctrl-C. A second one ends the process at once; the checkpoint of the last round is there all
/// the same.
///
/// # Errors
/// If the system does not let itself be asked.
pub(super) fn watch() -> Result<(), Error> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Error::Training(format!("cannot watch for Ctrl-C: {error}")))
}
