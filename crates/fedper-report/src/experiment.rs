//! Figures of an experiment over several runs: the plot, the table beside it, and the page that holds them all.

use std::fmt::Write as _;

use fedper_records::Spread;

use super::page::CSS;
use super::panels::{CurveData, PanelData, panels};
use super::read::{Algorithm, RunData};
use super::series::mean_and_deviation;
use super::text::{counted, duration, escape, percent};

/// One figure and everything that is known of it.
#[derive(Debug)]
pub struct ExperimentFigure {
    /// `fig2`.
    pub name: String,
    /// Its heading.
    pub title: String,
    /// Where its settings and published values come from.
    pub about: String,
    /// What differs from the published settings: `rounds 25 (paper: 50)`.
    pub changes: Vec<String>,
    /// Its plots.
    pub panels: Vec<PanelRuns>,
}

/// The runs behind one plot.
#[derive(Debug)]
pub struct PanelRuns {
    /// Its heading.
    pub title: String,
    /// Its curves.
    pub curves: Vec<CurveRuns>,
}

/// The runs behind one curve, one for each seed.
#[derive(Debug)]
pub struct CurveRuns {
    /// As its plot names it.
    pub name: String,
    /// Name of its strategy.
    pub algorithm: String,
    /// Final accuracy elsewhere, as a fraction.
    pub published: Option<f64>,
    /// All of one configuration but the seed.
    pub runs: Vec<RunData>,
}

/// A line of a figure's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which plot.
    pub panel: String,
    /// Which of its curves.
    pub curve: String,
    /// Name of its strategy.
    pub algorithm: String,
    /// How many runs stand behind it.
    pub seeds: usize,
    /// The last round.
    pub round: u32,
    /// Mean device accuracy at the last round, mean over seeds; absent if nothing was run.
    pub accuracy: Option<f64>,
    /// Standard deviation of that over seeds, where there are several.
    pub over_seeds: Option<f64>,
    /// Standard deviation over devices, mean over seeds.
    pub over_devices: Option<f64>,
    /// Mean accuracy of the worst tenth of the devices, mean over seeds.
    pub worst_decile: Option<f64>,
    /// Final accuracy elsewhere.
    pub published: Option<f64>,
    /// Wall time of all its runs.
    pub seconds: f64,
}

impl Row {
    /// The time its runs took, as a table shows it.
    pub fn time(&self) -> String {
        if self.seeds == 0 { "-".to_owned() } else { duration(self.seconds) }
    }
}

impl CurveRuns {
    fn rounds(&self) -> impl Iterator<Item = &Algorithm> {
        self.runs.iter().flat_map(|run| run.algorithms.iter().filter(|found| found.name == self.algorithm))
    }

    fn data(&self) -> CurveData {
        let points = |algorithm: &Algorithm| {
            let evaluated = algorithm.rounds.iter().filter_map(|r| Some((r.round, r.accuracy?)));
            evaluated.map(|(round, accuracy)| (round, accuracy.mean, accuracy.std)).collect()
        };
        CurveData {
            name: self.name.clone(),
            algorithm: self.algorithm.clone(),
            runs: self.rounds().map(points).collect(),
        }
    }

    fn row(&self, panel: &str) -> Row {
        let last: Vec<_> = self
            .rounds()
            .filter_map(|algorithm| algorithm.rounds.iter().rev().find_map(|r| Some((r.round, r.accuracy?))))
            .collect();
        let mean = |of: fn(&Spread) -> f64| {
            let values: Vec<f64> = last.iter().map(|(_, accuracy)| of(accuracy)).collect();
            (!values.is_empty()).then(|| mean_and_deviation(&values))
        };
        let accuracy = mean(|a| a.mean);
        Row {
            panel: panel.to_owned(),
            curve: self.name.clone(),
            algorithm: self.algorithm.clone(),
            seeds: last.len(),
            round: last.iter().map(|(round, _)| *round).max().unwrap_or(0),
            accuracy: accuracy.map(|a| a.0),
            over_seeds: accuracy.filter(|_| last.len() > 1).map(|a| a.1),
            over_devices: mean(|a| a.std).map(|a| a.0),
            worst_decile: mean(|a| a.worst_decile).map(|a| a.0),
            published: self.published,
            // From 0, because the sum of nothing is -0.
            seconds: self.rounds().flat_map(|a| &a.rounds).fold(0.0, |sum, r| sum + r.seconds),
        }
    }
}

