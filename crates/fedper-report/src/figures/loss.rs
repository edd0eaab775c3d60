//! Training loss by round.

use super::super::axis::Axis;
use super::super::chart::{Chart, Names, Spec};
use super::super::series::{Comparison, Point, Series};
use super::super::text::decimal;
use super::{Figure, back_to_front, empty, extent, in_words};

const NAME: &str = "loss";
const HEADING: &str = "Training loss";
const AXES: (&str, &str) = ("Communication round", "Training loss (cross-entropy)");

pub(super) fn figure(of: &Comparison<'_>) -> Figure {
    let drawn: Vec<(&Series<'_>, Vec<Point>)> =
        of.series.iter().map(|s| (s, s.train_loss())).filter(|(_, points)| !points.is_empty()).collect();
    let all = || drawn.iter().flat_map(|(_, points)| points);
    let (Some((low, high)), Some((first, last))) =
        (extent(all().map(|p| p.mean)), extent(all().map(|p| f64::from(p.round))))
    else {
        return empty(NAME, HEADING, AXES, "No device has trained yet.");
    };
    let y = Axis::log_or_linear(low, high, 60.0, |v| decimal(v, 6));
    let scale = if y.is_log() { " (logarithmic axis)" } else { "" };
    let ends = drawn.iter().filter_map(|(s, p)| Some((p.last()?.mean, s.label.as_str(), s.style))).collect();
    let mut chart = Chart::new(Spec {
        x: Axis::rounds(first as u32, last as u32),
        y,
        x_title: AXES.0,
        y_title: AXES.1,
        names: of.shared_legend().map_or_else(|| Names::of_lines(ends), Names::Legend),
        plot_height: None,
    });
    let xy = |points: &[Point]| points.iter().map(|p| (f64::from(p.round), p.mean)).collect::<Vec<_>>();
    for (series, points) in back_to_front(&drawn) {
        for run in series.single_runs() {
            chart.curve(&xy(&run.train_loss()), &series.style, 0.6, "", 0.45);
        }
        chart.curve(&xy(points), &series.style, series.style.width, series.style.dash, 1.0);
        if points.len() < 13 {
            for p in points {
                let tooltip = format!("{}, round {}: {}", series.label, p.round, decimal(p.mean, 4));
                chart.point(
                    f64::from(p.round),
                    p.mean,
                    &series.style,
                    if series.style.prominent { 3.2 } else { 2.6 },
                    &tooltip,
                );
            }
        }
    }
    let words = in_words(drawn.iter().filter_map(|(s, p)| {
        let last = p.last()?;
        Some((s.label.as_str(), format!("{} at round {}", decimal(last.mean, 4), last.round)))
    }));
    let svg = chart.svg.finish(NAME, HEADING, &format!("Mean training loss. {words}."));
    let caption =
        format!("Mean cross-entropy over all samples trained on in a round, as met during training{scale}.");
    Figure { name: NAME, heading: HEADING, caption, svg }
}
