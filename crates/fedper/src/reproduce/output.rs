//! What a reader gets: each figure as SVG, PNG and CSV, and all of them on one page.

use std::fs;
use std::path::{Path, PathBuf};

use fedper_records::write_atomically;
use fedper_report::experiment::{self, CurveRuns, ExperimentFigure, PanelRuns};
use fedper_report::{RunData, png};

use super::plan::{RUNS, run_name};
use super::{Figure, Scale};
use crate::config::Settings;
use crate::error::Error;
use crate::failure::Failure;
use crate::rundir::RunDir;

/// Seeds beyond this are not looked for.
const MOST_SEEDS: u64 = 100;

/// What was drawn.
pub(crate) struct Drawn {
    /// The page.
    pub(crate) page: PathBuf,
    /// The figures on it.
    pub(crate) figures: Vec<ExperimentFigure>,
}

/// Draws `figures` from the runs under `out` that are complete, whichever seeds they have: each figure's SVG, PNG and
/// CSV, and a page.
///
/// # Errors
/// If a run cannot be read or a file cannot be written.
pub(crate) fn draw(figures: &[Figure], scale: Scale, out: &Path) -> Result<Drawn, Failure> {
    let figures: Vec<ExperimentFigure> =
        figures.iter().map(|figure| gather(figure, scale, out)).collect::<Result<_, _>>()?;
    fs::create_dir_all(out).map_err(Error::file("create", out))?;
    for figure in &figures {
        let svg = figure.svg();
        write_atomically(&out.join(format!("{}.svg", figure.name)), svg.as_bytes())?;
        write_atomically(&out.join(format!("{}.png", figure.name)), &png::render(&svg))?;
        write_atomically(&out.join(format!("{}.csv", figure.name)), figure.csv().as_bytes())?;
    }
    let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
    let command = format!("fedper reproduce {} --scale {}", names.join(" "), scale.name());
    let page = out.join("index.html");
    write_atomically(&page, experiment::page("The paper's figures", &command, &figures).as_bytes())?;
    Ok(Drawn { page, figures })
}

/// A figure with all of its runs that are complete.
fn gather(figure: &Figure, scale: Scale, out: &Path) -> Result<ExperimentFigure, Failure> {
    let mut panels = Vec::new();
    for panel in &figure.panels {
        let mut curves = Vec::new();
        for curve in &panel.curves {
            let settings = figure.settings(panel, curve, scale);
            let mut runs = Vec::new();
            for seed in 1..=MOST_SEEDS {
                let folder =
                    out.join(RUNS).join(run_name(&Settings { seed: Some(seed), ..settings.clone() })?);
                if RunDir::is_complete(&folder) {
                    runs.push(RunData::read(&folder)?);
                }
            }
            curves.push(CurveRuns {
                name: curve.name.clone(),
                algorithm: curve.algorithm().to_owned(),
                published: curve.published,
                runs,
            });
        }
        panels.push(PanelRuns { title: panel.title.clone(), curves });
    }
    let title = match scale {
        Scale::Paper => figure.title.clone(),
        Scale::Small | Scale::Smoke => {
            format!("{} ({} scale: {})", figure.title, scale.name(), figure.scaled_to(scale)?)
        }
    };
    Ok(ExperimentFigure {
        name: figure.name.clone(),
        title,
        about: figure.about.trim().to_owned(),
        changes: figure.changes(scale)?,
        panels,
    })
}
