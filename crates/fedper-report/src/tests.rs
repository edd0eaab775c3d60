//! The report as a whole, on synthetic run directories.

use std::fs;
use std::path::{Path, PathBuf};

use super::synthetic::Synthetic;
use super::text::width;
use super::{ReportError, RunData, write};

/// Kinds of runs a report must be readable for.
fn gallery() -> Vec<(&'static str, Vec<Synthetic>)> {
    let d = Synthetic::default;
    let long = [
        "Caenorhabditis elegans",
        "motorcycle with sidecar & rider",
        "<script>alert(1)</script>",
        "x",
        "日本語のクラス名前",
    ];
    let many_classes: Vec<String> = (0..100).map(|i| format!("superclass {}", i * 7)).collect();
    let seeds = |personal_layers, seed| Synthetic { personal_layers, seed, ..d() };
    let sweep =
        |personal_layers| Synthetic { personal_layers, algorithms: vec!["fedper"], rounds: 60, ..d() };
    vec![
        ("ten", vec![d()]),
        (
            "twenty",
            vec![Synthetic { devices: 20, rounds: 60, algorithms: vec!["fedper", "fedavg", "local"], ..d() }],
        ),
        ("hundred", vec![Synthetic { devices: 100, rounds: 100, classes_per_device: 2, ..d() }]),
        ("one-round", vec![Synthetic { rounds: 1, ..d() }]),
        ("no-bytes", vec![Synthetic { bytes_per_device: 0, algorithms: vec!["local"], ..d() }]),
        ("rarely-evaluated", vec![Synthetic { rounds: 200, eval_every: 25, ..d() }]),
        ("long-names", vec![Synthetic { classes: long.map(str::to_owned).to_vec(), ..d() }]),
        (
            "many-devices",
            vec![Synthetic { devices: 50_000, rounds: 30, eval_every: 30, bytes_per_device: 400, ..d() }],
        ),
        (
            "many-classes",
            vec![Synthetic {
                devices: 120,
                classes: many_classes,
                classes_per_device: 20,
                rounds: 30,
                ..d()
            }],
        ),
        (
            "many-algorithms",
            vec![Synthetic {
                algorithms: vec![
                    "fedper",
                    "fedavg",
                    "local",
                    "fedavg-ft",
                    "fedprox",
                    "fedrep",
                    "ditto",
                    "fedbn",
                    "a-method-of-ones-own",
                ],
                ..d()
            }],
        ),
        ("going-on", vec![Synthetic { complete: false, rounds: 3, ..d() }]),
        ("seeds", (1..=3).map(|seed| seeds(1, seed)).collect()),
        ("sweep", (1..=4).map(sweep).collect()),
        (
            "long-run-names",
            vec![
                Synthetic {
                    name: Some("cifar10-mobilenet-v1-four-classes-a-device-one-personal-layer"),
                    ..seeds(1, 1)
                },
                Synthetic {
                    name: Some("cifar10-mobilenet-v1-four-classes-a-device-two-personal-layers"),
                    ..seeds(2, 1)
                },
            ],
        ),
        (
            "long-run-names-alone",
            vec![
                Synthetic { name: Some("cifar10-mobilenet-v1-four-classes-a-device-kp1"), ..sweep(1) },
                Synthetic { name: Some("cifar10-mobilenet-v1-four-classes-a-device-kp2"), ..sweep(2) },
            ],
        ),
        (
            "imagenet",
            vec![Synthetic {
                classes: (0..1000).map(|i| format!("n{:08}", 1_440_764 + 31 * i)).collect(),
                classes_per_device: 50,
                devices: 40,
                ..d()
            }],
        ),
        ("mixed", vec![seeds(1, 1), seeds(1, 2), seeds(2, 1), seeds(3, 1)]),
    ]
}

fn make(name: &str, runs: &[Synthetic], folder: &Path) -> (Vec<RunData>, Vec<PathBuf>) {
    let data: Vec<RunData> = runs
        .iter()
        .map(|run| {
            let dir = folder.join(
                run.name.map_or_else(|| format!("kp{}-seed{}", run.personal_layers, run.seed), str::to_owned),
            );
            run.write(&dir);
            RunData::read(&dir).unwrap()
        })
        .collect();
    let paths = write(&data, &folder.join(name)).unwrap();
    (data, paths)
}

