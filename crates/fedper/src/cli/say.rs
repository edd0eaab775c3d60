//! What is said on standard error. Whether anybody reads it is no matter of the run's.

use std::fmt::Arguments;
use std::io::Write;

/// Prints a line on standard error, in one piece. Where that is closed, or full, there is nobody to tell, and whatever is
/// being told about goes on: no run ends for want of its log.
pub(crate) fn say(line: Arguments<'_>) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
