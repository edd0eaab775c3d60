//! The frame that the line figures share: axes, light grid, and names of the series at the ends of their lines or, where
//! they would crowd, in a legend above the plot.

use super::axis::Axis;
use super::style::Style;
use super::svg::{Anchor, FAINT, INK, SIZE, Svg, Type};
use super::text::{shorten_middle, width};

/// Width of a figure: one column of a paper.
pub(super) const COLUMN: f64 = 400.0;
/// Height of the plot itself.
const PLOT: f64 = 214.0;
const GRID: &str = "#e4e4e4";
const AXIS: &str = "#555555";
const LINE: f64 = 13.5;
const WIDEST_NAME: f64 = 120.0;

/// What a chart is made from.
pub(super) struct Spec<'a> {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) x_title: &'a str,
    pub(super) y_title: &'a str,
    pub(super) names: Names<'a>,
    /// Height of the plot, if not the usual one.
    pub(super) plot_height: Option<f64>,
}

/// Where the names of the series go.
pub(super) enum Names<'a> {
    /// At the right, each at the height of a value.
    AtEnds(Vec<(f64, &'a str, Style)>),
    /// Above the plot, each part in rows of its own.
    Legend(Vec<Vec<Entry<'a>>>),
}

/// A name in a legend, and what stands before it.
pub(super) type Entry<'a> = (&'a str, Style, Key);

/// What stands before a name in a legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Line,
    Marker,
}

impl<'a> Names<'a> {
    /// At the ends of the lines if there is room for every name, else in a legend.
    pub(super) fn of_lines(ends: Vec<(f64, &'a str, Style)>) -> Self {
        if ends.len() <= 8 {
            Self::AtEnds(ends)
        } else {
            Self::Legend(vec![ends.into_iter().map(|(_, name, style)| (name, style, Key::Line)).collect()])
        }
    }
}

/// A chart under way: axes drawn, open for marks.
pub(super) struct Chart {
    pub(super) svg: Svg,
    x: Axis,
    y: Axis,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Chart {
    /// Draws the frame and the names.
    pub(super) fn new(spec: Spec<'_>) -> Self {
        let Spec { x, y, x_title, y_title, names, plot_height } = spec;
        let widest_tick = y.ticks.iter().map(|t| width(&t.label, SIZE, false)).fold(0.0, f64::max);
        let left = (4.0 + SIZE + 8.0 + widest_tick + 6.0).max(30.0);
        let mut right = COLUMN - 12.0;
        let mut top = 10.0;
        let rows = match &names {
            Names::AtEnds(ends) => {
                let widest =
                    ends.iter().map(|(_, name, s)| width(name, SIZE, s.prominent)).fold(0.0, f64::max);
                right = COLUMN - 4.0 - (widest.min(WIDEST_NAME) + 12.0).max(8.0);
                Vec::new()
            }
            Names::Legend(parts) => {
                parts.iter().flat_map(|part| legend_rows(part, COLUMN - left - 6.0)).collect()
            }
        };
        if !rows.is_empty() {
            top += rows.len() as f64 * (LINE + 1.5) + 6.0;
        }
        let bottom = top + plot_height.unwrap_or(PLOT);
        let x_label_height = if x.ticks.is_empty() { 6.0 } else { 18.0 };
        let height = bottom + x_label_height + 15.0 + 5.0;
        let mut chart = Self { svg: Svg::new(COLUMN, height), x, y, left, right, top, bottom };
        chart.frame(x_title, y_title, bottom + x_label_height + 12.0);
        match names {
            Names::AtEnds(ends) => chart.end_names(&ends),
            Names::Legend(_) => chart.legend(&rows),
        }
        chart
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        self.left + self.x.at(value) * (self.right - self.left)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.bottom - self.y.at(value) * (self.bottom - self.top)
    }

    /// A text in the middle of the plot.
    pub(super) fn notice(&mut self, text: &str) {
        let at = ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0);
        self.svg.text(at.0, at.1, text, Type { anchor: Anchor::Middle, colour: FAINT, ..Type::default() });
    }

    /// A curve through values.
    pub(super) fn curve(
        &mut self,
        values: &[(f64, f64)],
        style: &Style,
        line_width: f64,
        dash: &str,
        opacity: f64,
    ) {
        let points: Vec<(f64, f64)> = thin(values).map(|&(x, y)| (self.x(x), self.y(y))).collect();
        self.svg.polyline(&points, style.colour, line_width, dash, opacity);
    }

