//! Collects measured distances, so that a test shows all of them and not the first that is too large.

use std::collections::BTreeMap;

/// Float32 rounds each stored value by up to half an ulp, so that no tensor can be asked to be closer than some ulps.
pub(crate) const FLOOR: f64 = 4.0 * f32::EPSILON as f64;

/// The distance of a group that is closest to what is allowed, or furthest beyond it.
struct Worst {
    name: String,
    distance: f64,
    allowed: f64,
    /// How many there were.
    count: usize,
}

impl Worst {
    fn fraction(&self) -> f64 {
        self.distance / self.allowed
    }
}

/// Distances by group, each with what is allowed.
pub(crate) struct Report {
    title: String,
    groups: BTreeMap<String, Worst>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), groups: BTreeMap::new(), failures: Vec::new() }
    }

    pub(crate) fn check(&mut self, group: &str, name: &str, distance: f64, allowed: f64) {
        let mut found = Worst { name: name.to_owned(), distance, allowed, count: 1 };
        if distance.is_nan() || distance > allowed {
            self.failures.push(format!("{group} {name}: {distance:.2e}, allowed {allowed:.2e}"));
        }
        if let Some(worst) = self.groups.remove(group) {
            let count = worst.count + 1;
            if found.fraction() <= worst.fraction() {
                found = worst;
            }
            found.count = count;
        }
        self.groups.insert(group.to_owned(), found);
    }

    /// Prints the worst of each group (seen with `--nocapture`), and fails if any was too far.
    pub(crate) fn finish(self) {
        println!("{}", self.title);
        for (group, worst) in &self.groups {
            let Worst { name, distance, allowed, count } = worst;
            let fraction = worst.fraction();
            println!("  {group:27} {count:4}  worst {distance:.1e} of {allowed:.1e} ({fraction:.2})  {name}");
        }
        let failures = &self.failures;
        assert!(failures.is_empty(), "{}: {} too far\n{}", self.title, failures.len(), failures.join("\n"));
    }
}
