//! Each device's final accuracy under each algorithm.
//!
//! A row for each of a few devices; a rank plot for some hundred; the cumulative distribution for more, and for several
//! runs over seeds, whose devices are not the same.

use std::collections::BTreeSet;

use super::super::axis::Axis;
use super::super::chart::{COLUMN, Chart, Key, Names, Spec, apart};
use super::super::series::{Comparison, Series};
use super::super::text::{self, percent};
use super::{Figure, empty, extent, in_words};

const NAME: &str = "devices";
const HEADING: &str = "Final accuracy of each device";
const ACCURACY: &str = "Accuracy (%)";
const MOST_ROWS: usize = 30;
const MOST_RANKS: usize = 150;
const MOST_MARKERS: usize = 6;
const ROW: f64 = 15.0;

pub(super) fn figure(of: &Comparison<'_>) -> Figure {
    let drawn: Vec<&Series<'_>> =
        of.series.iter().filter(|s| s.members.iter().any(|m| !m.devices.is_empty())).collect();
    let devices: BTreeSet<u64> =
        drawn.iter().flat_map(|s| &s.members).flat_map(|m| m.devices.keys().copied()).collect();
    if devices.is_empty() {
        return empty(NAME, HEADING, (ACCURACY, "Device"), "No device has been evaluated yet.");
    }
    let paired =
        of.shared_legend().is_none() && drawn.iter().all(|s| !s.over_seeds()) && drawn.len() <= MOST_MARKERS;
    let reference = drawn.iter().find(|s| s.style.prominent).copied().unwrap_or(drawn[0]);
    let sampled = sampled(of, devices.len());
    let mut sorted: Vec<u64> = devices.into_iter().collect();
    // Worst first; devices that the reference has not evaluated come last.
    sorted.sort_by(|a, b| {
        let key = |device: &u64| accuracy(reference, *device).unwrap_or(2.0);
        key(a).total_cmp(&key(b)).then(a.cmp(b))
    });
    let (svg, how) = if paired && sorted.len() <= MOST_ROWS {
        let how = format!("One row a device, sorted by its accuracy with {}.", reference.label);
        (rows(&drawn, &sorted, reference), how)
    } else if paired && sorted.len() <= MOST_RANKS {
        let how = format!("Devices from left to right by their accuracy with {}.", reference.label);
        (ranks(&drawn, &sorted, reference), how)
    } else {
        let pooled = if of.over_seeds() { ", pooled over runs that differ only by seed" } else { "" };
        let how = format!(
            "Share of devices whose accuracy is at most the value below{pooled}: further right is better."
        );
        (distribution(of, &drawn), how)
    };
    let words = in_words(drawn.iter().map(|s| (s.label.as_str(), summary(s))));
    let svg =
        svg.finish(NAME, HEADING, &format!("Accuracy over devices at the last evaluated round. {words}."));
    let caption =
        format!("Accuracy on each device's own test samples at the last evaluated round{sampled}. {how}");
    Figure { name: NAME, heading: HEADING, caption, svg }
}

/// How many devices were evaluated, if not all.
fn sampled(of: &Comparison<'_>, evaluated: usize) -> String {
    match of.runs.iter().filter_map(|run| run.partition.as_ref()).map(|p| p.devices.len()).max() {
        Some(all) if evaluated < all => {
            format!(", {} of {} devices", text::grouped(evaluated as u64), text::grouped(all as u64))
        }
        _ => String::new(),
    }
}

fn accuracy(series: &Series<'_>, device: u64) -> Option<f64> {
    series.members.first().and_then(|m| m.devices.get(&device)).copied()
}

