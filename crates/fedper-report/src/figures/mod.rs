//! The figures of a report.

mod accuracy;
mod bytes;
mod devices;
mod loss;
pub(super) mod partition;

use super::chart::{Chart, Names, Spec};
use super::series::{Comparison, Series};

/// A finished figure.
#[derive(Debug)]
pub(super) struct Figure {
    /// Name of its file, without `.svg`, and of its element in the page.
    pub(super) name: &'static str,
    pub(super) heading: &'static str,
    pub(super) caption: String,
    pub(super) svg: String,
}

/// All figures, in the order a reader wants them.
pub(super) fn all(of: &Comparison<'_>) -> Vec<Figure> {
    vec![
        accuracy::figure(of),
        bytes::figure(of),
        loss::figure(of),
        devices::figure(of),
        partition::figure(of),
    ]
}

/// A frame with a sentence in it, where there is nothing to draw yet.
fn empty(name: &'static str, heading: &'static str, axes: (&str, &str), why: &str) -> Figure {
    let mut chart = Chart::new(Spec {
        x: super::axis::Axis::blank(),
        y: super::axis::Axis::blank(),
        x_title: axes.0,
        y_title: axes.1,
        names: Names::AtEnds(Vec::new()),
        plot_height: Some(90.0),
    });
    chart.notice(why);
    let svg = chart.svg.finish(name, heading, why);
    Figure { name, heading, caption: why.to_owned(), svg }
}

/// The least and the greatest of some values.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// Series with their points, the prominent one last so that it is drawn on top.
fn back_to_front<'s, 'a, P>(
    drawn: &'s [(&'s Series<'a>, Vec<P>)],
) -> impl Iterator<Item = &'s (&'s Series<'a>, Vec<P>)> {
    drawn
        .iter()
        .rev()
        .filter(|(s, _)| !s.style.prominent)
        .chain(drawn.iter().rev().filter(|(s, _)| s.style.prominent))
}

/// The last value of each series in words, for those who cannot see the figure.
fn in_words<'a>(ends: impl Iterator<Item = (&'a str, String)>) -> String {
    ends.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
}
