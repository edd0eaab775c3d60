//! A figure of several plots side by side: the same methods under several conditions, on one scale.

use super::axis::Axis;
use super::chart::{COLUMN, Chart, Names, Spec};
use super::figures::extent;
use super::series::mean_and_deviation;
use super::style::{Marker, Style};
use super::svg::{FAINT, Svg, Type};
use super::text::percent;

/// One plot.
#[derive(Debug)]
pub(crate) struct PanelData {
    pub(crate) title: String,
    pub(crate) curves: Vec<CurveData>,
}

/// One method in a plot.
#[derive(Debug)]
pub(crate) struct CurveData {
    pub(crate) name: String,
    /// Name of its strategy, which gives it its look.
    pub(crate) algorithm: String,
    /// The accuracy of each seed's run: `(round, mean over devices, standard deviation over devices)`.
    pub(crate) runs: Vec<Vec<(u32, f64, f64)>>,
}

/// A value at a round: mean and spread over seeds, or over devices where there is one seed.
type Points = Vec<(f64, f64, f64)>;

impl PanelData {
    /// The title, and how many seeds its curves are of, if there are several.
    fn heading(&self) -> String {
        let seeds = self.curves.iter().map(|curve| curve.runs.len()).filter(|&runs| runs > 0);
        match (seeds.clone().min(), seeds.max()) {
            (Some(least), Some(most)) if most > 1 && least < most => {
                format!("{} ({least} to {most} seeds)", self.title)
            }
            (_, Some(most)) if most > 1 => format!("{} ({most} seeds)", self.title),
            _ => self.title.clone(),
        }
    }
}

impl CurveData {
    /// Mean over seeds at every round that all seeds have, and its spread: the standard deviation over seeds, or over
    /// devices if there is a single seed.
    pub(crate) fn points(&self) -> Points {
        let Some((first, rest)) = self.runs.split_first() else { return Vec::new() };
        first
            .iter()
            .filter_map(|&(round, mean, over_devices)| {
                let others = rest.iter().map(|run| run.iter().find(|p| p.0 == round).map(|p| p.1));
                let values: Vec<f64> = std::iter::once(Some(mean)).chain(others).collect::<Option<_>>()?;
                let (mean, over_seeds) = mean_and_deviation(&values);
                Some((f64::from(round), mean, if rest.is_empty() { over_devices } else { over_seeds }))
            })
            .collect()
    }
}

const BANDS: &str =
    "Bands: one standard deviation to both sides, over seeds where there are several, else over devices.";

const GAP: f64 = 14.0;
const NOTE: f64 = 14.0;
const TITLE: f64 = 17.0;
const HEAD: f64 = 22.0;
/// More bands than this hide one another.
const MOST_BANDS: usize = 5;
/// Lines through fewer rounds than this also show the rounds themselves.
const FEW_POINTS: usize = 8;

/// The figure as an SVG document: `columns` plots in a row, each under its title, all under `title`.
pub(crate) fn panels(id: &str, title: &str, panels: &[PanelData], columns: usize) -> String {
    let points: Vec<Vec<Points>> =
        panels.iter().map(|panel| panel.curves.iter().map(CurveData::points).collect()).collect();
    let all = || points.iter().flatten().flatten();
    let range = extent(all().flat_map(|&(_, mean, spread)| [mean, (mean + spread).min(1.0)]));
    let rounds = extent(all().map(|&(round, _, _)| round));
    let charts: Vec<Svg> = panels
        .iter()
        .zip(&points)
        .map(|(panel, points)| chart(panel, points, range, rounds.map(|(_, last)| last as u32)))
        .collect();
    let columns = columns.min(charts.len()).max(1);
    let row_height = charts.iter().map(|chart| chart.size().1).fold(0.0, f64::max) + TITLE + GAP;
    let rows = charts.len().div_ceil(columns);
    let width = columns as f64 * COLUMN + (columns - 1) as f64 * GAP;
    let plots = HEAD + rows as f64 * row_height - GAP + 4.0;
    let mut whole = Svg::new(width, plots + NOTE);
    whole.text(4.0, 14.0, title, Type { bold: true, size: 12.0, ..Type::default() });
    for (place, (chart, panel)) in charts.iter().zip(panels).enumerate() {
        let x = (place % columns) as f64 * (COLUMN + GAP);
        let y = HEAD + (place / columns) as f64 * row_height;
        whole.text(x + 4.0, y + 12.0, &panel.heading(), Type { colour: FAINT, ..Type::default() });
        whole.place(chart, x, y + TITLE);
    }
    whole.text(4.0, plots + 9.0, BANDS, Type { colour: FAINT, size: 9.0, ..Type::default() });
    let ends = panels.iter().zip(&points).map(|(panel, points)| {
        let ends =
            panel.curves.iter().zip(points).filter_map(|(curve, points)| {
                Some(format!("{} {} %", curve.name, percent(points.last()?.1)))
            });
        format!("{}: {}", panel.title, ends.collect::<Vec<_>>().join(", "))
    });
    whole.finish(id, title, &format!("Final accuracy. {}.", ends.collect::<Vec<_>>().join("; ")))
}