impl ExperimentFigure {
    /// The figure as an SVG document: the plots that something was run for, or all of them, empty, if nothing was.
    pub fn svg(&self) -> String {
        let begun = |panel: &&PanelRuns| panel.curves.iter().any(|curve| !curve.runs.is_empty());
        let nothing = !self.panels.iter().any(|panel| begun(&panel));
        let data: Vec<PanelData> = self
            .panels
            .iter()
            .filter(|panel| nothing || begun(panel))
            .map(|panel| PanelData {
                title: panel.title.clone(),
                curves: panel.curves.iter().map(CurveRuns::data).collect(),
            })
            .collect();
        // As square as it gets, and never so wide that its text cannot be read in print.
        let columns = match data.len() {
            0..=3 => data.len(),
            4 => 2,
            _ => 3,
        };
        panels(&self.name, &self.title, &data, columns)
    }

    /// The lines of its table.
    pub fn rows(&self) -> Vec<Row> {
        let rows =
            |panel: &PanelRuns| panel.curves.iter().map(|curve| curve.row(&panel.title)).collect::<Vec<_>>();
        self.panels.iter().flat_map(rows).collect()
    }

    /// Its table as comma-separated values; fractions, not percent.
    pub fn csv(&self) -> String {
        let mut out = String::from(
            "panel,curve,seeds,round,accuracy,std_over_seeds,std_over_devices,worst_decile,published,seconds\n",
        );
        let number = |value: Option<f64>| value.map(|v| format!("{v:.4}")).unwrap_or_default();
        for row in self.rows() {
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{},{},{},{:.0}",
                quoted(&row.panel),
                quoted(&row.curve),
                row.seeds,
                row.round,
                number(row.accuracy),
                number(row.over_seeds),
                number(row.over_devices),
                number(row.worst_decile),
                number(row.published),
                row.seconds
            );
        }
        out
    }

    fn runs(&self) -> impl Iterator<Item = &RunData> {
        self.panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.runs)
    }

    /// Notes on the datasets, each once: that images are not the official ones, for instance.
    pub fn notes(&self) -> Vec<String> {
        distinct(self.runs().filter_map(|run| run.summary.as_ref()).flat_map(|summary| summary.all_notes()))
    }

    /// The machines that its runs were done on.
    fn machines(&self) -> Vec<String> {
        distinct(self.runs().filter_map(|run| {
            let summary = run.summary.as_ref()?;
            let kernels = summary.kernels.as_deref().unwrap_or("unknown");
            Some(format!("{}, {}, {kernels} kernels", summary.cpu, counted(summary.workers, "worker")))
        }))
    }
}

/// A field of a CSV file.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn distinct(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = values.collect();
    out.sort();
    out.dedup();
    out
}

