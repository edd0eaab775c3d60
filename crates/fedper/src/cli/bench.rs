//! `fedper bench`.

use super::bench_scale;
use crate::error::Error;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// What a round costs as the federation grows: start-up, seconds a round, memory
    Scale(bench_scale::Args),
}

pub(super) fn main(command: Command) -> Result<(), Error> {
    match command {
        Command::Scale(args) => bench_scale::main(&args),
    }
}