/// The smallest box about a text element: left, top, right, bottom.
fn text_box(text: roxmltree::Node<'_, '_>) -> (f64, f64, f64, f64) {
    let number = |name: &str| text.attribute(name).map(|v| v.parse::<f64>().unwrap());
    let size = number("font-size").unwrap_or(super::svg::SIZE);
    let wide = width(text.text().unwrap_or_default(), size, text.attribute("font-weight").is_some());
    let (x, y) = (number("x").unwrap(), number("y").unwrap());
    let start = match text.attribute("text-anchor") {
        Some("middle") => -wide / 2.0,
        Some("end") => -wide,
        _ => 0.0,
    };
    if text.attribute("transform").is_some() {
        (x - 0.75 * size, y - start - wide, x + 0.2 * size, y - start)
    } else {
        (x + start, y - 0.75 * size, x + start + wide, y + 0.2 * size)
    }
}

/// Every label lies inside the figure, and no two cover each other.
fn check_labels(name: &str, svg: &str) {
    let tree = roxmltree::Document::parse(svg).unwrap_or_else(|e| panic!("{name}: {e}"));
    let view: Vec<f64> =
        tree.root_element().attribute("viewBox").unwrap().split(' ').map(|v| v.parse().unwrap()).collect();
    let texts: Vec<_> = tree.descendants().filter(|e| e.has_tag_name("text")).collect();
    assert!(texts.len() >= 3, "{name}: axes have titles");
    for (i, &a) in texts.iter().enumerate() {
        let (left, top, right, bottom) = text_box(a);
        assert!(
            left >= 0.0 && top >= 0.0 && right <= view[2] && bottom <= view[3],
            "{name}: {:?} is cut off: {left} {top} {right} {bottom} in {view:?}",
            a.text()
        );
        for &b in &texts[..i] {
            let other = text_box(b);
            let apart = right <= other.0 || other.2 <= left || bottom <= other.1 || other.3 <= top;
            assert!(apart, "{name}: {:?} covers {:?}", a.text(), b.text());
        }
    }
    for node in tree.descendants().filter(|e| e.is_element()) {
        for attribute in node.attributes() {
            assert!(
                !attribute.value().contains("NaN") && !attribute.value().contains("inf"),
                "{name}: {node:?}"
            );
        }
    }
}

fn check_page(name: &str, html: &str) {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let tree =
        roxmltree::Document::parse_with_options(html, options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let figures: Vec<_> =
        tree.descendants().filter(|e| e.has_tag_name("figure")).filter_map(|e| e.attribute("id")).collect();
    assert_eq!(
        figures,
        ["figure-accuracy", "figure-bytes", "figure-loss", "figure-devices", "figure-partition"],
        "{name}"
    );
    let mut ids: Vec<&str> = tree.descendants().filter_map(|e| e.attribute("id")).collect();
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "{name}: an id is used twice");
    for node in tree.descendants().filter(|e| e.is_element()) {
        let tag = node.tag_name().name();
        assert!(
            !["script", "link", "img", "iframe", "object", "image", "use"].contains(&tag),
            "{name}: <{tag}>"
        );
        for attribute in node.attributes() {
            assert!(
                !["src", "href", "srcset", "data"].contains(&attribute.name()),
                "{name}: {tag} {attribute:?}"
            );
        }
        if tag == "table" {
            assert!(node.descendants().any(|e| e.has_tag_name("th") && e.attribute("scope") == Some("col")));
        }
    }
    // The only address is the name of SVG's namespace, which nothing loads.
    let rest = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "url(", "@import", "src="] {
        assert!(!rest.contains(outside), "{name}: {outside}");
    }
}