fn chart(panel: &PanelData, points: &[Points], range: Option<(f64, f64)>, last: Option<u32>) -> Svg {
    let (Some((low, high)), Some(last), true) = (range, last, points.iter().any(|p| !p.is_empty())) else {
        let blank = Spec {
            x: Axis::blank(),
            y: Axis::blank(),
            x_title: "Communication round",
            y_title: "Accuracy (%)",
            names: Names::AtEnds(Vec::new()),
            plot_height: None,
        };
        let mut chart = Chart::new(blank);
        chart.notice("Not run yet.");
        return chart.svg;
    };
    let styles: Vec<Style> = (0..panel.curves.len()).map(|place| style(panel, place)).collect();
    let drawn = || panel.curves.iter().zip(&styles).zip(points).filter(|(_, points)| !points.is_empty());
    let ends = drawn().filter_map(|((c, style), p)| Some((p.last()?.1, c.name.as_str(), *style))).collect();
    let mut chart = Chart::new(Spec {
        x: Axis::rounds(1, last),
        y: Axis::percent(low, high),
        x_title: "Communication round",
        y_title: "Accuracy (%)",
        names: Names::of_lines(ends),
        plot_height: None,
    });
    if drawn().count() <= MOST_BANDS {
        for ((_, style), points) in drawn() {
            let band: Vec<_> = points.iter().map(|&(x, mean, s)| (x, mean - s, mean + s)).collect();
            chart.band(&band, style, 0.12);
        }
    }
    // FedPer last, so that it is on top.
    let order = drawn().filter(|((_, s), _)| !s.prominent).chain(drawn().filter(|((_, s), _)| s.prominent));
    for ((curve, style), points) in order {
        let line: Vec<(f64, f64)> = points.iter().map(|&(round, mean, _)| (round, mean)).collect();
        chart.curve(&line, style, style.width, style.dash, 1.0);
        let marks = if points.len() < FEW_POINTS { &line[..] } else { &line[line.len() - 1..] };
        for &(round, mean) in marks {
            let tooltip = format!("{}, round {round}: {} %", curve.name, percent(mean));
            chart.point(round, mean, style, 2.6, &tooltip);
        }
    }
    chart.svg
}

/// FedPer solid, FedAvg dashed, and the others in dashes of their own. Several FedPer curves (K_P = 1, 2, …) differ by
/// colour and mark.
fn style(panel: &PanelData, place: usize) -> Style {
    let curve = &panel.curves[place];
    let names: Vec<&str> = panel.curves.iter().map(|curve| curve.algorithm.as_str()).collect();
    let look = Style::of_algorithm(&names, place);
    match curve.algorithm.as_str() {
        "fedper" => {
            let before = names[..place].iter().filter(|&&name| name == "fedper").count();
            match names.iter().filter(|&&name| name == "fedper").count() {
                1 => look,
                _ => Style { width: 1.8, ..SHADES[before % SHADES.len()] },
            }
        }
        "fedavg" => look.dashed(1),
        "local" => look.dashed(2),
        _ => look.dashed(3),
    }
}

