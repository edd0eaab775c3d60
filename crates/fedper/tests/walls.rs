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

/// All that a crate may name of others', where even one more would be wrong: what draws no clock, file, socket or thread in.
const ONLY: [(&str, &[&str]); 1] =
    [("fedper-core", &["libm", "rand_chacha", "rand_core", "serde", "thiserror"])];

/// Whose business a command line, sockets and drawings are not.
const NEVER: [(&str, &[&str]); 3] = [
    ("fedper-run", &["clap", "resvg", "ureq", "p384", "indicatif", "ctrlc"]),
    ("fedper-report", &["clap", "ureq", "redb", "image"]),
    ("fedper-nn", &["clap", "ureq", "redb", "image", "resvg"]),
];

/// Who may switch on that a crate of ours opens connections.
const MAY_FETCH: &str = "fedper";

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a manifest asks of others for the crate itself, on any platform: by package, with how.
fn dependencies(manifest: &str) -> BTreeMap<String, toml::Value> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let for_platforms = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let places = for_platforms.filter_map(|(_, of)| of.as_table()).chain([&manifest]);
    let tables = places.flat_map(|place| [place.get("dependencies"), place.get("build-dependencies")]);
    // Another name for a package does not make it another one.
    let package = |(name, how): (&String, &toml::Value)| {
        let package = how.get("package").and_then(toml::Value::as_str).unwrap_or(name);
        (package.to_owned(), how.clone())
    };
    tables.flatten().filter_map(toml::Value::as_table).flatten().map(package).collect()
}

fn dependencies_of(name: &str) -> BTreeMap<String, toml::Value> {
    dependencies(&fs::read_to_string(crates().join(name).join("Cargo.toml")).unwrap())
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
        let all = dependencies_of(name);
        let ours = all.keys().filter(|dependency| dependency.starts_with("fedper"));
        let more: Vec<&String> = ours.filter(|dependency| !may.contains(&dependency.as_str())).collect();
        assert!(
            more.is_empty(),
            "{name} depends on {more:?}, and may depend on {may:?} alone: move what it needs of them down, or hand it in \
             from above"
        );
        let fetches = all.get("fedper-data").is_some_and(|how| how.to_string().contains("\"fetch\""));
        assert!(
            !fetches || name == MAY_FETCH,
            "{name} switches on downloads (`fetch`): only {MAY_FETCH} opens connections for data"
        );
    }
    for (name, only) in ONLY {
        let all = dependencies_of(name);
        let more: Vec<&String> =
            all.keys().filter(|dependency| !only.contains(&dependency.as_str())).collect();
        assert!(
            more.is_empty(),
            "{name} depends on {more:?}: do in a crate above what needs them; if they do no I/O, add them to ONLY"
        );
    }
    for (name, never) in NEVER {
        let all = dependencies_of(name);
        let found: Vec<&String> =
            all.keys().filter(|dependency| never.contains(&dependency.as_str())).collect();
        assert!(
            found.is_empty(),
            "{found:?} are none of {name}'s business: use them in a crate above, and hand in what comes of it"
        );
    }
}

#[test]
fn no_way_to_name_a_dependency_is_missed() {
    let manifest = r#"
        [dependencies]
        plain.workspace = true
        alias = { package = "renamed", version = "1" }
        [target.'cfg(unix)'.dependencies]
        only_there = "1"
        [build-dependencies]
        before = "1"
        [dev-dependencies]
        tests_only = "1"
    "#;
    let found = dependencies(manifest);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["before", "only_there", "plain", "renamed"]);
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

/// Of each crate the files below a folder of its, by their path there.
fn all_sources(folder: &str) -> Vec<(&'static str, Vec<(String, String)>)> {
    let of = |name| {
        let mut found = Vec::new();
        sources(&crates().join(name).join(folder), "", &mut found);
        (name, found)
    };
    MAY.iter().map(|(name, _)| of(*name)).collect()
}

fn is_test(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file == "tests.rs"
        || file == "testing.rs"
        || file.ends_with("_tests.rs")
        || format!("/{path}").contains("/tests/")
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for (name, sources) in all_sources("") {
        for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
            let lines = text.lines().count();
            if lines > MOST_LINES {
                long.push(format!("crates/{name}/{path} has {lines} lines"));
            }
        }
    }
    assert!(
        long.is_empty(),
        "more than {MOST_LINES}: split them where a part has a name of its own, or move their tests to tests.rs: {long:#?}"
    );
}