/// Set `FEDPER_REPORT_GALLERY` to a folder to look at what is made.
#[test]
fn every_kind_of_run_gives_a_readable_report() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("FEDPER_REPORT_GALLERY").map_or(temporary.path().to_owned(), PathBuf::from);
    for (name, runs) in gallery() {
        let (_, paths) = make("report", &runs, &root.join(name));
        let names: Vec<_> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["report.html", "accuracy.svg", "bytes.svg", "loss.svg", "devices.svg", "partition.svg"]
        );
        let html = fs::read_to_string(&paths[0]).unwrap();
        check_page(name, &html);
        assert!(
            name == "going-on" || html.contains("device 7 is left out &amp; named."),
            "{name}: notes are shown"
        );
        assert!(html.len() < 600_000, "{name}: {} bytes", html.len());
        for path in &paths[1..] {
            check_labels(&format!("{name}/{}", path.display()), &fs::read_to_string(path).unwrap());
        }
        assert_eq!(
            fs::read_dir(root.join(name).join("report")).unwrap().count(),
            6,
            "no temporary file is left"
        );
    }
}

#[test]
fn names_from_outside_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let run = Synthetic {
        classes: vec!["<img src=x>".into(), "b".into()],
        algorithms: vec!["<i>mine</i>"],
        ..Default::default()
    };
    let dir = folder.path().join("<b>run");
    run.write(&dir);
    let paths = write(&[RunData::read(&dir).unwrap()], folder.path()).unwrap();
    let html = fs::read_to_string(&paths[0]).unwrap();
    for markup in ["<img", "<i>mine", "<b>run"] {
        assert!(!html.contains(markup), "{markup}");
    }
    assert!(html.contains("&lt;i&gt;mine&lt;/i&gt;") && html.contains("<h1>&lt;b&gt;run</h1>"));
}

fn written(run: &Synthetic) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    run.write(&dir);
    (folder, dir)
}

fn append(path: &Path, text: &str) {
    let mut whole = fs::read_to_string(path).unwrap();
    whole.push_str(text);
    fs::write(path, whole).unwrap();
}

#[test]
fn a_last_line_cut_short_is_ignored() {
    let (_folder, dir) = written(&Synthetic::default());
    let whole = RunData::read(&dir).unwrap();
    append(&dir.join("rounds.jsonl"), "{\"algorithm\":\"fedper\",\"round\":21,\"acc");
    append(&dir.join("devices.jsonl"), "{\"algorithm\":\"fed");
    fs::remove_file(dir.join("summary.json")).unwrap();
    let cut = RunData::read(&dir).unwrap();
    assert!(whole.complete() && !cut.complete());
    for (a, b) in whole.algorithms.iter().zip(&cut.algorithms) {
        assert_eq!((&a.rounds, &a.devices), (&b.rounds, &b.devices));
        assert_eq!((a.rounds.len(), a.devices.len()), (20, 10));
    }
    assert_eq!(whole.algorithms[0].name, "fedper");
}

#[test]
fn a_run_that_has_just_begun_has_a_report() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), "seed = 3\n").unwrap();
    let run = RunData::read(folder.path()).unwrap();
    let paths = write(&[run], folder.path()).unwrap();
    let html = fs::read_to_string(&paths[0]).unwrap();
    check_page("begun", &html);
    assert!(html.contains("no round yet") && html.contains("No round has been evaluated yet"));
}

fn fault(dir: &Path) -> (String, usize, String) {
    match RunData::read(dir) {
        Err(ReportError::Malformed { path, line, message }) => {
            (path.file_name().unwrap().to_string_lossy().into_owned(), line, message)
        }
        other => panic!("expected a malformed file, got {:?}", other.map(|run| run.name)),
    }
}

#[test]
fn a_malformed_file_is_named_with_its_line() {
    let rounds = |dir: &Path| append(&dir.join("rounds.jsonl"), "{\"round\": 3}\n");
    let accuracy = |dir: &Path| {
        append(
            &dir.join("devices.jsonl"),
            "{\"algorithm\":\"fedper\",\"round\":20,\"device\":1,\"samples\":9,\"accuracy\":1.5,\"loss\":0.1}\n",
        );
    };
    let config = |dir: &Path| append(&dir.join("config.toml"), "lr = = 3\n");
    let encoding = |dir: &Path| fs::write(dir.join("summary.json"), b"{\n\xff}").unwrap();
    let partition = |dir: &Path| fs::write(dir.join("partition.json"), "{\n\"dataset\": 3}").unwrap();
    type Case<'a> = (&'a dyn Fn(&Path), &'a str, usize, &'a str);
    let cases: [Case<'_>; 5] = [
        (&rounds, "rounds.jsonl", 81, "missing field"),
        (&accuracy, "devices.jsonl", 801, "between 0 and 1, not 1.5"),
        (&config, "config.toml", 26, ""),
        (&encoding, "summary.json", 2, "not UTF-8"),
        (&partition, "partition.json", 2, "invalid type"),
    ];
    for (spoil, file, line, message) in cases {
        let (_folder, dir) = written(&Synthetic::default());
        spoil(&dir);
        let (name, at, said) = fault(&dir);
        assert_eq!((name.as_str(), at), (file, line), "{said}");
        assert!(said.contains(message) && !said.is_empty(), "{said}");
    }
}

