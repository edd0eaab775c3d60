//! `summary.json`: where every algorithm ended.

use std::collections::BTreeMap;

use fedper_data::Normalisation;
use fedper_records::{AlgorithmSummary, Pixels, RoundRecord, Summary};

use crate::experiment::Experiment;

/// Puts a run's records together. `accuracies` has each algorithm's accuracy by device in its last evaluated round.
pub(super) fn summarise(
    experiment: &Experiment,
    workers: usize,
    rounds: &[RoundRecord],
    mut accuracies: BTreeMap<String, BTreeMap<u64, f64>>,
    seconds: f64,
) -> Summary {
    let config = &experiment.config;
    let algorithms: BTreeMap<String, AlgorithmSummary> = config
        .algorithm
        .iter()
        .map(|name| {
            let devices = accuracies.remove(name).unwrap_or_default();
            (name.clone(), algorithm(experiment, name, rounds, devices))
        })
        .collect();
    let images = &experiment.dataset.images;
    Summary {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: option_env!("FEDPER_COMMIT").map(str::to_owned),
        seed: config.seed,
        cpu: cpu(),
        kernels: Some(fedper_nn::InstructionSet::current().used_in(config.precision).to_string()),
        workers,
        command: config.command(),
        complete: algorithms
            .values()
            .all(|a| a.rounds == config.rounds || a.stopped_early || a.ended.is_some()),
        rounds: Some(config.rounds),
        seconds,
        dataset_note: experiment.dataset.note.clone(),
        notes: experiment.notes(),
        image_shape: Some([images.height, images.width, images.channels]),
        pixels: Some(pixels(images.normalisation())),
        init_sha256: experiment.init_sha256.clone(),
        peak_rss_bytes: peak_rss_bytes(),
        algorithms,
        new_clients: None,
    }
}

fn algorithm(
    experiment: &Experiment,
    name: &str,
    rounds: &[RoundRecord],
    devices: BTreeMap<u64, f64>,
) -> AlgorithmSummary {
    let (config, plan) = (&experiment.config, experiment.plan());
    let rounds: Vec<&RoundRecord> = rounds.iter().filter(|round| round.algorithm == name).collect();
    let curve: Vec<(u32, f64)> =
        rounds.iter().filter_map(|round| Some((round.round, round.accuracy?.mean))).collect();
    // The first round of the highest accuracy.
    let best = curve.iter().copied().reduce(|best, next| if next.1 > best.1 { next } else { best });
    let last_ten = &curve[curve.len().saturating_sub(10)..];
    let last = curve.last();
    let mut plateau = config.plateau();
    if let Some(plateau) = &mut plateau {
        // Where a run went on to more rounds, its last one before was evaluated out of turn.
        let in_turn = curve.iter().filter(|&&(round, _)| plan.evaluates(round));
        in_turn.for_each(|&(round, accuracy)| plateau.observe(round, accuracy));
    }
    let done = rounds.last().map_or(0, |round| round.round);
    let seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
    let trained: u64 = rounds.iter().map(|round| round.samples_trained).sum();
    AlgorithmSummary {
        rounds: done,
        stopped_early: done < config.rounds && plateau.is_some_and(|plateau| plateau.stopped().is_some()),
        ended: rounds.last().and_then(|round| round.ended.clone()),
        untested: rounds
            .iter()
            .rev()
            .find(|round| round.accuracy.is_some())
            .map_or(0, |round| round.untested),
        last: last.map(|&(_, accuracy)| accuracy),
        best: best.map(|(_, accuracy)| accuracy),
        best_round: best.map(|(round, _)| round),
        mean_last_10: last
            .map(|_| last_ten.iter().map(|&(_, accuracy)| accuracy).sum::<f64>() / last_ten.len() as f64),
        accuracy: rounds.iter().rev().find_map(|round| round.accuracy),
        devices,
        bytes_down: rounds.iter().map(|round| round.bytes_down).sum(),
        bytes_up: rounds.iter().map(|round| round.bytes_up).sum(),
        wire_down: rounds.iter().filter_map(|round| round.wire_down).reduce(|sum, next| sum + next),
        wire_up: rounds.iter().filter_map(|round| round.wire_up).reduce(|sum, next| sum + next),
        seconds,
        images_per_second: if seconds > 0.0 { trained as f64 / seconds } else { 0.0 },
    }
}

/// As it is written.
fn pixels(of: Normalisation) -> Pixels {
    Pixels { scale: of.scale, mean: of.mean, std: of.std }
}

/// The CPU's model name, or its architecture where the system does not tell.
fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Largest resident memory of this process, where Linux tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
