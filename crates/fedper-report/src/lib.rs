//! The report of a run, or of several side by side: one HTML file that needs nothing else, and its figures as SVG files for
//! a paper.
//!
//! The figures are drawn by a small SVG writer of our own rather than by `plotters`. What a paper and a screen reader need
//! is what `plotters`' SVG backend leaves out: titles and descriptions, names at the ends of curves, text that is measured
//! before it is placed, fractional coordinates, a tooltip on a mark, and one look for line charts, dot plots and the circles of a
//! partition. The writer is a hundred lines. HTML is written by plain functions, for the same reason: one page does not
//! need a template engine.
//!
//! ```
//! use fedper_report::{RunData, write};
//!
//! # fn main() -> Result<(), fedper_report::ReportError> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let (run, out) = (folder.path().to_owned(), folder.path().join("report"));
//! # std::fs::write(run.join("config.toml"), "seed = 1").unwrap();
//! let written = write(&[RunData::read(&run)?], &out)?;
//! assert!(written[0].ends_with("report.html"));
//! # Ok(())
//! # }
//! ```
//!
//! What depends on what: `read` → `series` → (`figures` on `chart`, `axis`, `style`, `svg`) and `tables` → `page`.

mod axis;
mod chart;
pub mod experiment;
mod figures;
mod newcomers;
mod page;
mod panels;
pub mod png;
mod read;
mod series;
mod style;
mod svg;
#[cfg(test)]
mod synthetic;
mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fedper_records::ClassCounts;
use fedper_records::files::replace;
use fedper_records::names::REPORT;

pub use read::RunData;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The directory is not one that a run wrote.
    #[error("{} is not a run directory: it holds no config.toml", .0.display())]
    NotARun(PathBuf),
    /// No run was given.
    #[error("a report needs at least one run")]
    NoRuns,
    /// A file is there but cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else than a run writes.
    #[error("{}:{line}: {message}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file of the report cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes `report.html` and its figures (`accuracy.svg`, `bytes.svg`, `loss.svg`, `devices.svg`, `partition.svg`) into the
/// folder `out`, making it if need be, and returns their paths, `report.html` first.
///
/// Each file appears whole or not at all; those of an earlier report are replaced. Runs whose configurations differ only
/// by their seed are shown as one, with their mean and standard deviation.
///
/// # Errors
///
/// If `runs` is empty, or if a file cannot be written.
pub fn write(runs: &[RunData], out: &Path) -> Result<Vec<PathBuf>, ReportError> {
    if runs.is_empty() {
        return Err(ReportError::NoRuns);
    }
    let comparison = series::Comparison::new(runs);
    let figures = figures::all(&comparison);
    let html = page::page(&comparison, &figures);
    fs::create_dir_all(out).map_err(|source| ReportError::Write { path: out.to_owned(), source })?;
    let mut paths = Vec::with_capacity(figures.len() + 1);
    paths.push(write_whole(out.join(REPORT), &html)?);
    for figure in &figures {
        paths.push(write_whole(out.join(format!("{}.svg", figure.name)), &figure.svg)?);
    }
    Ok(paths)
}

/// The picture of a partition alone: who holds which classes, as an SVG.
pub fn partition_svg(counts: &ClassCounts) -> String {
    figures::partition::alone(counts)
}

fn write_whole(path: PathBuf, text: &str) -> Result<PathBuf, ReportError> {
    match replace(&path, text.as_bytes()) {
        Ok(()) => Ok(path),
        Err(source) => Err(ReportError::Write { path, source }),
    }
}
