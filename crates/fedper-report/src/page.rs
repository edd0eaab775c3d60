//! The HTML page.

use std::fmt::Write as _;

use super::figures::Figure;
use super::newcomers;
use super::read::{Algorithm, RunData};
use super::series::Comparison;
use super::tables;
use super::text::{counted, escape};

pub(super) const CSS: &str = include_str!("page.css");

/// The whole page. It refers to nothing outside itself, and is well-formed XML as well as HTML.
pub(super) fn page(of: &Comparison<'_>, figures: &[Figure]) -> String {
    let title = match &of.names[..] {
        [name] => name.clone(),
        names => counted(names.len(), "run"),
    };
    let mut out = String::new();
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{} – fedper report</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n",
        escape(&title)
    );
    header(&mut out, of, &title);
    let _ = write!(out, "<section>\n<h2>Results</h2>\n{}</section>\n", tables::results(of));
    out.push_str("<section>\n<h2>Figures</h2>\n<div class=\"figures\">\n");
    for figure in figures {
        let _ = write!(
            out,
            "<figure id=\"figure-{}\">\n<h3>{}</h3>\n{}<figcaption>{}</figcaption>\n</figure>\n",
            figure.name,
            escape(figure.heading),
            figure.svg,
            escape(&figure.caption)
        );
    }
    out.push_str("</div>\n");
    let rounds = tables::rounds(of);
    if !rounds.is_empty() {
        let _ =
            write!(out, "<details>\n<summary>Accuracy by round, as numbers</summary>\n{rounds}</details>\n");
    }
    out.push_str("</section>\n");
    newcomers::section(&mut out, of);
    configuration(&mut out, of);
    repeat(&mut out, of);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn header(out: &mut String, of: &Comparison<'_>, title: &str) {
    let _ = write!(out, "<header>\n<h1>{}</h1>\n", escape(title));
    if let [run] = of.runs {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", facts(run));
    } else {
        let names: Vec<String> = of.names.iter().map(|name| format!("<b>{}</b>", escape(name))).collect();
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", names.join(", "));
    }
    let open: Vec<String> = of
        .runs
        .iter()
        .zip(&of.names)
        .filter(|(run, _)| !run.complete())
        .map(|(run, name)| {
            let done: Vec<String> = run
                .algorithms
                .iter()
                .map(|a| format!("{}: {}", escape(&a.name), counted(a.rounds.len(), "round")))
                .collect();
            let done = if done.is_empty() { "no round yet".to_owned() } else { done.join(", ") };
            format!("{} ({done})", escape(name))
        })
        .collect();
    if !open.is_empty() {
        let _ = writeln!(
            out,
            "<p class=\"warning\">Not complete, so these are not final results: {}.</p>",
            open.join("; ")
        );
    }
    early(out, of);
    out.push_str("</header>\n");
}

/// What a reader should know before the figures: who ended before its last round, who is in no mean, notes on the data.
fn early(out: &mut String, of: &Comparison<'_>) {
    for (run, name) in of.runs.iter().zip(&of.names) {
        for algorithm in &run.algorithms {
            if let Some(reason) = algorithm.rounds.last().and_then(|round| round.ended.as_ref()) {
                let _ = writeln!(
                    out,
                    "<p class=\"warning\">{}: {} ended before its time, and its results are those before: {}.</p>",
                    escape(name),
                    escape(&algorithm.name),
                    escape(reason)
                );
            }
        }
        let last = |a: &Algorithm| a.rounds.iter().rev().find(|r| r.accuracy.is_some()).map(|r| r.untested);
        let untested = run.algorithms.iter().filter_map(last).max().unwrap_or(0);
        if untested > 0 {
            let _ = writeln!(
                out,
                "<p class=\"note\">{}: {} without test images, which no mean counts.</p>",
                escape(name),
                counted(untested as usize, "device")
            );
        }
        let Some(summary) = &run.summary else { continue };
        for note in summary.all_notes() {
            let _ = writeln!(out, "<p class=\"note\">{}: {}.</p>", escape(name), escape(&note));
        }
        let ended = summary.algorithms.iter().filter(|(_, a)| a.stopped_early);
        let ended: Vec<String> =
            ended.map(|(algorithm, a)| format!("{} after round {}", escape(algorithm), a.rounds)).collect();
        if !ended.is_empty() {
            let _ = writeln!(
                out,
                "<p class=\"note\">{}: ended early on a plateau of the test accuracy, so its last round was chosen on \
                 test samples: {}.</p>",
                escape(name),
                ended.join(", ")
            );
        }
    }
}

/// The run in a line.
fn facts(run: &RunData) -> String {
    let mut parts = Vec::new();
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            parts.push(format!("{name} <b>{}</b>", escape(&value)));
        }
    };
    let dataset = run.partition.as_ref().map(|p| p.dataset.clone());
    fact("dataset", dataset.or_else(|| run.setting("dataset").map(str::to_owned)));
    fact("model", run.setting("model").map(str::to_owned));
    fact("devices", run.partition.as_ref().map(|p| p.devices.len().to_string()));
    fact("rounds", run.algorithms.iter().map(|a| a.rounds.len()).max().map(|n| n.to_string()));
    fact("seed", run.seed());
    fact("fedper", run.summary.as_ref().map(|s| s.version.clone()));
    parts.join(" · ")
}

fn configuration(out: &mut String, of: &Comparison<'_>) {
    out.push_str("<section>\n<h2>Configuration</h2>\n");
    if let [run] = of.runs {
        out.push_str(&tables::configuration(run));
    } else {
        out.push_str(&tables::differences(of));
        for (run, name) in of.runs.iter().zip(&of.names) {
            let _ = write!(
                out,
                "<details>\n<summary>Configuration of {}</summary>\n{}</details>\n",
                escape(name),
                tables::configuration(run)
            );
        }
    }
    out.push_str("</section>\n");
}

fn repeat(out: &mut String, of: &Comparison<'_>) {
    let _ = write!(out, "<section>\n<h2>How to repeat it</h2>\n");
    for (run, name) in of.runs.iter().zip(&of.names) {
        match &run.summary {
            Some(summary) => {
                let _ = writeln!(out, "<pre><code>{}</code></pre>", escape(&summary.command));
            }
            None => {
                let _ = writeln!(
                    out,
                    "<p>{}: <code>fedper run --config config.toml</code>, on the configuration above.</p>",
                    escape(name)
                );
            }
        }
    }
    let _ = writeln!(out, "{}</section>", tables::provenance(of));
}
