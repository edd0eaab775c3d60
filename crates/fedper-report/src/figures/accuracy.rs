//! Accuracy by round.

use super::super::axis::Axis;
use super::super::chart::{Chart, Names, Spec};
use super::super::series::{Comparison, Point, Series};
use super::super::text::percent;
use super::{Figure, back_to_front, empty, extent, in_words};

const NAME: &str = "accuracy";
const HEADING: &str = "Accuracy by round";
const AXES: (&str, &str) = ("Communication round", "Accuracy (%)");
/// Bands of more series than this hide one another.
const MOST_BANDS: usize = 4;
/// Lines through fewer rounds than this also show the rounds themselves.
const FEW_POINTS: usize = 13;

pub(super) fn figure(of: &Comparison<'_>) -> Figure {
    let drawn: Vec<(&Series<'_>, Vec<Point>)> =
        of.series.iter().map(|s| (s, s.accuracy())).filter(|(_, points)| !points.is_empty()).collect();
    let bands = drawn.len() <= if of.groups.len() > 1 { MOST_BANDS / 2 } else { MOST_BANDS };
    let before = before_aggregation(&drawn);
    let values = drawn.iter().flat_map(|(_, points)| points).flat_map(|p| {
        let spread = if bands { p.spread } else { 0.0 };
        [p.mean - spread, p.mean + spread]
    });
    let Some((low, high)) = extent(values.chain(before.iter().flat_map(|(_, p)| p).map(|p| p.mean))) else {
        return empty(NAME, HEADING, AXES, "No round has been evaluated yet.");
    };
    let rounds = extent(drawn.iter().flat_map(|(_, points)| points).map(|p| f64::from(p.round)));
    let (first, last) = rounds.map_or((1, 1), |(first, last)| (first as u32, last as u32));
    let first = if last > first { first.min(1) } else { first };
    let ends = drawn.iter().filter_map(|(s, p)| Some((p.last()?.mean, s.label.as_str(), s.style))).collect();
    let mut chart = Chart::new(Spec {
        x: Axis::rounds(first, last),
        y: Axis::percent(low, high),
        x_title: AXES.0,
        y_title: AXES.1,
        names: of.shared_legend().map_or_else(|| Names::of_lines(ends), Names::Legend),
        plot_height: None,
    });
    if bands {
        for (series, points) in back_to_front(&drawn) {
            let band: Vec<(f64, f64, f64)> =
                points.iter().map(|p| (f64::from(p.round), p.mean - p.spread, p.mean + p.spread)).collect();
            chart.band(&band, &series.style, if series.style.prominent { 0.17 } else { 0.11 });
        }
    }
    for (series, points) in &before {
        chart.curve(&xy(points), &series.style, 0.9, "3 2.2", 1.0);
    }
    // At a single round all series would stand at one place.
    let dodge = |series: &Series<'_>| {
        let place = drawn.iter().position(|(s, _)| std::ptr::eq(*s, series)).unwrap_or(0);
        let middle = (drawn.len() - 1) as f64 / 2.0;
        if first == last { (place as f64 - middle) * 0.5 / drawn.len() as f64 } else { 0.0 }
    };
    for (series, points) in back_to_front(&drawn) {
        for run in series.single_runs() {
            chart.curve(&xy(&run.accuracy()), &series.style, 0.6, "", 0.45);
        }
        chart.curve(&xy(points), &series.style, series.style.width, series.style.dash, 1.0);
        if points.len() < FEW_POINTS {
            for p in points {
                let x = f64::from(p.round) + dodge(series);
                if points.len() == 1 && p.spread > 0.0 {
                    chart.whisker(x, p.mean - p.spread, p.mean + p.spread, &series.style);
                }
                let tooltip = format!("{}, round {}: {} %", series.label, p.round, percent(p.mean));
                chart.point(
                    x,
                    p.mean,
                    &series.style,
                    if series.style.prominent { 3.2 } else { 2.6 },
                    &tooltip,
                );
            }
        }
    }
    let mut caption =
        "Accuracy on each device's own test samples, with its own full network, after aggregation. "
            .to_owned();
    if bands {
        caption.push_str(of.band());
    } else {
        caption.push_str(if of.over_seeds() {
            "Line: mean over devices, and over runs that differ only by seed; thin lines: single runs."
        } else {
            "Line: mean over devices."
        });
    }
    if let Some((series, _)) = before.first() {
        caption.push_str(&format!(
            " Dashed: {} right after local training, before aggregation, over the devices that trained.",
            series.label
        ));
    }
    let words = in_words(drawn.iter().filter_map(|(s, p)| {
        let last = p.last()?;
        Some((s.label.as_str(), format!("{} % at round {}", percent(last.mean), last.round)))
    }));
    let svg = chart.svg.finish(NAME, HEADING, &format!("Mean accuracy over devices. {words}."));
    Figure { name: NAME, heading: HEADING, caption, svg }
}

/// Accuracy before aggregation, for FedPer (or the only series), where it differs from the accuracy after it: for more
/// series it would confuse.
fn before_aggregation<'s, 'a>(drawn: &[(&'s Series<'a>, Vec<Point>)]) -> Vec<(&'s Series<'a>, Vec<Point>)> {
    let prominent: Vec<_> = drawn.iter().filter(|(s, _)| s.style.prominent || drawn.len() == 1).collect();
    let [(series, after)] = prominent[..] else { return Vec::new() };
    if drawn.len() > MOST_BANDS || series.over_seeds() {
        return Vec::new();
    }
    let points = series.accuracy_local();
    let differs =
        points.iter().any(|p| after.iter().any(|a| a.round == p.round && (a.mean - p.mean).abs() > 0.002));
    if differs && points.len() > 1 { vec![(*series, points)] } else { Vec::new() }
}

fn xy(points: &[Point]) -> Vec<(f64, f64)> {
    points.iter().map(|p| (f64::from(p.round), p.mean)).collect()
}
