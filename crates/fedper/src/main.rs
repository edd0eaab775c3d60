//! The `fedper` command: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    fedper::cli::main()
}