/// The page of all `figures`. It refers to nothing outside itself, and is well-formed XML as well as HTML.
pub fn page(title: &str, command: &str, figures: &[ExperimentFigure]) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{0}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{0}</h1>\n\
         <p class=\"lead\">Federated Learning with Personalization Layers (arXiv:1912.00818), run by <code>{1}</code></p>\n\
         </header>\n",
        escape(title),
        escape(command)
    );
    for figure in figures {
        section(&mut out, figure);
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn section(out: &mut String, figure: &ExperimentFigure) {
    let _ = write!(
        out,
        "<section id=\"{}\">\n<h2>{}</h2>\n<p>{}</p>\n",
        escape(&figure.name),
        escape(&figure.title),
        escape(&figure.about)
    );
    if !figure.changes.is_empty() {
        let _ = writeln!(
            out,
            "<p class=\"warning\">Not at the paper's scale: {}.</p>",
            escape(&figure.changes.join("; "))
        );
    }
    for note in figure.notes() {
        let _ = writeln!(out, "<p class=\"warning\">{}</p>", escape(&note));
    }
    let _ = write!(
        out,
        "<figure class=\"wide\">\n{}<figcaption>Accuracy on each device's own test samples with its own network, after \
         aggregation, mean over devices. Bands: ± one standard deviation over seeds, or over devices where there is one \
         seed.</figcaption>\n</figure>\n",
        figure.svg()
    );
    table(out, figure);
    let machines = figure.machines();
    if !machines.is_empty() {
        let seconds: f64 = figure.rows().iter().map(|row| row.seconds).sum();
        let _ = writeln!(
            out,
            "<p class=\"note\">{} of training and evaluation on {}.</p>",
            escape(&duration(seconds)),
            escape(&machines.join("; "))
        );
    }
    out.push_str("</section>\n");
}

fn table(out: &mut String, figure: &ExperimentFigure) {
    out.push_str(
        "<div class=\"scroll\"><table class=\"results\"><caption>Final accuracy in percent</caption><thead><tr>\
         <th scope=\"col\">Plot</th><th scope=\"col\">Method</th><th scope=\"col\">Accuracy</th>\
         <th scope=\"col\">± over seeds</th><th scope=\"col\">± over devices</th><th scope=\"col\">Worst decile</th>\
         <th scope=\"col\">Published</th><th scope=\"col\">Seeds</th><th scope=\"col\">Rounds</th>\
         <th scope=\"col\">Time</th></tr></thead>\n<tbody>\n",
    );
    let show = |value: Option<f64>| {
        value.map_or_else(|| "<span class=\"none\">–</span>".to_owned(), |v| escape(&percent(v)))
    };
    for row in figure.rows() {
        let class = if row.algorithm == "fedper" { " class=\"main\"" } else { "" };
        let _ = writeln!(
            out,
            "<tr{class}><th scope=\"row\">{}</th><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&row.panel),
            escape(&row.curve),
            show(row.accuracy),
            show(row.over_seeds),
            show(row.over_devices),
            show(row.worst_decile),
            show(row.published),
            row.seeds,
            row.round,
            escape(&row.time())
        );
    }
    out.push_str("</tbody></table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::super::synthetic;
    use super::*;

    fn figure(runs: Vec<RunData>) -> ExperimentFigure {
        let curve = |name: &str, algorithm: &str, published, runs| CurveRuns {
            name: name.to_owned(),
            algorithm: algorithm.to_owned(),
            published,
            runs,
        };
        ExperimentFigure {
            name: "fig2".to_owned(),
            title: "CIFAR-10 (small scale)".to_owned(),
            about: "Published values are another's.".to_owned(),
            changes: vec!["rounds 25 (paper: 50)".to_owned()],
            panels: vec![PanelRuns {
                title: "A net, k = 4".to_owned(),
                curves: vec![
                    curve("FedPer", "fedper", Some(0.915), runs),
                    curve("FedAvg", "fedavg", None, Vec::new()),
                ],
            }],
        }
    }

    #[test]
    fn a_row_is_the_mean_of_the_last_rounds_and_its_spread_over_seeds() {
        let runs: Vec<RunData> = [1, 2].map(synthetic::seeded).into();
        let last = |run: &RunData| run.algorithms[0].rounds.iter().rev().find_map(|r| r.accuracy).unwrap();
        let expected: Vec<f64> = runs.iter().map(|run| last(run).mean).collect();
        let rows = figure(runs).rows();
        assert_eq!((rows[0].seeds, rows[1].seeds), (2, 0));
        let (mean, deviation) = mean_and_deviation(&expected);
        assert_eq!((rows[0].accuracy, rows[0].over_seeds), (Some(mean), Some(deviation)));
        assert_eq!((rows[0].published, rows[1].accuracy), (Some(0.915), None));
    }

    #[test]
    fn the_page_says_what_was_changed_and_stands_by_itself() {
        let html =
            page("The paper's figures", "fedper reproduce fig2", &[figure(vec![synthetic::seeded(1)])]);
        let tree = roxmltree::Document::parse_with_options(
            &html,
            roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
        )
        .unwrap();
        let text: String = tree.descendants().filter_map(|e| e.text()).collect();
        for expected in ["rounds 25 (paper: 50)", "91.5", "CIFAR-10 (small scale)", "fedper reproduce fig2"] {
            assert!(text.contains(expected), "{expected}");
        }
        assert!(!html.contains("src=") && !html.contains("http-equiv"));
    }

    #[test]
    fn only_plots_with_a_run_are_drawn_unless_there_is_none() {
        let two = |runs| {
            let mut figure = figure(runs);
            let curves = vec![CurveRuns { runs: Vec::new(), ..figure.panels[0].curves.pop().unwrap() }];
            figure.panels.push(PanelRuns { title: "A net, k = 8".to_owned(), curves });
            figure.svg()
        };
        assert!(two(Vec::new()).contains("A net, k = 8") && two(Vec::new()).contains("Not run yet."));
        let drawn = two(vec![synthetic::seeded(1)]);
        assert!(drawn.contains("A net, k = 4") && !drawn.contains("A net, k = 8"));
    }

    #[test]
    fn the_csv_quotes_what_needs_it() {
        let csv = figure(vec![synthetic::seeded(1)]).csv();
        assert!(csv.lines().nth(1).unwrap().starts_with("\"A net, k = 4\",FedPer,1,"), "{csv}");
        assert!(csv.lines().nth(2).unwrap().ends_with(",,,,,,0"), "{csv}");
    }
}
