//! Accuracy by the bytes it took.

use super::super::axis::Axis;
use super::super::chart::{Chart, Names, Spec};
use super::super::series::{Comparison, Point, Series};
use super::super::text;
use super::{Figure, back_to_front, empty, extent, in_words};

const NAME: &str = "bytes";
const HEADING: &str = "Accuracy by bytes sent";
const AXES: (&str, &str) = ("Data sent by and to all devices", "Accuracy (%)");

pub(super) fn figure(of: &Comparison<'_>) -> Figure {
    let drawn: Vec<(&Series<'_>, Vec<(f64, Point)>)> =
        of.series.iter().map(|s| (s, s.bytes())).filter(|(_, points)| !points.is_empty()).collect();
    let Some((low, high)) = extent(drawn.iter().flat_map(|(_, points)| shown(points)).map(|(_, p)| p.mean))
    else {
        return empty(NAME, HEADING, AXES, "No round has been evaluated yet.");
    };
    let sent =
        extent(drawn.iter().flat_map(|(_, p)| p).map(|&(bytes, _)| bytes).filter(|&bytes| bytes > 0.0));
    let (x, unit) = sent.map_or((Axis::blank(), None), |(least, most)| Axis::bytes(least, most));
    let log = if x.is_log() { " (logarithmic axis)" } else { "" };
    let labels: Vec<String> = drawn
        .iter()
        .map(|(s, points)| if silent(points) { format!("{} (0 B)", s.label) } else { s.label.clone() })
        .collect();
    let ends = drawn
        .iter()
        .zip(&labels)
        .filter_map(|((s, p), label)| Some((p.last()?.1.mean, label.as_str(), s.style)))
        .collect();
    let x_title = match (sent, unit) {
        (None, _) => "No algorithm sent anything".to_owned(),
        (_, None) => AXES.0.to_owned(),
        (_, Some(unit)) => format!("{} ({unit})", AXES.0),
    };
    let mut chart = Chart::new(Spec {
        x,
        y: Axis::percent(low, high),
        x_title: &x_title,
        y_title: AXES.1,
        names: of.shared_legend().map_or_else(|| Names::of_lines(ends), Names::Legend),
        plot_height: None,
    });
    for (series, points) in back_to_front(&drawn) {
        if silent(points) {
            if let Some((_, last)) = points.last() {
                chart.level(last.mean, &series.style, "5 3");
            }
            continue;
        }
        let curve: Vec<(f64, f64)> =
            points.iter().filter(|(bytes, _)| *bytes > 0.0).map(|&(bytes, p)| (bytes, p.mean)).collect();
        chart.curve(&curve, &series.style, series.style.width, series.style.dash, 1.0);
        // Lines end where all rounds are done, not at the edge, so the end is marked.
        if let Some(&(bytes, accuracy)) = curve.last().filter(|_| curve.len() >= 13) {
            let tooltip =
                format!("{}: {} % after {}", series.label, text::percent(accuracy), text::bytes(bytes));
            chart.point(
                bytes,
                accuracy,
                &series.style,
                if series.style.prominent { 3.2 } else { 2.4 },
                &tooltip,
            );
        }
        if curve.len() < 13 {
            for &(bytes, accuracy) in &curve {
                let tooltip =
                    format!("{}: {} % after {}", series.label, text::percent(accuracy), text::bytes(bytes));
                let radius = if series.style.prominent { 3.2 } else { 2.6 };
                chart.point(bytes, accuracy, &series.style, radius, &tooltip);
            }
        }
    }
    let words = in_words(drawn.iter().zip(&labels).filter_map(|((_, p), label)| {
        let (bytes, last) = p.last()?;
        Some((label.as_str(), format!("{} % after {}", text::percent(last.mean), text::bytes(*bytes))))
    }));
    let svg = chart.svg.finish(NAME, HEADING, &format!("Mean accuracy over devices by bytes sent. {words}."));
    let mut caption = format!(
        "Mean accuracy over devices against the bytes of all messages so far, in both directions{log}."
    );
    if drawn.iter().any(|(_, points)| silent(points)) {
        caption.push_str(" An algorithm that sends nothing is a dashed line at its last accuracy.");
    }
    Figure { name: NAME, heading: HEADING, caption, svg }
}

/// Whether nothing was sent.
fn silent(points: &[(f64, Point)]) -> bool {
    points.last().is_none_or(|(bytes, _)| *bytes <= 0.0)
}

/// Of a series that sends nothing, only the end is shown.
fn shown(points: &[(f64, Point)]) -> &[(f64, Point)] {
    if silent(points) { &points[points.len().saturating_sub(1)..] } else { points }
}
