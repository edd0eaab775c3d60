//! The report's tables.

use std::fmt::Write as _;

use super::read::{Algorithm, RunData, last_part};
use super::series::{Comparison, Point, mean_and_deviation};
use super::style::display_name;
use super::text::{bytes, decimal, duration, escape, percent, quantity};

/// What one algorithm came to in one run, from its rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) rounds: usize,
    /// Mean device accuracy of the last evaluated round.
    pub(super) last: Option<f64>,
    pub(super) std: Option<f64>,
    pub(super) worst_decile: Option<f64>,
    pub(super) mean_last_10: Option<f64>,
    /// With its round.
    pub(super) best: Option<(f64, u32)>,
    /// Mean accuracy before aggregation in the last round that has it.
    pub(super) before: Option<f64>,
    pub(super) bytes: f64,
    pub(super) seconds: f64,
    pub(super) images: f64,
    pub(super) failed: u64,
}

impl Outcome {
    pub(super) fn of(algorithm: &Algorithm) -> Self {
        let mut outcome = Self { rounds: algorithm.rounds.len(), ..Self::default() };
        let mut means = Vec::new();
        for r in &algorithm.rounds {
            outcome.bytes += r.bytes_down as f64 + r.bytes_up as f64;
            outcome.seconds += r.seconds;
            outcome.images += r.samples_trained as f64;
            outcome.failed += u64::from(r.failed);
            outcome.before = r.accuracy_local.map(|a| a.mean).or(outcome.before);
            if let Some(accuracy) = r.accuracy {
                means.push(accuracy.mean);
                (outcome.last, outcome.std) = (Some(accuracy.mean), Some(accuracy.std));
                outcome.worst_decile = Some(accuracy.worst_decile);
                if outcome.best.is_none_or(|(best, _)| accuracy.mean > best) {
                    outcome.best = Some((accuracy.mean, r.round));
                }
            }
        }
        let tail = &means[means.len().saturating_sub(10)..];
        outcome.mean_last_10 = (!tail.is_empty()).then(|| mean_and_deviation(tail).0);
        outcome
    }

    fn bytes_per_round(&self) -> f64 {
        self.bytes / self.rounds.max(1) as f64
    }

    fn images_per_second(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.images / self.seconds)
    }
}

