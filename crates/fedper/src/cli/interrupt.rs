//! Ctrl-C: the first ends what runs at its last checkpoint, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Error;

/// A flag that the first Ctrl-C (or SIGTERM) sets. A second one ends the process at once; the checkpoint of the last round
/// is there all the same.
///
/// Where hang-ups are ignored (`nohup fedper run`), nothing is watched for: a handler would take that away, and the end of
/// the terminal would be the end of the run. Ctrl-C then ends the process at once, which loses no more than a round.
///
/// # Errors
/// If the system does not let itself be asked, or has been asked before.
pub(super) fn watch() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    if ignores_hang_ups() {
        return Ok(stop);
    }
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
    .map_err(|error| Error::Training(format!("cannot watch for Ctrl-C: {error}")))?;
    Ok(stop)
}

/// Whether this process was started with SIGHUP ignored, where Linux tells.
fn ignores_hang_ups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGHUP is number 1, and the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