#[test]
fn a_folder_without_a_configuration_is_no_run() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(RunData::read(folder.path()), Err(ReportError::NotARun(_))));
    assert!(matches!(write(&[], folder.path()), Err(ReportError::NoRuns)));
}

#[test]
fn a_round_recorded_twice_counts_once_as_recorded_last() {
    let (_folder, dir) = written(&Synthetic { algorithms: vec!["local"], ..Default::default() });
    let path = dir.join("rounds.jsonl");
    let first =
        fs::read_to_string(&path).unwrap().lines().next().unwrap().replace("\"failed\":0", "\"failed\":7");
    append(&path, &format!("{first}\n"));
    let run = RunData::read(&dir).unwrap();
    assert_eq!(run.algorithms[0].rounds.len(), 20);
    assert_eq!(run.algorithms[0].rounds[0].failed, 7);
}

#[test]
fn runs_that_differ_only_by_seed_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let runs: Vec<Synthetic> = (1..=3).map(|seed| Synthetic { seed, ..Default::default() }).collect();
    let (data, paths) = make("report", &runs, folder.path());
    let of = super::series::Comparison::new(&data);
    assert_eq!((of.groups.len(), of.series.len()), (1, 4));
    let last: Vec<f64> = data.iter().map(|run| run.algorithms[0].rounds[19].accuracy.unwrap().mean).collect();
    let (mean, deviation) = super::series::mean_and_deviation(&last);
    let point = of.series[0].accuracy()[19];
    assert_eq!((point.round, point.mean, point.spread), (20, mean, deviation));
    assert!(deviation > 0.0);
    let html = fs::read_to_string(&paths[0]).unwrap();
    let cell = format!("{:.1}&#8239;±&#8239;{:.1}", mean * 100.0, deviation * 100.0);
    assert!(html.contains(&cell), "{cell}");
    assert_eq!(html.matches("<tr class=\"mean").count(), 4);
}

#[test]
fn runs_that_differ_otherwise_stay_apart() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [1, 2].map(|personal_layers| Synthetic { personal_layers, ..Default::default() });
    let (data, paths) = make("report", &runs, folder.path());
    let of = super::series::Comparison::new(&data);
    assert_eq!((of.groups.len(), of.series.len()), (2, 8));
    assert_eq!(of.differing_keys(), ["model.personal_layers"]);
    let html = fs::read_to_string(&paths[0]).unwrap();
    assert!(!html.contains("<tr class=\"mean"));
    assert!(html.contains("kp1-seed1") && html.contains("kp2-seed1"));
}

#[test]
fn the_table_says_what_the_summary_says() {
    let (_folder, dir) = written(&Synthetic { rounds: 33, eval_every: 2, ..Default::default() });
    let run = RunData::read(&dir).unwrap();
    let summary = run.summary.as_ref().unwrap();
    for algorithm in &run.algorithms {
        let said = &summary.algorithms[&algorithm.name];
        let outcome = super::tables::Outcome::of(algorithm);
        assert_eq!(outcome.last, said.last);
        assert_eq!(outcome.best, said.best.zip(said.best_round));
        assert!((outcome.mean_last_10.unwrap() - said.mean_last_10.unwrap()).abs() < 1e-12);
        assert_eq!(outcome.bytes, (said.bytes_down + said.bytes_up) as f64);
        assert_eq!(algorithm.devices, said.devices);
    }
}
