//! Axes: a range of values, where a value lies in it, and the ticks that a reader can name.

use super::text;

/// A value worth a label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) value: f64,
    pub(super) label: String,
}

/// A range of values with its ticks. Knows nothing of pixels.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    min: f64,
    max: f64,
    log: bool,
    pub(super) ticks: Vec<Tick>,
}

impl Axis {
    /// Where a value lies: 0 at the low end, 1 at the high end; values outside are moved to the nearer end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let (min, max, value) = if self.log {
            (self.min.log10(), self.max.log10(), value.max(self.min).log10())
        } else {
            (self.min, self.max, value)
        };
        ((value - min) / (max - min)).clamp(0.0, 1.0)
    }

    /// The low end.
    pub(super) fn min(&self) -> f64 {
        self.min
    }

    /// The high end.
    pub(super) fn max(&self) -> f64 {
        self.max
    }

    /// Whether equal ratios, not differences, are equally far apart.
    pub(super) fn is_log(&self) -> bool {
        self.log
    }

    /// Rounds `first..=last`, labelled at whole rounds only.
    pub(super) fn rounds(first: u32, last: u32) -> Self {
        let (first, last) = (f64::from(first), f64::from(last.max(first)));
        if first == last {
            return Self { min: first - 0.5, max: last + 0.5, log: false, ticks: vec![whole(first)] };
        }
        let step = [1.0, 2.0, 5.0]
            .into_iter()
            .cycle()
            .zip((0..30).map(|i| 10f64.powi(i / 3)))
            .map(|(m, decade)| m * decade)
            .find(|step| (last - first) / step <= 6.0)
            .unwrap_or(last - first);
        let mut ticks = multiples(step, first, last);
        // The first round is a real round and zero is not, so it gets its label where there is room.
        if ticks.first().is_none_or(|tick| tick - first > 0.6 * step) {
            ticks.insert(0, first);
        }
        Self { min: first, max: last, log: false, ticks: ticks.into_iter().map(whole).collect() }
    }

    /// Fractions that cover `low..=high`, labelled in percent without the sign.
    pub(super) fn percent(low: f64, high: f64) -> Self {
        let (low, high) = (low.clamp(0.0, 1.0), high.clamp(0.0, 1.0));
        let (low, high) = if high - low < 0.02 { (low - 0.02, high + 0.02) } else { (low, high) };
        let step = [0.01, 0.02, 0.05, 0.1].into_iter().find(|step| (high - low) / step <= 6.0).unwrap_or(0.2);
        let min = ((low / step + 1e-9).floor() * step).max(0.0);
        let max = ((high / step - 1e-9).ceil() * step).min(1.0);
        let ticks = multiples(step, min, max)
            .into_iter()
            .map(|value| Tick { value, label: text::decimal(value * 100.0, 0) })
            .collect();
        Self { min, max, log: false, ticks }
    }

    /// Values from zero to at least `high`.
    pub(super) fn from_zero(high: f64) -> Self {
        let high = if high > 0.0 { high } else { 1.0 };
        let step = nice_step(high, 5.0);
        let max = (high / step - 1e-9).ceil() * step;
        let places = (-step.log10().floor()).max(0.0) as usize;
        let label = |value: f64| if value == 0.0 { "0".to_owned() } else { format!("{value:.places$}") };
        let ticks =
            multiples(step, 0.0, max).into_iter().map(|value| Tick { value, label: label(value) }).collect();
        Self { min: 0.0, max, log: false, ticks }
    }

    /// Bytes `low..=high`, with the unit that the axis' title should name. Over more than four decades each label has
    /// its own unit.
    pub(super) fn bytes(low: f64, high: f64) -> (Self, Option<&'static str>) {
        let mut axis = Self::log_or_linear(low, high, 5.0, text::bytes);
        if axis.log && high / low > 1e4 {
            return (axis, None);
        }
        let (divisor, unit) = text::byte_unit(if axis.log { (low * high).sqrt() } else { high });
        for tick in &mut axis.ticks {
            tick.label = text::decimal(tick.value / divisor, 6);
        }
        if !axis.log {
            // Equal steps have equal decimals.
            let decimals = |tick: &Tick| tick.label.split_once('.').map_or(0, |(_, places)| places.len());
            let places = axis.ticks.iter().map(decimals).max().unwrap_or(0);
            for tick in axis.ticks.iter_mut().filter(|tick| tick.value > 0.0) {
                tick.label = format!("{:.places$}", tick.value / divisor);
            }
        }
        (axis, Some(unit))
    }

    /// Positive values `low..=high`: a log axis, with ticks labelled by `label`, where they span at least
    /// `least_ratio`, else one from zero.
    pub(super) fn log_or_linear(low: f64, high: f64, least_ratio: f64, label: fn(f64) -> String) -> Self {
        if low > 0.0 && high / low >= least_ratio {
            return Self { min: low, max: high, log: true, ticks: log_ticks(low, high, label) };
        }
        Self::from_zero(high)
    }

    /// A row for each label, the first on top.
    pub(super) fn rows(labels: &[String]) -> Self {
        let ticks = labels
            .iter()
            .enumerate()
            .map(|(i, label)| Tick { value: i as f64, label: label.clone() })
            .collect();
        Self { min: labels.len() as f64 - 0.5, max: -0.5, log: false, ticks }
    }

    /// An axis on which nothing is measured.
    pub(super) fn blank() -> Self {
        Self { min: 0.0, max: 1.0, log: false, ticks: Vec::new() }
    }
}

