//! What is said on standard error.

use std::io::Write;

/// Says a line on standard error. If that is closed, or its disk is full, there is nobody to tell, and the work goes on.
pub(crate) fn say(args: std::fmt::Arguments) {
    let _ = writeln!(std::io::stderr().lock(), "{args}");
}
