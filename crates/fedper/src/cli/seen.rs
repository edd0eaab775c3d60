//! What a run has shown, in two sentences made from its figures.

use std::collections::BTreeMap;

use super::table::percent;

/// Where one method ended.
pub(super) struct Ended<'a> {
    pub(super) name: &'a str,
    /// Mean over devices.
    pub(super) accuracy: f64,
    pub(super) devices: &'a BTreeMap<u64, f64>,
    /// Whether its accuracy was still rising when the run ended.
    pub(super) rising: bool,
}

/// What was run, as far as advice depends on it.
pub(super) struct Setting<'a> {
    /// K_P, if the cut was given so.
    pub(super) personal_layers: Option<usize>,
    pub(super) rounds: u32,
    /// The run directory.
    pub(super) run: &'a str,
}

/// A curve that has gained more than this over its last quarter still rises.
const RISE: f64 = 0.01;

/// Whether `curve`, accuracies by round, was still rising when it ended after `rounds` rounds.
pub(super) fn rising(curve: &[(u32, f64)], rounds: u32) -> bool {
    let before = curve.iter().rev().find(|(round, _)| *round <= rounds - rounds.div_ceil(4));
    matches!((before, curve.last()), (Some((_, before)), Some((_, last))) if last - before > RISE)
}

/// What was seen, and what to try next; nothing if no method was evaluated. `ended` is in the order of the configuration.
pub(super) fn seen(mut ended: Vec<Ended<'_>>, setting: &Setting<'_>) -> Option<String> {
    // Of equals, the one that was named first.
    ended.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
    let (leader, others) = ended.split_first()?;
    let what = match others.first() {
        Some(next) => compared(leader, next),
        None => {
            let count = leader.devices.len();
            let devices = if count == 1 { "device" } else { "devices" };
            format!("{} ends at {} over {count} {devices}.", leader.name, percent(leader.accuracy))
        }
    };
    Some(format!("{what}\n{}\n", advice(leader, others, setting)))
}

/// How the leader and the next best compare, device by device.
fn compared(leader: &Ended<'_>, next: &Ended<'_>) -> String {
    let gaps: Vec<f64> = leader
        .devices
        .iter()
        .filter_map(|(device, accuracy)| Some(accuracy - next.devices.get(device)?))
        .collect();
    let ahead = gaps.iter().filter(|&&gap| gap > 0.0).count();
    let behind = gaps.iter().filter(|&&gap| gap < 0.0).count();
    let points = 100.0 * (leader.accuracy - next.accuracy);
    let on = format!("it is ahead on {ahead} of {} devices and behind on {behind}", gaps.len());
    let (leader, next) = (leader.name, next.name);
    match level(&gaps) {
        true => format!(
            "{leader} and {next} are level: {leader} is {points:.1} points higher, which can be chance ({on})."
        ),
        false => format!("{leader} leads {next}, the next best, by {points:.1} points; {on}."),
    }
}

/// Whether the mean of paired differences is within two standard errors of 0.
fn level(gaps: &[f64]) -> bool {
    if gaps.len() < 2 {
        return true;
    }
    let n = gaps.len() as f64;
    let mean = gaps.iter().sum::<f64>() / n;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / (n - 1.0);
    mean.abs() <= 2.0 * (variance / n).sqrt()
}

fn advice(leader: &Ended<'_>, others: &[Ended<'_>], setting: &Setting<'_>) -> String {
    // What leads, or could still overtake it.
    let late = std::iter::once(leader).chain(others.iter().filter(|a| a.name == "fedper")).find(|a| a.rising);
    if let Some(late) = late {
        let (run, rounds) = (setting.run, 2 * setting.rounds);
        let name = late.name;
        return format!(
            "Try next: more rounds, as {name} is still rising: fedper run --resume {run} --rounds {rounds}"
        );
    }
    match (leader.name, setting.personal_layers) {
        ("fedper", _) => {
            "Try next: what a device gets that comes later, with --new-clients 5 and the same settings".to_owned()
        }
        ("local", _) => "Try next: more devices with fewer images each (--clients, --samples-per-client), as a device \
                         has enough of its own here"
            .to_owned(),
        (_, Some(k)) if k > 1 => format!(
            "Try next: fewer personal layers (--personal-layers {}), as these devices have much in common",
            k - 1
        ),
        _ => "Try next: devices that differ more (--dirichlet 0.1 or --own-labels), as these have much in common"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting<'_> = Setting { personal_layers: Some(1), rounds: 15, run: "runs/1" };

    fn text(accuracies: &[(&str, &[f64], bool)], setting: &Setting<'_>) -> String {
        let devices: Vec<BTreeMap<u64, f64>> =
            accuracies.iter().map(|(_, devices, _)| (0..).zip(devices.iter().copied()).collect()).collect();
        let ended = accuracies.iter().zip(&devices).map(|(&(name, values, rising), devices)| Ended {
            name,
            accuracy: values.iter().sum::<f64>() / values.len() as f64,
            devices,
            rising,
        });
        seen(ended.collect(), setting).unwrap()
    }

    #[test]
    fn the_leader_is_named_with_its_lead_and_its_devices() {
        let fedavg = ("fedavg", &[0.1, 0.2, 0.1, 0.2][..], false);
        let said = text(
            &[fedavg, ("fedper", &[0.8, 0.7, 0.6, 0.7], false), ("local", &[0.6, 0.6, 0.6, 0.5], false)],
            &SETTING,
        );
        let first = "fedper leads local, the next best, by 12.5 points; it is ahead on 3 of 4 devices and behind on 0.";
        assert_eq!(said.lines().next(), Some(first));
        assert!(said.contains("--new-clients 5"), "{said}");
        let said = text(&[("fedper", &[0.5, 0.7], false), ("local", &[0.5, 0.9], false)], &SETTING);
        assert!(said.starts_with("local and fedper are level: local is 10.0 points higher"), "{said}");
        assert!(said.contains("--samples-per-client"), "{said}");
        let leads = [("fedper", &[0.5, 0.7][..], false), ("fedavg", &[0.7, 0.9], false)];
        assert!(text(&leads, &SETTING).contains("--own-labels"));
        let two = Setting { personal_layers: Some(2), ..SETTING };
        assert!(text(&leads, &two).contains("--personal-layers 1"));
    }

    #[test]
    fn a_method_that_still_rises_gets_more_rounds() {
        let more = "fedper run --resume runs/1 --rounds 30";
        let said = text(&[("fedper", &[0.8, 0.7], true), ("local", &[0.4, 0.3], false)], &SETTING);
        assert!(said.contains(more), "{said}");
        let said = text(&[("fedper", &[0.2, 0.3], true), ("local", &[0.4, 0.5], false)], &SETTING);
        assert!(said.contains(more), "it may overtake: {said}");
        let said = text(&[("fedper", &[0.8, 0.7], false), ("fedavg", &[0.4, 0.3], true)], &SETTING);
        assert!(!said.contains(more), "{said}");
    }

    #[test]
    fn one_method_alone_is_told_without_a_comparison() {
        let said = text(&[("local", &[0.5, 0.7], false)], &SETTING);
        assert!(said.starts_with("local ends at 60.0 % over 2 devices."), "{said}");
        assert!(seen(Vec::new(), &SETTING).is_none());
    }

    #[test]
    fn a_curve_rises_by_what_its_last_quarter_gained() {
        let curve = [(5, 0.5), (10, 0.6), (15, 0.7), (20, 0.705)];
        assert!(!rising(&curve, 20));
        assert!(rising(&curve[..3], 15));
        assert!(!rising(&curve[..1], 5), "one point is no curve");
    }
}
