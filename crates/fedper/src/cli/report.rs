//! `fedper report`.

use std::path::{Path, PathBuf};

use fedper_records::names::REPORT;
use fedper_report::RunData;

use crate::error::Error;
use crate::failure::Failure;

/// Draw report.html and its figures from run directories
#[derive(clap::Args)]
pub(super) struct Args {
    /// Run directories; several are drawn side by side
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Where to write [default: into the run directory, if there is one]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn main(args: &Args) -> Result<(), Failure> {
    let out = match (&args.out, &args.runs[..]) {
        (Some(out), _) => out,
        (None, [run]) => run,
        (None, _) => {
            return Err(Error::Config("several runs: say where to write with --out DIR".into()).into());
        }
    };
    let report = draw(&args.runs, out)?;
    Ok(super::print(&format!("{}\n", report.display()))?)
}

/// Draws the report of `runs` into `out` and returns the path of `report.html`.
pub(super) fn draw(runs: &[PathBuf], out: &Path) -> Result<PathBuf, Failure> {
    let runs: Vec<RunData> = runs.iter().map(|run| RunData::read(run)).collect::<Result<_, _>>()?;
    fedper_report::write(&runs, out)?;
    Ok(out.join(REPORT))
}
