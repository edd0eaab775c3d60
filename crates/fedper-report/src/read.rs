//! Reading run directories back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use fedper_records::names::{CONFIG, DEVICES, PARTITION, ROUNDS, SUMMARY};
use fedper_records::{ClassCounts, DeviceRecord, RoundRecord, Summary};
use serde::de::DeserializeOwned;

use super::ReportError;

/// A run directory as read back: what the report needs of it.
///
/// Of `devices.jsonl` only each algorithm's last evaluated round is kept, and of `partition.json` only the class counts,
/// so that a run of many devices stays small in memory.
#[derive(Clone, Debug)]
pub struct RunData {
    pub(super) name: String,
    /// The configuration, flattened to `section.key`, in the file's order.
    pub(super) config: Vec<(String, String)>,
    /// `fedper` first, then in order of first appearance.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) partition: Option<ClassCounts>,
    pub(super) summary: Option<Summary>,
}

/// What one algorithm did in a run.
#[derive(Clone, Debug)]
pub(super) struct Algorithm {
    pub(super) name: String,
    /// By ascending round, each round once.
    pub(super) rounds: Vec<RoundRecord>,
    /// Accuracy by device at the last evaluated round.
    pub(super) devices: BTreeMap<u64, f64>,
}

impl RunData {
    /// Reads the run in `dir`.
    ///
    /// A run may be going on still, or may have been interrupted: `rounds.jsonl`, `devices.jsonl`, `partition.json` and
    /// `summary.json` may be missing, and a last line of a `.jsonl` file that was cut short is ignored. If a round was
    /// recorded twice, as a resumed run may do, the later record counts.
    ///
    /// # Errors
    ///
    /// If `dir` holds no `config.toml`, if a file cannot be read, or if one is malformed (with file and line).
    pub fn read(dir: &Path) -> Result<Self, ReportError> {
        let config_path = dir.join(CONFIG);
        let Some(config) = read_if_there(&config_path)? else {
            return Err(ReportError::NotARun(dir.to_owned()));
        };
        let config = parse_config(&config_path, &config)?;
        let mut algorithms = read_rounds(&dir.join(ROUNDS))?;
        let summary: Option<Summary> = read_json(&dir.join(SUMMARY))?;
        read_devices(&dir.join(DEVICES), &mut algorithms)?;
        if let Some(summary) = &summary {
            for algorithm in algorithms.iter_mut().filter(|a| a.devices.is_empty()) {
                if let Some(known) = summary.algorithms.get(&algorithm.name) {
                    algorithm.devices.clone_from(&known.devices);
                }
            }
        }
        let partition = read_partition(&dir.join(PARTITION))?;
        Ok(Self { name: name_of(dir), config, algorithms, partition, summary })
    }

    /// The run's name: that of its directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a configuration key, in whatever section it stands.
    pub(super) fn setting(&self, key: &str) -> Option<&str> {
        self.config.iter().find(|(k, _)| last_part(k) == key).map(|(_, value)| value.as_str())
    }

    /// The run's seed.
    pub(super) fn seed(&self) -> Option<String> {
        self.summary.as_ref().map(|s| s.seed.to_string()).or_else(|| self.setting("seed").map(str::to_owned))
    }

    /// Whether the run has done all its rounds.
    pub(super) fn complete(&self) -> bool {
        self.summary.as_ref().is_some_and(|s| s.complete)
    }
}

/// The key without its section.
pub(super) fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

fn name_of(dir: &Path) -> String {
    let absolute = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.file_name().map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn read_error(path: &Path, source: io::Error) -> ReportError {
    ReportError::Read { path: path.to_owned(), source }
}

fn read_if_there(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
                Err(malformed(path, line, "not UTF-8"))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(path, error)),
    }
}

fn malformed(path: &Path, line: usize, message: impl Into<String>) -> ReportError {
    ReportError::Malformed { path: path.to_owned(), line, message: message.into() }
}

fn json_error(path: &Path, line: usize, error: &serde_json::Error) -> ReportError {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    malformed(path, line, format!("{message} (column {})", error.column()))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    let Some(text) = read_if_there(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| json_error(path, error.line(), &error))
}