/// A file's code without comments and without what only its tests see.
fn code(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect();
    let all = lines.join("\n");
    let mut parts = all.split("#[cfg(test)]");
    let mut code = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // The item ends with its braces, or with a semicolon outside of any.
        let mut depth = 0;
        let end = part.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (depth == 0 && matches!(c, '}' | ';')).then_some(at + 1)
        });
        code.push_str(&part[end.unwrap_or(part.len())..]);
    }
    code
}

fn name(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())]
}

/// What comes first in a path, or in each of those in braces.
fn firsts(rest: &str) -> Vec<&str> {
    let Some(inner) = rest.trim_start().strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut found) = (0, vec![name(inner)]);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(name(&inner[at + 1..])),
            _ => {}
        }
    }
    found
}

/// The names that a crate's root hands on from its modules: who uses one uses that module.
fn handed_on(root: &str, known: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for item in code(root).split(';').filter_map(|item| item.split_once("use ")) {
        let path = item.1.trim_start_matches("self::").trim_start_matches("crate::");
        let module = name(path);
        let Some(rest) = path.strip_prefix(module).filter(|_| known.contains(module)) else { continue };
        for one in rest.split(['{', ',', '}']) {
            // Of `a::b` and of `a as b` the last name is what it is called here.
            let called = one.trim().rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(one);
            found.insert(called.to_owned(), module.to_owned());
        }
    }
    found
}

/// Whose modules use whose: for each file or folder right under `src`, the others that it names, and where.
fn uses(sources: &[(String, String)]) -> BTreeMap<String, BTreeMap<String, String>> {
    let module = |path: &str| path.split('/').next().unwrap_or(path).trim_end_matches(".rs").to_owned();
    let known: BTreeSet<String> = sources.iter().map(|(path, _)| module(path)).collect();
    let root = sources.iter().find(|(path, _)| path == "lib.rs").map_or("", |(_, text)| text);
    let handed_on = handed_on(root, &known);
    let mut uses: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, text) in sources.iter().filter(|(path, _)| !is_test(path)) {
        let own = module(path);
        if ["lib", "main", "testing"].contains(&own.as_str()) {
            continue;
        }
        let code = code(text);
        // What reaches the crate's own level from here.
        let depth = path.split('/').count() - usize::from(path.ends_with("mod.rs"));
        for start in ["crate::".to_owned(), "super::".repeat(depth)] {
            for (at, _) in code.match_indices(&start) {
                if code[..at].ends_with("super::") || code[..at].ends_with(|c: char| c.is_alphanumeric()) {
                    continue;
                }
                for first in firsts(&code[at + start.len()..]) {
                    let (used, place) = match (known.contains(first), handed_on.get(first)) {
                        (true, _) => (first, path.clone()),
                        (false, Some(module)) => (module.as_str(), format!("{path}: {first}")),
                        (false, None) => continue,
                    };
                    if used != own {
                        uses.entry(own.clone()).or_default().entry(used.to_owned()).or_insert(place);
                    }
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
    for (name, sources) in all_sources("src") {
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
    assert!(circles.is_empty(), "move what both need to a module that names neither: {circles:#?}");
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

#[test]
fn no_way_to_name_a_module_is_missed() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    for (root, names_b) in [
        ("", "use crate::{x::{y, z}, b::B};"),
        ("", "use super::{\n    b,\n};"),
        ("", "#[cfg(test)]\nmod testing;\nuse crate::b::B;"),
        ("pub use b::B;", "use crate::B;"),
        ("pub use b::{A, deep::B as C};", "fn f() -> crate::C {}"),
        ("pub(crate) use self::b::{A, B};", "use super::{A, other};"),
    ] {
        let sources =
            [file("lib.rs", root), file("a.rs", names_b), file("b.rs", "use crate::a::A;"), file("x.rs", "")];
        assert_eq!(circle(&uses(&sources), "a").unwrap(), ["a", "b", "a"], "{root} {names_b}");
    }
    let tests_only = [
        file("a.rs", "#[cfg(test)]\nuse crate::b::B;\n#[cfg(test)]\nmod tests { fn f() { crate::b::g() } }"),
        file("b.rs", "use crate::a::A;"),
    ];
    assert_eq!(circle(&uses(&tests_only), "b"), None);
}
