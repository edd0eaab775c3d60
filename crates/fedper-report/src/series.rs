//! From runs to the series that figures and tables show.
//!
//! Runs whose configurations differ by nothing but the seed form a group, and a group is shown as one: the mean over its
//! runs, and the standard deviation over its runs as the band. A group of one run shows the mean and the standard
//! deviation over devices.

use std::collections::BTreeMap;

use super::chart::{Entry, Key};
use super::read::{Algorithm, RunData, distinct_names, last_part};
use super::style::{Style, display_name};
use fedper_records::RoundRecord;

/// Keys that do not change what a run computes, apart from the seed.
const IGNORED: [&str; 6] = ["seed", "out", "workers", "quiet", "json", "resume"];

/// Everything a report is about.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) runs: &'a [RunData],
    /// The runs' names, each only once.
    pub(super) names: Vec<String>,
    pub(super) groups: Vec<Group>,
    pub(super) series: Vec<Series<'a>>,
    /// Names of all algorithms, `fedper` first.
    pub(super) algorithms: Vec<&'a str>,
    /// How papers write them.
    titles: Vec<String>,
}

/// Runs that differ only by their seed.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) label: String,
    /// Places in [`Comparison::runs`].
    pub(super) runs: Vec<usize>,
}

/// One algorithm in one group of runs.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) label: String,
    pub(super) style: Style,
    pub(super) members: Vec<&'a Algorithm>,
}

/// A value at a round, with its spread over devices or runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) round: u32,
    pub(super) mean: f64,
    pub(super) spread: f64,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(runs: &'a [RunData]) -> Self {
        let names = distinct_names(runs);
        let mut keys: Vec<Vec<(&str, &str)>> = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        for (place, run) in runs.iter().enumerate() {
            let key = group_key(run);
            match keys.iter().position(|known| *known == key) {
                Some(group) => groups[group].runs.push(place),
                None => {
                    keys.push(key);
                    groups.push(Group { label: String::new(), runs: vec![place] });
                }
            }
        }
        for group in &mut groups {
            group.label = group_label(&group.runs.iter().map(|&run| names[run].as_str()).collect::<Vec<_>>());
        }
        let mut algorithms: Vec<&str> = Vec::new();
        for algorithm in runs.iter().flat_map(|run| &run.algorithms) {
            if !algorithms.contains(&algorithm.name.as_str()) {
                algorithms.push(&algorithm.name);
            }
        }
        algorithms.sort_by_key(|&name| name != "fedper");
        let mut series = Vec::new();
        for (a, &algorithm) in algorithms.iter().enumerate() {
            for (g, group) in groups.iter().enumerate() {
                let members: Vec<&Algorithm> = group
                    .runs
                    .iter()
                    .flat_map(|&run| runs[run].algorithms.iter().filter(|found| found.name == algorithm))
                    .collect();
                if members.is_empty() {
                    continue;
                }
                let name = display_name(algorithm);
                let (label, style) = match (groups.len(), algorithms.len()) {
                    (1, _) => (name, Style::of_algorithm(&algorithms, a)),
                    (_, 1) => (group.label.clone(), Style::of_run(g)),
                    _ => (format!("{name}, {}", group.label), Style::of_algorithm(&algorithms, a).dashed(g)),
                };
                series.push(Series { label, style, members });
            }
        }
        let titles = algorithms.iter().map(|name| display_name(name)).collect();
        Self { runs, names, groups, series, algorithms, titles }
    }

    /// Whether any series stands for several runs.
    pub(super) fn over_seeds(&self) -> bool {
        self.series.iter().any(Series::over_seeds)
    }

    /// Names for several algorithms in several groups: too many to name each line, so colours stand for algorithms
    /// and dashes for groups.
    pub(super) fn shared_legend(&self) -> Option<Vec<Vec<Entry<'_>>>> {
        if self.groups.len() < 2 || self.algorithms.len() < 2 {
            return None;
        }
        let titles = self.titles.iter().enumerate();
        let algorithms = titles
            .map(|(i, title)| (title.as_str(), Style::of_algorithm(&self.algorithms, i), Key::Line))
            .collect();
        let groups = self.groups.iter().enumerate();
        let groups =
            groups.map(|(i, group)| (group.label.as_str(), Style::plain().dashed(i), Key::Line)).collect();
        Some(vec![algorithms, groups])
    }

    /// What the band about a curve is, as a caption says it.
    pub(super) fn band(&self) -> &'static str {
        if self.series.iter().all(Series::over_seeds) {
            "Line: mean over runs (of the mean over devices). Band: ± one standard deviation over runs; thin lines: single runs."
        } else if self.over_seeds() {
            "Line: mean over devices, and over runs that differ only by seed. Band: ± one standard deviation over those runs, or over devices for a single run."
        } else {
            "Line: mean over devices. Band: ± one standard deviation over devices."
        }
    }

    /// The configuration keys whose values differ between runs, in the first run's order.
    pub(super) fn differing_keys(&self) -> Vec<&'a str> {
        let mut keys: Vec<&str> = Vec::new();
        for run in self.runs {
            for (key, _) in &run.config {
                if !keys.contains(&key.as_str()) {
                    keys.push(key);
                }
            }
        }
        let value = |run: &'a RunData, key: &str| run.config.iter().find(|(k, _)| k == key).map(|(_, v)| v);
        keys.retain(|key| {
            let mut values = self.runs.iter().map(|run| value(run, key));
            let first = values.next();
            !values.all(|v| Some(v) == first)
        });
        keys
    }
}