/// For FedPer with several depths of the cut.
const SHADES: [Style; 4] = [
    shade("#0072b2", "#0072b2", Marker::Circle),
    shade("#009e73", "#00795a", Marker::Diamond),
    shade("#cc79a7", "#a34a7c", Marker::Triangle),
    shade("#e69f00", "#976800", Marker::Square),
];

const fn shade(colour: &'static str, text: &'static str, marker: Marker) -> Style {
    Style { colour, text, width: 1.8, dash: "", marker, prominent: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(algorithm: &str, runs: &[&[(u32, f64, f64)]]) -> CurveData {
        CurveData {
            name: algorithm.to_owned(),
            algorithm: algorithm.to_owned(),
            runs: runs.iter().map(|run| run.to_vec()).collect(),
        }
    }

    #[test]
    fn a_point_is_the_mean_over_seeds_where_all_seeds_are() {
        let one = curve("fedper", &[&[(1, 0.2, 0.05), (2, 0.4, 0.06)]]);
        assert_eq!(one.points(), [(1.0, 0.2, 0.05), (2.0, 0.4, 0.06)], "one seed: spread over devices");
        let two = curve("fedper", &[&[(1, 0.2, 0.05), (2, 0.4, 0.06)], &[(1, 0.4, 0.05)]]);
        let [(round, mean, spread)] = two.points()[..] else { panic!("{:?}", two.points()) };
        assert_eq!(round, 1.0);
        assert!((mean - 0.3).abs() < 1e-12 && (spread - 0.02f64.sqrt()).abs() < 1e-12);
        assert!(curve("fedavg", &[]).points().is_empty());
    }

    #[test]
    fn a_figure_is_well_formed_with_gaps_and_says_where_curves_end() {
        let data = [
            PanelData {
                title: "k = 4 <&>".to_owned(),
                curves: vec![
                    curve("fedper", &[&[(1, 0.3, 0.1), (2, 0.9, 0.1)]]),
                    curve("fedavg", &[&[(1, 0.2, 0.1), (2, 0.5, 0.1)]]),
                    curve("local", &[]),
                ],
            },
            PanelData { title: "k = 8".to_owned(), curves: vec![curve("fedper", &[])] },
        ];
        let svg = panels("fig2", "Two panels", &data, 2);
        let tree = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<&str> =
            tree.descendants().filter(|e| e.has_tag_name("text")).filter_map(|e| e.text()).collect();
        assert!(texts.contains(&"k = 4 <&>") && texts.contains(&"Not run yet."), "{texts:?}");
        let words = tree.descendants().find(|e| e.has_tag_name("desc")).and_then(|e| e.text()).unwrap();
        assert!(words.contains("fedper 90.0 %, fedavg 50.0 %"), "{words}");
    }

    #[test]
    fn a_heading_counts_seeds() {
        let run: &[(u32, f64, f64)] = &[(1, 0.5, 0.1)];
        let heading = |curves: Vec<CurveData>| PanelData { title: "k".to_owned(), curves }.heading();
        assert_eq!(heading(vec![curve("fedper", &[run]), curve("fedavg", &[])]), "k");
        assert_eq!(heading(vec![curve("fedper", &[run, run]), curve("fedavg", &[])]), "k (2 seeds)");
        assert_eq!(heading(vec![curve("fedper", &[run; 3]), curve("local", &[run])]), "k (1 to 3 seeds)");
    }

    #[test]
    fn fedper_is_solid_and_fedavg_is_dashed() {
        let panel = PanelData {
            title: String::new(),
            curves: ["fedper", "fedper", "fedavg", "local", "fedavg-ft"].map(|name| curve(name, &[])).into(),
        };
        let looks: Vec<Style> = (0..5).map(|place| style(&panel, place)).collect();
        assert!(looks[0].dash.is_empty() && looks[1].dash.is_empty() && looks[0].colour != looks[1].colour);
        assert!(looks[2..].iter().all(|look| !look.dash.is_empty()));
        assert!(looks[2].dash != looks[3].dash && looks[3].dash != looks[4].dash);
    }
}
