//! Ctrl-C: the first ends what runs at its last checkpoint, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// A flag that the first Ctrl-C (or SIGTERM) sets. A second one ends the process at once; the checkpoint of the last round
/// is there all the same.
///
/// # Errors
/// If the system does not let itself be asked, or has been asked before.
pub(super) fn watch() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Error::Training(format!("cannot watch for Ctrl-C: {error}")))?;
    Ok(stop)
}