fn pooled(series: &Series<'_>) -> Vec<f64> {
    let mut values: Vec<f64> = series.members.iter().flat_map(|m| m.devices.values().copied()).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn summary(series: &Series<'_>) -> String {
    let values = pooled(series);
    let middle = values.get(values.len() / 2).copied().unwrap_or_default();
    let (low, high) = extent(values.iter().copied()).unwrap_or_default();
    format!(
        "{}, from {} % to {} %, median {} %",
        text::counted(values.len(), "device"),
        percent(low),
        percent(high),
        percent(middle)
    )
}

fn range(drawn: &[&Series<'_>]) -> Axis {
    let (low, high) = extent(drawn.iter().flat_map(|s| &s.members).flat_map(|m| m.devices.values().copied()))
        .unwrap_or((0.0, 1.0));
    Axis::percent(low, high)
}

fn legend<'a>(drawn: &[&'a Series<'_>], key: Key) -> Names<'a> {
    Names::Legend(vec![drawn.iter().map(|s| (s.label.as_str(), s.style, key)).collect()])
}

/// Series from back to front.
fn layers<'s, 'a>(drawn: &'s [&'s Series<'a>]) -> impl Iterator<Item = &'s Series<'a>> {
    let rest = drawn.iter().rev().filter(|s| !s.style.prominent);
    rest.chain(drawn.iter().filter(|s| s.style.prominent)).copied()
}

fn rows(drawn: &[&Series<'_>], sorted: &[u64], reference: &Series<'_>) -> super::super::svg::Svg {
    let labels: Vec<String> = sorted.iter().map(u64::to_string).collect();
    let title = "Device";
    let mut chart = Chart::new(Spec {
        x: range(drawn),
        y: Axis::rows(&labels),
        x_title: ACCURACY,
        y_title: title,
        names: legend(drawn, Key::Marker),
        plot_height: Some(ROW * sorted.len() as f64),
    });
    for (row, &device) in sorted.iter().enumerate() {
        let found: Vec<(&Series<'_>, f64)> =
            layers(drawn).filter_map(|s| accuracy(s, device).map(|a| (s, a))).collect();
        let middle = chart.y(row as f64);
        if let Some((low, high)) = extent(found.iter().map(|&(_, a)| a)) {
            let ends = ((chart.x(low), middle), (chart.x(high), middle));
            chart.svg.line(ends.0, ends.1, "#c4c4c4", 1.4);
        }
        for (&(series, value), shift) in found.iter().zip(shifts(&chart, &found)) {
            let tooltip = format!("Device {device}, {}: {} %", series.label, percent(value));
            let radius = if std::ptr::eq(series, reference) && series.style.prominent { 4.0 } else { 3.1 };
            let start = series.style.marker.element(chart.x(value), middle + shift, radius);
            let fill =
                format!("{start} fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"0.6\"", series.style.colour);
            chart.svg.shape(&fill, &tooltip);
        }
    }
    chart.svg
}

/// How far up or down each marker of a row moves so that none hides another.
fn shifts(chart: &Chart, found: &[(&Series<'_>, f64)]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by(|&a, &b| found[a].1.total_cmp(&found[b].1));
    let mut shifts = vec![0.0; found.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && chart.x(found[order[end]].1) - chart.x(found[order[end - 1]].1) < 5.5 {
            end += 1;
        }
        if end - start > 1 {
            let room = (ROW / 2.0 - 3.2).min(3.5 * (end - start - 1) as f64);
            for (place, y) in apart(&vec![0.0; end - start], 2.0 * room, -room, room).into_iter().enumerate()
            {
                shifts[order[start + place]] = y;
            }
        }
        start = end;
    }
    shifts
}

fn ranks(drawn: &[&Series<'_>], sorted: &[u64], reference: &Series<'_>) -> super::super::svg::Svg {
    let title = format!("Devices, by accuracy with {}", reference.label);
    let mut chart = Chart::new(Spec {
        x: Axis::rounds(1, sorted.len() as u32),
        y: range(drawn),
        x_title: &title,
        y_title: ACCURACY,
        names: legend(drawn, Key::Marker),
        plot_height: None,
    });
    for series in layers(drawn) {
        for (place, &device) in sorted.iter().enumerate() {
            if let Some(value) = accuracy(series, device) {
                let tooltip = format!("Device {device}, {}: {} %", series.label, percent(value));
                let radius = if series.style.prominent { 2.6 } else { 2.0 };
                chart.point((place + 1) as f64, value, &series.style, radius, &tooltip);
            }
        }
    }
    chart.svg
}

fn distribution(of: &Comparison<'_>, drawn: &[&Series<'_>]) -> super::super::svg::Svg {
    let x = range(drawn);
    let (left, right) = (x.min(), x.max());
    let mut chart = Chart::new(Spec {
        x,
        y: Axis::percent(0.0, 1.0),
        x_title: ACCURACY,
        y_title: "Share of devices (%)",
        names: of.shared_legend().map_or_else(|| legend(drawn, Key::Line), Names::Legend),
        plot_height: None,
    });
    for series in layers(drawn) {
        let steps = steps(&pooled(series), left, right, (COLUMN * 2.0) as usize);
        chart.curve(&steps, &series.style, series.style.width, series.style.dash, 1.0);
    }
    chart.svg
}

/// The cumulative distribution as corners of steps, on at most `most` values between `left` and `right`.
fn steps(sorted: &[f64], left: f64, right: f64, most: usize) -> Vec<(f64, f64)> {
    let mut corners = vec![(left, 0.0)];
    let bin = (right - left) / most as f64;
    let mut place = 0;
    while place < sorted.len() {
        let value = sorted[place];
        place += sorted[place..].partition_point(|&v| v <= value + bin);
        let before = corners.last().map_or(0.0, |&(_, share)| share);
        corners.push((value, before));
        corners.push((value, place as f64 / sorted.len() as f64));
    }
    corners.push((right, 1.0));
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_climbs_from_0_to_1() {
        assert_eq!(
            steps(&[0.5, 0.5, 1.0, 1.0], 0.0, 1.0, 100),
            [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (1.0, 1.0)]
        );
        let many: Vec<f64> = (0..100_000).map(|i| f64::from(i) / 1e5).collect();
        let corners = steps(&many, 0.0, 1.0, 800);
        assert!(corners.len() < 1700);
        assert!(corners.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1));
        // Coarser by at most a bin.
        assert!(corners.iter().all(|(x, share)| (x - share).abs() < 2.0 / 800.0));
    }
}