/// A table of cells that are HTML already; the first `heads` cells of a row are its heading.
pub(super) struct Table {
    pub(super) class: &'static str,
    pub(super) caption: String,
    pub(super) columns: Vec<String>,
    pub(super) heads: usize,
    /// With the row's class.
    pub(super) rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    pub(super) fn html(&self) -> String {
        let mut out = String::from("<div class=\"scroll\"><table");
        if !self.class.is_empty() {
            let _ = write!(out, " class=\"{}\"", self.class);
        }
        out.push('>');
        if !self.caption.is_empty() {
            let _ = write!(out, "<caption>{}</caption>", self.caption);
        }
        out.push_str("<thead><tr>");
        for column in &self.columns {
            let _ = write!(out, "<th scope=\"col\">{column}</th>");
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for (class, row) in &self.rows {
            out.push_str("<tr");
            if !class.is_empty() {
                let _ = write!(out, " class=\"{class}\"");
            }
            out.push('>');
            for (i, cell) in row.iter().enumerate() {
                let _ = if i < self.heads {
                    write!(out, "<th scope=\"row\">{cell}</th>")
                } else {
                    write!(out, "<td>{cell}</td>")
                };
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
        out
    }
}

pub(super) const NONE: &str = "<span class=\"none\">–</span>";

pub(super) fn maybe(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), show)
}

/// Where every algorithm of every run ended.
pub(super) fn results(of: &Comparison<'_>) -> String {
    let several = of.runs.len() > 1;
    let mut columns: Vec<String> =
        ["Algorithm", "Last", "Std over devices", "Worst decile", "Mean of last 10"]
            .map(str::to_owned)
            .to_vec();
    columns.extend(
        ["Best&#8239;*", "Before aggregation", "Rounds", "Bytes per round", "Bytes", "Time", "Images/s"]
            .map(str::to_owned),
    );
    if several {
        columns.insert(0, "Run".to_owned());
    }
    let mut rows = Vec::new();
    for group in &of.groups {
        for &run in &group.runs {
            for algorithm in &of.runs[run].algorithms {
                let mut row = outcome_row(&Outcome::of(algorithm), &algorithm.name);
                if several {
                    row.insert(0, escape(&of.names[run]));
                }
                rows.push((if algorithm.name == "fedper" { "main" } else { "" }, row));
            }
        }
        if group.runs.len() > 1 {
            for &algorithm in &of.algorithms {
                let outcomes: Vec<Outcome> = group
                    .runs
                    .iter()
                    .flat_map(|&run| &of.runs[run].algorithms)
                    .filter(|a| a.name == algorithm)
                    .map(Outcome::of)
                    .collect();
                if !outcomes.is_empty() {
                    let class = if algorithm == "fedper" { "mean main" } else { "mean" };
                    let mut row = group_row(&outcomes, algorithm);
                    row.insert(
                        0,
                        format!("<em>{}, <span class=\"whole\">mean ± std</span></em>", escape(&group.label)),
                    );
                    rows.push((class, row));
                }
            }
        }
    }
    let heads = if several { 2 } else { 1 };
    let class = if several { "results several" } else { "results" };
    let table = Table { class, caption: String::new(), columns, heads, rows };
    let mut out = table.html();
    out.push_str(
        "<p class=\"note\">Accuracy in percent, the unweighted mean over devices, each on its own test samples. \
         <em>Last</em>: last evaluated round. <em>Worst decile</em>: mean over the worst-off tenth of the devices. \
         <em>Mean of last 10</em>: over the last ten evaluated rounds. <em>Before aggregation</em>: right after local training, \
         over the devices that trained in that round. <em>Bytes</em>: all messages, up and down. <em>Time</em> and \
         <em>images/s</em> (training samples) include evaluation.<br/>\
         * The best round is chosen on the test samples themselves: an upper bound, not a result.",
    );
    if of.over_seeds() {
        out.push_str(
            " <br/><em>Mean ± std</em>: over runs that differ only by seed; the standard deviation is that of a sample (n − 1).",
        );
    }
    out.push_str("</p>\n");
    out
}

fn name_cell(algorithm: &str) -> String {
    let shown = display_name(algorithm);
    if shown == algorithm {
        escape(&shown)
    } else {
        format!("<span title=\"{}\">{}</span>", escape(algorithm), escape(&shown))
    }
}

fn outcome_row(o: &Outcome, algorithm: &str) -> Vec<String> {
    let best = o.best.map_or_else(
        || NONE.to_owned(),
        |(best, round)| format!("{} <small>(round {round})</small>", percent(best)),
    );
    let rounds = match o.failed {
        0 => o.rounds.to_string(),
        failed => format!("{} <small>({failed} device failures)</small>", o.rounds),
    };
    vec![
        name_cell(algorithm),
        maybe(o.last, |v| format!("<strong>{}</strong>", percent(v))),
        maybe(o.std, percent),
        maybe(o.worst_decile, percent),
        maybe(o.mean_last_10, percent),
        best,
        maybe(o.before, percent),
        rounds,
        bytes(o.bytes_per_round()),
        bytes(o.bytes),
        duration(o.seconds),
        maybe(o.images_per_second(), quantity),
    ]
}

fn group_row(outcomes: &[Outcome], algorithm: &str) -> Vec<String> {
    let accuracy = |pick: fn(&Outcome) -> Option<f64>| {
        let values: Option<Vec<f64>> = outcomes.iter().map(pick).collect();
        values.map_or_else(
            || NONE.to_owned(),
            |values| {
                let (mean, deviation) = mean_and_deviation(&values);
                format!("{}&#8239;±&#8239;{}", percent(mean), percent(deviation))
            },
        )
    };
    let mean =
        |pick: fn(&Outcome) -> f64| mean_and_deviation(&outcomes.iter().map(pick).collect::<Vec<_>>()).0;
    let speeds: Option<Vec<f64>> = outcomes.iter().map(Outcome::images_per_second).collect();
    vec![
        name_cell(algorithm),
        format!("<strong>{}</strong>", accuracy(|o| o.last)),
        accuracy(|o| o.std),
        accuracy(|o| o.worst_decile),
        accuracy(|o| o.mean_last_10),
        accuracy(|o| o.best.map(|(best, _)| best)),
        accuracy(|o| o.before),
        decimal(mean(|o| o.rounds as f64), 1),
        bytes(mean(Outcome::bytes_per_round)),
        bytes(mean(|o| o.bytes)),
        duration(mean(|o| o.seconds)),
        maybe(speeds.map(|s| mean_and_deviation(&s).0), quantity),
    ]
}

/// The accuracy curves as numbers, at most some fifty rounds of them.
pub(super) fn rounds(of: &Comparison<'_>) -> String {
    const MOST: usize = 50;
    let curves: Vec<Vec<Point>> = of.series.iter().map(|s| s.accuracy()).collect();
    let mut all: Vec<u32> = curves.iter().flatten().map(|p| p.round).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() {
        return String::new();
    }
    let stride = all.len().div_ceil(MOST);
    let last = all[all.len() - 1];
    // Counted from the end, so that the last round is there.
    let shown: Vec<u32> = all.iter().rev().step_by(stride).rev().copied().collect();
    let mut columns = vec!["Round".to_owned()];
    columns.extend(of.series.iter().map(|s| escape(&s.label)));
    let rows = shown
        .iter()
        .map(|&round| {
            let mut row = vec![round.to_string()];
            row.extend(curves.iter().map(|curve| {
                let found = curve.binary_search_by_key(&round, |p| p.round).ok().map(|i| curve[i]);
                found.map_or_else(
                    || NONE.to_owned(),
                    |p| format!("{}&#8239;±&#8239;{}", percent(p.mean), percent(p.spread)),
                )
            }));
            ("", row)
        })
        .collect();
    let caption = if stride > 1 {
        format!(
            "Mean accuracy ± standard deviation in percent, every {stride} evaluated rounds up to round {last}."
        )
    } else {
        "Mean accuracy ± standard deviation in percent, at every evaluated round.".to_owned()
    };
    Table { class: "rounds", caption, columns, heads: 1, rows }.html()
}

/// A run's configuration, a table for each section.
pub(super) fn configuration(run: &RunData) -> String {
    let section = |key: &str| key.rsplit_once('.').map_or(String::new(), |(section, _)| section.to_owned());
    let mut out = String::from("<div class=\"sections\">\n");
    let sections = run.config.chunk_by(|a, b| section(&a.0) == section(&b.0));
    // Long sections are broken, so that they fill the page's columns.
    for settings in sections.flat_map(|settings| settings.chunks(12)) {
        let rows = settings
            .iter()
            .map(|(key, value)| ("", vec![format!("<code>{}</code>", escape(last_part(key))), escape(value)]))
            .collect();
        let caption = match section(&settings[0].0) {
            name if name.is_empty() => String::new(),
            name => format!("<code>[{}]</code>", escape(&name)),
        };
        let columns = vec!["Key".to_owned(), "Value".to_owned()];
        out.push_str(&Table { class: "config", caption, columns, heads: 1, rows }.html());
    }
    out.push_str("</div>\n");
    out
}

/// The settings in which runs differ: a row for each run.
pub(super) fn differences(of: &Comparison<'_>) -> String {
    let keys = of.differing_keys();
    if keys.is_empty() {
        return "<p>All runs have one configuration.</p>\n".to_owned();
    }
    let mut columns = vec!["Run".to_owned()];
    columns.extend(keys.iter().map(|key| format!("<code>{}</code>", escape(key))));
    let rows = of
        .runs
        .iter()
        .zip(&of.names)
        .map(|(run, name)| {
            let mut row = vec![escape(name)];
            row.extend(keys.iter().map(|key| {
                let value = run.config.iter().find(|(k, _)| k == key);
                value.map_or_else(|| NONE.to_owned(), |(_, value)| escape(value))
            }));
            ("", row)
        })
        .collect();
    let caption = "Settings in which the runs differ.".to_owned();
    Table { class: "config", caption, columns, heads: 1, rows }.html()
}

/// What made each run: program, machine, seed, time.
pub(super) fn provenance(of: &Comparison<'_>) -> String {
    let mut columns: Vec<String> =
        ["Version", "Commit", "CPU", "Workers", "Seed", "Time", "Peak memory", "State"]
            .map(str::to_owned)
            .to_vec();
    let several = of.runs.len() > 1;
    if several {
        columns.insert(0, "Run".to_owned());
    }
    let rows = of
        .runs
        .iter()
        .zip(&of.names)
        .map(|(run, name)| {
            let s = run.summary.as_ref();
            let text = |value: Option<String>| value.map_or_else(|| NONE.to_owned(), |v| escape(&v));
            let mut row = vec![
                text(s.map(|s| s.version.clone())),
                text(s.and_then(|s| s.commit.clone())),
                text(s.map(|s| s.cpu.clone())),
                text(s.map(|s| s.workers.to_string()).or_else(|| run.setting("workers").map(str::to_owned))),
                text(run.seed()),
                text(s.map(|s| duration(s.seconds))),
                text(s.and_then(|s| s.peak_rss_bytes).map(|b| bytes(b as f64))),
                if run.complete() { "complete" } else { "not complete" }.to_owned(),
            ];
            if several {
                row.insert(0, escape(name));
            }
            ("", row)
        })
        .collect();
    let heads = usize::from(several);
    Table { class: "facts", caption: String::new(), columns, heads, rows }.html()
}