/// The class counts of a partition, without its samples in memory.
fn read_partition(path: &Path) -> Result<Option<ClassCounts>, ReportError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read_error(path, error)),
    };
    match serde_json::from_reader(BufReader::with_capacity(1 << 16, file)) {
        Ok(partition) => Ok(Some(partition)),
        Err(error) if error.is_io() => Err(read_error(path, error.into())),
        Err(error) => Err(json_error(path, error.line(), &error)),
    }
}

/// Calls `each` with every record of a `.jsonl` file and its line. `each` may refuse a record.
fn for_each_line<T: DeserializeOwned>(
    path: &Path,
    mut each: impl FnMut(T) -> Result<(), String>,
) -> Result<(), ReportError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(read_error(path, error)),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| read_error(path, error))? == 0 {
            break;
        }
        let ended = line.last() == Some(&b'\n');
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(record) => each(record).map_err(|message| malformed(path, number, message))?,
            // Still being written, or interrupted while it was.
            Err(_) if !ended => break,
            Err(error) => return Err(json_error(path, number, &error)),
        }
    }
    Ok(())
}

fn check_accuracy(accuracy: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&accuracy) {
        Ok(())
    } else {
        Err(format!("an accuracy must lie between 0 and 1, not {accuracy}"))
    }
}

fn read_rounds(path: &Path) -> Result<Vec<Algorithm>, ReportError> {
    let mut order: Vec<String> = Vec::new();
    let mut found: BTreeMap<String, BTreeMap<u32, RoundRecord>> = BTreeMap::new();
    for_each_line(path, |record: RoundRecord| {
        for spread in [&record.accuracy, &record.accuracy_local].into_iter().flatten() {
            check_accuracy(spread.mean)?;
        }
        if record.seconds < 0.0 {
            return Err(format!("a round cannot take {} seconds", record.seconds));
        }
        if !found.contains_key(&record.algorithm) {
            order.push(record.algorithm.clone());
        }
        found.entry(record.algorithm.clone()).or_default().insert(record.round, record);
        Ok(())
    })?;
    order.sort_by_key(|name| name != "fedper");
    Ok(order
        .into_iter()
        .filter_map(|name| {
            let rounds = found.remove(&name)?.into_values().collect();
            Some(Algorithm { name, rounds, devices: BTreeMap::new() })
        })
        .collect())
}

fn read_devices(path: &Path, algorithms: &mut [Algorithm]) -> Result<(), ReportError> {
    let wanted: Vec<Option<u32>> = algorithms
        .iter()
        .map(|a| a.rounds.iter().rev().find(|r| r.accuracy.is_some()).map(|r| r.round))
        .collect();
    for_each_line(path, |record: DeviceRecord| {
        check_accuracy(record.accuracy)?;
        let known = algorithms.iter_mut().zip(&wanted).find(|(a, _)| a.name == record.algorithm);
        if let Some((algorithm, &Some(last))) = known
            && record.round == last
        {
            algorithm.devices.insert(record.device, record.accuracy);
        }
        Ok(())
    })
}

fn parse_config(path: &Path, text: &str) -> Result<Vec<(String, String)>, ReportError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
        malformed(path, line, error.message())
    })?;
    let mut flat = Vec::new();
    flatten("", &table, &mut flat);
    Ok(flat)
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut Vec<(String, String)>) {
    // Plain keys come before sections, as they do in the file.
    for (key, value) in table.iter().filter(|(_, v)| !v.is_table()) {
        flat.push((format!("{prefix}{key}"), show(value)));
    }
    for (key, value) in table {
        if let toml::Value::Table(inner) = value {
            flatten(&format!("{prefix}{key}."), inner, flat);
        }
    }
}

fn show(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Gives runs that share a name a name of their own.
pub(super) fn distinct_names(runs: &[RunData]) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for run in runs {
        *seen.entry(&run.name).or_default() += 1;
    }
    let mut number: BTreeMap<&str, usize> = BTreeMap::new();
    runs.iter()
        .map(|run| {
            let n = number.entry(&run.name).or_default();
            *n += 1;
            if seen[run.name.as_str()] > 1 { format!("{} ({n})", run.name) } else { run.name.clone() }
        })
        .collect()
}