fn whole(value: f64) -> Tick {
    Tick { value, label: text::decimal(value, 0) }
}

/// 1, 2 or 5 times a power of ten, so that about `target` steps make `span`, and no more.
pub(super) fn nice_step(span: f64, target: f64) -> f64 {
    let rough = span / target;
    let decade = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * decade)
        .find(|&step| span / step <= target * (1.0 + 1e-9))
        .unwrap_or(span)
}

/// The multiples of `step` within `min..=max`, each computed from an integer so that errors do not add up.
fn multiples(step: f64, min: f64, max: f64) -> Vec<f64> {
    let first = (min / step - 1e-6).ceil() as i64;
    let last = (max / step + 1e-6).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

fn log_ticks(low: f64, high: f64, label: fn(f64) -> String) -> Vec<Tick> {
    const MOST: usize = 7;
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let within = |values: Vec<f64>| -> Vec<f64> {
        values.into_iter().filter(|&v| v >= low * (1.0 - 1e-9) && v <= high * (1.0 + 1e-9)).collect()
    };
    let every = |multiples: &[f64], stride: usize| {
        within(
            decades
                .clone()
                .filter(|d| d.rem_euclid(stride as i32) == 0)
                .flat_map(|d| multiples.iter().map(move |m| m * 10f64.powi(d)))
                .collect(),
        )
    };
    let mut values = every(&[1.0, 2.0, 5.0], 1);
    if values.len() > MOST {
        values = (1..=12).map(|stride| every(&[1.0], stride)).find(|v| v.len() <= MOST).unwrap_or_default();
    }
    if values.is_empty() {
        values = vec![low, high];
    }
    values.into_iter().map(|value| Tick { value, label: label(value) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.label.as_str()).collect()
    }

    #[test]
    fn rounds_are_labelled_at_whole_rounds() {
        assert_eq!(labels(&Axis::rounds(1, 20)), ["1", "5", "10", "15", "20"]);
        assert_eq!(labels(&Axis::rounds(1, 4)), ["1", "2", "3", "4"]);
        assert_eq!(labels(&Axis::rounds(1, 100)), ["1", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&Axis::rounds(1, 1)), ["1"]);
        assert_eq!(Axis::rounds(1, 1).at(1.0), 0.5);
        assert!(labels(&Axis::rounds(1, u32::MAX)).len() <= 8);
    }

    #[test]
    fn percentages_stay_between_0_and_100() {
        let axis = Axis::percent(0.13, 0.97);
        assert_eq!(labels(&axis), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&Axis::percent(0.81, 0.86)), ["81", "82", "83", "84", "85", "86"]);
        assert_eq!(labels(&Axis::percent(1.0, 1.0)), ["98", "99", "100"]);
        assert_eq!(labels(&Axis::percent(0.0, 0.0)), ["0", "1", "2"]);
        assert_eq!(axis.at(2.0), 1.0);
        assert_eq!(axis.at(-2.0), 0.0);
    }

    #[test]
    fn a_log_axis_has_equal_decades_and_few_ticks() {
        let axis = Axis::log_or_linear(1e3, 1e7, 5.0, text::bytes);
        assert!((axis.at(1e5) - 0.5).abs() < 1e-12);
        assert_eq!(labels(&axis), ["1 kB", "10 kB", "100 kB", "1 MB", "10 MB"]);
        let short = Axis::log_or_linear(3e6, 6e7, 5.0, text::bytes);
        assert_eq!(labels(&short), ["5 MB", "10 MB", "20 MB", "50 MB"]);
        let wide = Axis::log_or_linear(1.0, 1e18, 5.0, text::bytes);
        assert!(wide.ticks.len() <= 7 && wide.ticks.len() >= 4, "{:?}", wide.ticks);
        assert!(!Axis::log_or_linear(0.0, 1e6, 5.0, text::bytes).is_log());
        assert!(!Axis::log_or_linear(9e5, 1e6, 5.0, text::bytes).is_log());
    }

    #[test]
    fn an_axis_of_bytes_names_its_unit_once() {
        let (axis, unit) = Axis::bytes(3e8, 5.2e9);
        assert_eq!((labels(&axis), unit), (vec!["0.5", "1", "2", "5"], Some("GB")));
        let (axis, unit) = Axis::bytes(1.1e9, 1.3e9);
        assert_eq!((labels(&axis), unit), (vec!["0", "0.5", "1.0", "1.5"], Some("GB")));
        let (axis, unit) = Axis::bytes(1e3, 1e9);
        assert_eq!((axis.ticks[0].label.as_str(), unit), ("1 kB", None));
    }

    #[test]
    fn an_axis_from_zero_holds_its_greatest_value() {
        for high in [1e-9, 0.03, 0.99, 1.0, 2.3, 7.0, 1e12] {
            let axis = Axis::from_zero(high);
            assert!(axis.max() >= high * (1.0 - 1e-9) && axis.max() <= 2.0 * high, "{high}: {}", axis.max());
            assert!((2..=7).contains(&axis.ticks.len()), "{high}: {:?}", axis.ticks);
        }
        assert_eq!(labels(&Axis::from_zero(2.3)), ["0", "0.5", "1.0", "1.5", "2.0", "2.5"]);
        assert_eq!(Axis::from_zero(0.0).max(), 1.0);
    }
}
