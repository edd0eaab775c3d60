//! The house as ARCHITECTURE.md draws it: who may depend on whom, no circles, no file that is too long.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file that is longer is split along a seam that means something.
const MOST_LINES: usize = 400;

/// Of our crates, those that each may name under `[dependencies]`.
const MAY: [(&str, &[&str]); 9] = [
    ("fedper-core", &[]),
    ("fedper-nn", &["fedper-core"]),
    ("fedper-data", &["fedper-core"]),
    ("fedper-flower", &["fedper-core"]),
    ("fedper-records", &["fedper-core"]),
    ("fedper-report", &["fedper-records"]),
    ("fedper-run", &["fedper-core", "fedper-nn", "fedper-data", "fedper-records"]),
    (
        "fedper-network",
        &["fedper-core", "fedper-nn", "fedper-data", "fedper-records", "fedper-flower", "fedper-run"],
    ),
    (
        "fedper",
        &[
            "fedper-core",
            "fedper-nn",
            "fedper-data",
            "fedper-records",
            "fedper-flower",
            "fedper-report",
            "fedper-run",
            "fedper-network",
        ],
    ),
];

/// Whose business a command line, sockets and drawings are not.
const NEVER: [(&str, &[&str]); 4] = [
    ("fedper-core", &["clap", "redb", "ureq", "image", "resvg", "toml", "indicatif"]),
    ("fedper-run", &["clap", "resvg", "ureq", "p384", "indicatif", "ctrlc"]),
    ("fedper-report", &["clap", "ureq", "redb", "image"]),
    ("fedper-nn", &["clap", "ureq", "redb", "image", "resvg"]),
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names under `[dependencies]` of a crate.
fn dependencies(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(crates().join(name).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn arrows_point_down() {
    let found: BTreeSet<String> = fs::read_dir(crates())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = MAY.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "say in MAY what a new crate may depend on");
    for (name, may) in MAY {
        let more: Vec<String> = dependencies(name)
            .into_iter()
            .filter(|dependency| dependency.starts_with("fedper") && !may.contains(&dependency.as_str()))
            .collect();
        assert!(more.is_empty(), "{name} depends on {more:?}, and may depend on {may:?} alone");
    }
    for (name, never) in NEVER {
        let found: Vec<String> = dependencies(name)
            .into_iter()
            .filter(|dependency| never.contains(&dependency.as_str()))
            .collect();
        assert!(found.is_empty(), "{found:?} are none of {name}'s business");
    }
}

/// All Rust files below `folder`, with `/` between folders.
fn sources(folder: &Path, below: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{below}{name}");
        if entry.path().is_dir() {
            sources(&entry.path(), &format!("{path}/"), found);
        } else if name.ends_with(".rs") {
            found.push((path, fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// Of each crate the files under `src`, by their path there.
fn all_sources() -> Vec<(&'static str, Vec<(String, String)>)> {
    let of = |name| {
        let mut found = Vec::new();
        sources(&crates().join(name).join("src"), "", &mut found);
        (name, found)
    };
    MAY.iter().map(|(name, _)| of(*name)).collect()
}

fn is_test(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file == "tests.rs" || file == "testing.rs" || file.ends_with("_tests.rs") || path.contains("/tests/")
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for (name, sources) in all_sources() {
        for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
            let lines = text.lines().count();
            if lines > MOST_LINES {
                long.push(format!("crates/{name}/src/{path} has {lines} lines"));
            }
        }
    }
    assert!(long.is_empty(), "more than {MOST_LINES}, so split them: {long:#?}");
}

/// Whose modules use whose: for each file or folder right under `src`, the others that it names, and where.
fn uses(sources: &[(String, String)]) -> BTreeMap<String, BTreeMap<String, String>> {
    let module = |path: &str| path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned();
    let known: BTreeSet<String> = sources.iter().map(|(path, _)| module(path)).collect();
    let mut uses: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
        let own = module(path);
        if ["lib", "main", "testing"].contains(&own.as_str()) {
            continue;
        }
        // A file's own tests come last.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect();
        let code = code.join("\n");
        // What reaches the crate's own level from here.
        let depth = path.split('/').count() - usize::from(path.ends_with("mod.rs"));
        for start in ["crate::".to_owned(), "super::".repeat(depth)] {
            for (at, _) in code.match_indices(&start).filter(|_| !start.is_empty()) {
                if code[..at].ends_with("super::") || code[..at].ends_with(|c: char| c.is_alphanumeric()) {
                    continue;
                }
                let rest = &code[at + start.len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = &rest[..end];
                if known.contains(name) && name != own {
                    uses.entry(own.clone())
                        .or_default()
                        .entry(name.to_owned())
                        .or_insert_with(|| path.clone());
                }
            }
        }
    }
    uses
}

/// A way from `from` back to itself, if there is one.
fn circle(uses: &BTreeMap<String, BTreeMap<String, String>>, from: &str) -> Option<Vec<String>> {
    let mut ways: Vec<Vec<String>> = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in uses.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == from {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                ways.push(longer);
            }
        }
    }
    None
}

#[test]
fn no_modules_go_in_circles() {
    let mut circles = Vec::new();
    for (name, sources) in all_sources() {
        let uses = uses(&sources);
        for from in uses.keys() {
            if let Some(way) = circle(&uses, from) {
                let arrows: Vec<String> = way
                    .windows(2)
                    .map(|pair| format!("{} -> {} ({})", pair[0], pair[1], uses[&pair[0]][&pair[1]]))
                    .collect();
                circles.push(format!("{name}: {}", arrows.join(", ")));
            }
        }
    }
    assert!(circles.is_empty(), "move what both need to where neither looks up: {circles:#?}");
}

#[test]
fn a_circle_would_be_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = [
        file("a/mod.rs", "use super::b::B;"),
        file("a/deep.rs", "// crate::c\nfn f() {}"),
        file("b.rs", "use crate::c::C;\n#[cfg(test)]\nmod tests { use crate::d; }"),
        file("c/x.rs", "fn f() { super::super::a::f() }"),
        file("d.rs", "use crate::b::B;"),
    ];
    let uses = uses(&sources);
    assert_eq!(circle(&uses, "a").unwrap(), ["a", "b", "c", "a"]);
    assert_eq!(circle(&uses, "d"), None);
}