    /// A band of `(x, low, high)`.
    pub(super) fn band(&mut self, values: &[(f64, f64, f64)], style: &Style, opacity: f64) {
        let mut points: Vec<(f64, f64)> =
            thin(values).map(|&(x, _, high)| (self.x(x), self.y(high))).collect();
        let below: Vec<(f64, f64)> = thin(values).map(|&(x, low, _)| (self.x(x), self.y(low))).collect();
        points.extend(below.into_iter().rev());
        self.svg.area(&points, style.colour, opacity);
    }

    /// A point, with white about it so that it stands apart from lines.
    pub(super) fn point(&mut self, x: f64, y: f64, style: &Style, radius: f64, tooltip: &str) {
        let start = style.marker.element(self.x(x), self.y(y), radius);
        self.svg.shape(
            &format!("{start} fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"0.7\"", style.colour),
            tooltip,
        );
    }

    /// A vertical line from `low` to `high`.
    pub(super) fn whisker(&mut self, x: f64, low: f64, high: f64, style: &Style) {
        let (x, low, high) = (self.x(x), self.y(low), self.y(high));
        self.svg.line((x, low), (x, high), style.colour, 1.0);
        for end in [low, high] {
            self.svg.line((x - 3.0, end), (x + 3.0, end), style.colour, 1.0);
        }
    }

    /// A horizontal line across the plot.
    pub(super) fn level(&mut self, y: f64, style: &Style, dash: &str) {
        let y = self.y(y);
        self.svg.polyline(&[(self.left, y), (self.right, y)], style.colour, style.width, dash, 1.0);
    }

    fn frame(&mut self, x_title: &str, y_title: &str, x_title_y: f64) {
        for tick in self.y.ticks.clone() {
            let y = self.y(tick.value);
            self.svg.line((self.left, y), (self.right, y), GRID, 0.8);
            let how = Type { anchor: Anchor::End, ..Type::default() };
            self.svg.text(self.left - 6.0, y + SIZE * 0.36, &tick.label, how);
        }
        self.svg.line((self.left, self.bottom), (self.right, self.bottom), AXIS, 1.0);
        let mut free_from = f64::NEG_INFINITY;
        for tick in self.x.ticks.clone() {
            let x = self.x(tick.value);
            self.svg.line((x, self.bottom), (x, self.bottom + 4.0), AXIS, 1.0);
            let half = width(&tick.label, SIZE, false) / 2.0;
            // A label at the very end moves inwards instead of leaving the figure; one without room is left out.
            let middle = x.clamp(half + 1.0, COLUMN - half - 1.0);
            if middle - half >= free_from {
                let how = Type { anchor: Anchor::Middle, ..Type::default() };
                self.svg.text(middle, self.bottom + 4.0 + SIZE + 1.0, &tick.label, how);
                free_from = middle + half + 6.0;
            }
        }
        let middle = (self.left + self.right) / 2.0;
        let half = width(x_title, SIZE, false) / 2.0;
        let middle = middle.clamp(half + 1.0, (COLUMN - half - 1.0).max(half + 1.0));
        self.svg.text(middle, x_title_y, x_title, Type { anchor: Anchor::Middle, ..Type::default() });
        let how = Type { anchor: Anchor::Middle, upright: true, ..Type::default() };
        self.svg.text(4.0 + SIZE * 0.8, (self.top + self.bottom) / 2.0, y_title, how);
    }

    fn end_names(&mut self, ends: &[(f64, &str, Style)]) {
        let wanted: Vec<f64> = ends.iter().map(|&(value, ..)| self.y(value)).collect();
        let placed = apart(&wanted, LINE, self.top + 4.0, self.bottom - 2.0);
        for ((&want, y), (_, name, style)) in wanted.iter().zip(placed).zip(ends) {
            let x = self.right + 4.0;
            if (y - want).abs() > 3.0 {
                self.svg.line((x - 2.0, want), (x + 5.0, y), style.colour, 0.6);
            }
            let how = Type { colour: style.text, bold: style.prominent, ..Type::default() };
            let name = shorten_middle(name, WIDEST_NAME, SIZE, style.prominent);
            self.svg.text(x + 7.0, y + SIZE * 0.36, &name, how);
        }
    }