impl<'a> Series<'a> {
    /// Whether it stands for several runs.
    pub(super) fn over_seeds(&self) -> bool {
        self.members.len() > 1
    }

    /// Each run by itself, if it stands for several.
    pub(super) fn single_runs(&self) -> Vec<Series<'a>> {
        if !self.over_seeds() {
            return Vec::new();
        }
        self.members
            .iter()
            .map(|&member| Series { label: String::new(), members: vec![member], ..*self })
            .collect()
    }

    /// Accuracy at every round that every member has evaluated.
    pub(super) fn accuracy(&self) -> Vec<Point> {
        self.over_rounds(|r| r.accuracy.map(|a| (a.mean, a.std)))
    }

    /// Accuracy before aggregation.
    pub(super) fn accuracy_local(&self) -> Vec<Point> {
        self.over_rounds(|r| r.accuracy_local.map(|a| (a.mean, a.std)))
    }

    /// Training loss; its spread is over runs only.
    pub(super) fn train_loss(&self) -> Vec<Point> {
        self.over_rounds(|r| r.train_loss.map(|loss| (loss, 0.0)))
    }

    /// Bytes sent up to and including each evaluated round, with the accuracy there.
    pub(super) fn bytes(&self) -> Vec<(f64, Point)> {
        let totals: Vec<BTreeMap<u32, f64>> = self.members.iter().map(|member| cumulative(member)).collect();
        self.accuracy()
            .into_iter()
            .map(|point| (totals.iter().map(|t| t[&point.round]).sum::<f64>() / totals.len() as f64, point))
            .collect()
    }

    fn over_rounds(&self, value: impl Fn(&RoundRecord) -> Option<(f64, f64)>) -> Vec<Point> {
        let mut at: BTreeMap<u32, Vec<(f64, f64)>> = BTreeMap::new();
        for record in self.members.iter().flat_map(|member| &member.rounds) {
            if let Some(found) = value(record) {
                at.entry(record.round).or_default().push(found);
            }
        }
        at.into_iter()
            .filter(|(_, values)| values.len() == self.members.len())
            .map(|(round, values)| {
                if let [(mean, spread)] = values[..] {
                    return Point { round, mean, spread };
                }
                let (mean, spread) = mean_and_deviation(&values.iter().map(|v| v.0).collect::<Vec<_>>());
                Point { round, mean, spread }
            })
            .collect()
    }
}

/// Mean and standard deviation of a sample (divided by n - 1; 0 for a single value).
pub(super) fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, if values.len() < 2 { 0.0 } else { (squares / (n - 1.0)).sqrt() })
}

fn cumulative(algorithm: &Algorithm) -> BTreeMap<u32, f64> {
    let mut total = 0.0;
    algorithm
        .rounds
        .iter()
        .map(|r| {
            total += r.bytes_down as f64 + r.bytes_up as f64;
            (r.round, total)
        })
        .collect()
}

fn group_key(run: &RunData) -> Vec<(&str, &str)> {
    let mut key: Vec<(&str, &str)> = run
        .config
        .iter()
        .filter(|(key, _)| !IGNORED.contains(&last_part(key)))
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    key.sort_unstable();
    key
}

/// A lone run's name; what several runs' names begin with, and how many they are.
fn group_label(names: &[&str]) -> String {
    let Some((first, rest)) = names.split_first() else { return String::new() };
    if rest.is_empty() {
        return (*first).to_owned();
    }
    let mut common: &str = first;
    while !rest.iter().all(|name| name.starts_with(common)) {
        common = common.char_indices().next_back().map_or("", |(end, _)| &common[..end]);
    }
    let common = common.trim_end_matches(|c: char| !c.is_alphanumeric());
    let common =
        common.strip_suffix("seed").unwrap_or(common).trim_end_matches(|c: char| !c.is_alphanumeric());
    if common.is_empty() {
        format!("{first} + {} more", rest.len())
    } else {
        format!("{common} ({} runs)", names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_named_by_what_their_runs_share() {
        assert_eq!(group_label(&["a"]), "a");
        assert_eq!(group_label(&["kp1-seed1", "kp1-seed2", "kp1-seed30"]), "kp1 (3 runs)");
        assert_eq!(group_label(&["x", "y"]), "x + 1 more");
        assert_eq!(group_label(&["été-1", "êté-1"]), "été-1 + 1 more");
    }

    #[test]
    fn deviation_over_runs_is_that_of_a_sample() {
        assert_eq!(mean_and_deviation(&[0.5]), (0.5, 0.0));
        let (mean, deviation) = mean_and_deviation(&[1.0, 2.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-12 && (deviation - 1.0).abs() < 1e-12);
    }
}