    fn legend(&mut self, rows: &[LegendRow<'_>]) {
        for (row, items) in rows.iter().enumerate() {
            let y = 12.0 + row as f64 * (LINE + 1.5);
            for &((name, style, key), offset) in items {
                let x = self.left + offset;
                match key {
                    Key::Line => {
                        let ends = [(x, y), (x + KEY_LINE, y)];
                        self.svg.polyline(&ends, style.colour, style.width.max(1.4), style.dash, 1.0);
                    }
                    Key::Marker => {
                        let start = style.marker.element(x + 4.0, y, if style.prominent { 4.0 } else { 3.2 });
                        self.svg.shape(&format!("{start} fill=\"{}\"", style.colour), "");
                    }
                }
                let how = Type { colour: INK, bold: style.prominent, ..Type::default() };
                let name = shorten_middle(name, WIDEST_LEGEND_NAME, SIZE, style.prominent);
                self.svg.text(x + key_width(key), y + SIZE * 0.36, &name, how);
            }
        }
    }
}

/// The entries of a row, each with its distance from the left.
type LegendRow<'a> = Vec<(Entry<'a>, f64)>;

const KEY_LINE: f64 = 20.0;
const WIDEST_LEGEND_NAME: f64 = 240.0;

fn key_width(key: Key) -> f64 {
    match key {
        Key::Line => KEY_LINE + 5.0,
        Key::Marker => 12.0,
    }
}

/// Breaks entries into rows.
fn legend_rows<'a>(entries: &[Entry<'a>], room: f64) -> Vec<LegendRow<'a>> {
    let mut rows: Vec<LegendRow<'a>> = Vec::new();
    let mut used = f64::INFINITY;
    for &(name, style, key) in entries {
        let own = key_width(key) + width(name, SIZE, style.prominent).min(WIDEST_LEGEND_NAME);
        if used + own > room {
            rows.push(Vec::new());
            used = 0.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push(((name, style, key), used));
        }
        used += own + 14.0;
    }
    rows
}

/// Moves positions as little as possible (in squares) so that neighbours are at least `gap` apart, within
/// `low..=high`. Where that is too narrow for all, the gap shrinks.
pub(super) fn apart(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let count = wanted.len();
    let gap = if count > 1 { gap.min((high - low) / (count - 1) as f64) } else { gap };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    // Less its place's share of gaps, each position must be no smaller than the one before: isotonic regression.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (place, &index) in order.iter().enumerate() {
        let mut pool = (wanted[index] - place as f64 * gap, 1);
        while let Some(&(sum, size)) = pools.last()
            && sum / size as f64 >= pool.0 / pool.1 as f64
        {
            pool = (pool.0 + sum, pool.1 + size);
            pools.pop();
        }
        pools.push(pool);
    }
    let highest = high - gap * count.saturating_sub(1) as f64;
    let mut placed = vec![0.0; count];
    let mut place = 0;
    for (sum, size) in pools {
        let base = (sum / size as f64).min(highest).max(low);
        for _ in 0..size {
            placed[order[place]] = base + place as f64 * gap;
            place += 1;
        }
    }
    placed
}

/// At most about 1000 of the values, evenly, with the last: more than a column can show.
fn thin<T>(values: &[T]) -> impl Iterator<Item = &T> {
    let stride = values.len().div_ceil(1000).max(1);
    let last = values.len().saturating_sub(1);
    values
        .iter()
        .enumerate()
        .filter(move |(i, _)| i.is_multiple_of(stride) || *i == last)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_touch_are_moved_apart_and_stay_inside() {
        assert_eq!(apart(&[10.0, 50.0], 12.0, 0.0, 100.0), [10.0, 50.0]);
        assert_eq!(apart(&[50.0, 50.0], 12.0, 0.0, 100.0), [44.0, 56.0]);
        assert_eq!(apart(&[99.0, 98.0, 97.0], 12.0, 0.0, 100.0), [100.0, 88.0, 76.0]);
        let tight = apart(&[5.0; 11], 12.0, 0.0, 100.0);
        assert_eq!((tight[0], tight[10]), (0.0, 100.0));
        assert!(apart(&[], 12.0, 0.0, 100.0).is_empty());
    }

    #[test]
    fn a_legend_breaks_into_rows() {
        let style = Style::of_run(0);
        let entries = [("one", style, Key::Line), ("two", style, Key::Line), ("three", style, Key::Line)];
        assert_eq!(legend_rows(&entries, 300.0).len(), 1);
        assert_eq!(legend_rows(&entries, 60.0).len(), 3);
    }

    #[test]
    fn thinning_keeps_the_ends() {
        let values: Vec<u32> = (0..5003).collect();
        let kept: Vec<u32> = thin(&values).copied().collect();
        assert!(kept.len() <= 1002);
        assert_eq!((kept[0], kept[kept.len() - 1]), (0, 5002));
        assert_eq!(thin(&values[..900]).count(), 900);
    }
}
