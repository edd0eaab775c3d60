//! What an answer holds, written by a client and read, with suspicion, by a server.
//!
//! Where the question names devices, `metrics` has lists as long as the devices that came through: `device-ids`,
//! `device-samples` (n_j), `device-trained`, `device-steps` and `device-loss-sums`; `device-test-samples`, `device-test-correct` and
//! `device-test-loss-sums` where they were tested. Those that failed are named with the reason under `failures` in `config`.

use fedper_core::metrics::{EvalMetrics, TrainMetrics};
use fedper_core::parts::Parts;
use fedper_core::round::{Answer, DeviceId};
use fedper_core::split::Shared;
use fedper_flower::records::{Content, Values};

use super::fit::Images;

const SAMPLES: &str = "num-examples";
const IDS: &str = "device-ids";
const DEVICE_SAMPLES: &str = "device-samples";
const TRAINED: &str = "device-trained";
const STEPS: &str = "device-steps";
const LOSS_SUMS: &str = "device-loss-sums";
const TEST_SAMPLES: &str = "device-test-samples";
const TEST_CORRECT: &str = "device-test-correct";
const TEST_LOSS_SUMS: &str = "device-test-loss-sums";
const FAILURES: &str = "failures";
/// In answer to `query`: 1 if the node reads a base that is one array.
const COMPACT: &str = "compact";
/// In answer to `query`: why the node takes no part.
const REFUSAL: &str = "refusal";

/// The most samples that a device can plausibly hold, unless the server says otherwise.
pub const MAX_SAMPLES: u64 = 10_000_000;

/// A device, and why it did not come through.
pub type Failure = (DeviceId, String);

/// A device, and what its test measured.
pub type Test = (DeviceId, EvalMetrics);

fn ints(values: impl Iterator<Item = u64>) -> Vec<i64> {
    values.map(|value| i64::try_from(value).unwrap_or(i64::MAX)).collect()
}

fn set_tests(metrics: &mut Values, tests: &[EvalMetrics]) {
    metrics.set_ints(TEST_SAMPLES, ints(tests.iter().map(|test| test.samples)));
    metrics.set_ints(TEST_CORRECT, ints(tests.iter().map(|test| test.correct)));
    metrics.set_floats(TEST_LOSS_SUMS, tests.iter().map(|test| test.loss_sum).collect());
}

/// The metrics of an answer to `train`; `detailed` with a list for each device.
pub(super) fn trained(answers: &[Answer], detailed: bool) -> Values {
    let mut metrics = Values::default();
    let mut total = TrainMetrics::default();
    answers.iter().for_each(|answer| total.merge(answer.train));
    let samples = answers.iter().map(|answer| answer.samples).sum::<u64>();
    metrics.set_int(SAMPLES, samples as i64);
    metrics.set_float("train_loss", total.loss_sum / total.samples.max(1) as f64);
    if detailed {
        metrics.set_ints(IDS, ints(answers.iter().map(|answer| answer.device.0)));
        metrics.set_ints(DEVICE_SAMPLES, ints(answers.iter().map(|answer| answer.samples)));
        metrics.set_ints(TRAINED, ints(answers.iter().map(|answer| answer.train.samples)));
        metrics.set_ints(STEPS, ints(answers.iter().map(|answer| answer.train.steps)));
        metrics.set_floats(LOSS_SUMS, answers.iter().map(|answer| answer.train.loss_sum).collect());
        let tests: Vec<EvalMetrics> = answers.iter().filter_map(|answer| answer.test).collect();
        if !tests.is_empty() && tests.len() == answers.len() {
            set_tests(&mut metrics, &tests);
        }
    }
    metrics
}

/// The metrics of an answer to `evaluate`.
pub(super) fn evaluated(tests: &[Test], detailed: bool) -> Values {
    let mut metrics = Values::default();
    let mut total = EvalMetrics::default();
    tests.iter().for_each(|(_, test)| total.merge(*test));
    metrics.set_int(SAMPLES, total.samples as i64);
    metrics.set_float("accuracy", total.accuracy());
    metrics.set_float("loss", total.loss());
    if detailed {
        metrics.set_ints(IDS, ints(tests.iter().map(|(device, _)| device.0)));
        set_tests(&mut metrics, &tests.iter().map(|(_, test)| *test).collect::<Vec<_>>());
    }
    metrics
}

/// The configuration record that names what failed; `None` if nothing did.
pub(super) fn failures(failed: &[Failure]) -> Option<Values> {
    (!failed.is_empty()).then(|| {
        let mut config = Values::default();
        config.set_ints(IDS, ints(failed.iter().map(|(device, _)| device.0)));
        config.set_texts(FAILURES, failed.iter().map(|(_, reason)| reason.clone()).collect());
        config
    })
}

/// What a node says of itself in answer to `query`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// The devices that it hosts; `None` if it leaves that to the server.
    pub(super) devices: Option<Vec<DeviceId>>,
    /// Whether it understands questions of few objects (see [`super`]).
    pub(super) compact: bool,
    /// What it has images of, if it tells.
    pub(super) images: Option<Images>,
    /// Why it takes no part, if it does not. Its devices are then those that will be missed.
    pub(super) refusal: Option<String>,
}

impl Claim {
    /// As a message's content.
    pub(super) fn to_content(&self) -> Content {
        let (mut metrics, mut config) = (Values::default(), Values::default());
        let devices = self.devices.as_ref().map(|devices| ints(devices.iter().map(|device| device.0)));
        if let Some(reason) = &self.refusal {
            // An error would say that the question is not known here, and no list that the server is to say who this is.
            metrics.set_ints(IDS, Vec::new());
            config.set_text(REFUSAL, reason.clone());
            config.set_ints(IDS, devices.unwrap_or_default());
        } else if let Some(devices) = devices {
            metrics.set_ints(IDS, devices);
        }
        metrics.set_int(COMPACT, self.compact.into());
        if let Some(images) = &self.images {
            images.write(&mut config);
        }
        let config = (!config.is_empty()).then_some(config);
        Content { metrics: Some(metrics), config, ..Content::default() }
    }

    /// What a content says; whoever says nothing hosts one device and gets what Flower's own apps get.
    pub(super) fn of(content: &Content) -> Self {
        let empty = Values::default();
        let metrics = content.metrics.as_ref().unwrap_or(&empty);
        let config = content.config.as_ref().unwrap_or(&empty);
        let refusal = config.text(REFUSAL).map(ToOwned::to_owned);
        Self {
            devices: listed(if refusal.is_some() { config } else { metrics }),
            compact: metrics.int(COMPACT).is_some_and(|compact| compact > 0),
            images: Images::read(config),
            refusal,
        }
    }
}

/// The devices that are listed, if they can be.
fn listed(values: &Values) -> Option<Vec<DeviceId>> {
    let list = values.ints(IDS)?;
    list.into_iter().map(|device| u64::try_from(device).ok().map(DeviceId)).collect()
}

/// What the server takes an update for, and what it does not take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// More samples a device are not plausible.
    pub max_samples: u64,
    /// The largest distance (2-norm over all values) of a device's base from the one it was sent.
    pub max_update_norm: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_samples: MAX_SAMPLES, max_update_norm: None }
    }
}

/// Checks an answer of `asked` to `train`, which began with the server's `state`: exactly the names and shapes of `parts`, finite values, a
/// positive and plausible number of samples, an update within the bound.
///
/// # Errors
/// In words, what is wrong with it. Nothing of it counts then.
pub fn check_trained(
    content: &Content,
    asked: &[DeviceId],
    parts: &Parts,
    state: &Shared,
    limits: &Limits,
) -> Result<(Shared, Vec<Answer>, Vec<Failure>), String> {
    let metrics = content.metrics.as_ref().ok_or("it has no metrics")?;
    let failed = read_failures(content, asked)?;
    let ids = ids(metrics, asked, &failed)?;
    let one = ids.len() == 1;
    let total = metrics.int(SAMPLES).ok_or("it does not say num-examples")?;
    let samples = list(metrics, DEVICE_SAMPLES, ids.len())?;
    let samples = samples.or(one.then(|| vec![total])).ok_or("it does not say the samples of each device")?;
    let plausible = 1..=i64::try_from(limits.max_samples).unwrap_or(i64::MAX);
    if let Some(wrong) = samples.iter().find(|n| !plausible.contains(n)) {
        return Err(format!("{wrong} samples, where 1 to {} are plausible", limits.max_samples));
    }
    let sum: i128 = samples.iter().copied().map(i128::from).sum();
    if sum != i128::from(total) {
        return Err(format!("num-examples is {total}, but the devices have {sum}"));
    }
    let trained = list(metrics, TRAINED, ids.len())?;
    let steps = list(metrics, STEPS, ids.len())?;
    let losses = floats(metrics, LOSS_SUMS, ids.len())?;
    let foreign_loss = metrics.float("train_loss").filter(plausible_loss);
    let tests = read_tests(metrics, ids.len())?;
    let mut answers = Vec::with_capacity(ids.len());
    for (i, &device) in ids.iter().enumerate() {
        let samples = samples[i] as u64;
        let train = match (&trained, &losses, foreign_loss) {
            (Some(trained), Some(losses), _) => {
                let steps = steps.as_ref().map_or(0, |steps| steps[i].max(0) as u64);
                TrainMetrics { loss_sum: losses[i], samples: trained[i].max(0) as u64, steps }
            }
            (_, _, Some(loss)) if one => TrainMetrics { loss_sum: loss * samples as f64, samples, steps: 0 },
            _ => TrainMetrics::default(),
        };
        answers.push(Answer { device, samples, train, test: tests.as_ref().map(|tests| tests[i]) });
    }
    let arrays = content.arrays.as_ref().ok_or("it has no arrays")?;
    let params = arrays.to_params(parts.up.layout()).map_err(|error| error.to_string())?;
    if let Some(name) = params.first_non_finite() {
        return Err(format!("`{name}` holds a value that is not finite"));
    }
    if let Some(most) = limits.max_update_norm {
        let (base, before) = (parts.up.take(&params, ""), parts.server.take(state.params(), ""));
        let pairs = base.values().iter().zip(before.values());
        let norm = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt();
        if norm > most {
            return Err(format!("its update has norm {norm:.3}, more than {most} (--max-update-norm)"));
        }
    }
    let sent = parts.adopt_sent(params).map_err(|error| error.to_string())?;
    Ok((sent, answers, failed))
}

/// Checks an answer of `asked` to `evaluate`.
///
/// # Errors
/// In words, what is wrong with it.
pub fn check_evaluated(content: &Content, asked: &[DeviceId]) -> Result<(Vec<Test>, Vec<Failure>), String> {
    let metrics = content.metrics.as_ref().ok_or("it has no metrics")?;
    let failed = read_failures(content, asked)?;
    let ids = ids(metrics, asked, &failed)?;
    let tests = match read_tests(metrics, ids.len())? {
        Some(tests) => tests,
        None if ids.len() == 1 => vec![foreign_test(metrics)?],
        None => return Err("it does not say what each device measured".into()),
    };
    Ok((ids.into_iter().zip(tests).collect(), failed))
}

/// The test of a device that knows nothing of ours: Flower's examples say `num-examples`, an accuracy and a loss.
fn foreign_test(metrics: &Values) -> Result<EvalMetrics, String> {
    let samples = metrics.int(SAMPLES).filter(|&n| n > 0 && n as u64 <= MAX_SAMPLES);
    let samples = samples.ok_or("it does not say a plausible num-examples")? as u64;
    let find = |names: &[&str]| names.iter().find_map(|name| metrics.float(name));
    let accuracy = find(&["accuracy", "eval_acc", "eval_accuracy"]).filter(|a| (0.0..=1.0).contains(a));
    let accuracy = accuracy.ok_or("it does not say its accuracy")?;
    let loss = find(&["loss", "eval_loss"]).filter(plausible_loss).unwrap_or(0.0);
    let correct = (accuracy * samples as f64).round() as u64;
    Ok(EvalMetrics { correct, loss_sum: loss * samples as f64, samples })
}

/// Whether a mean loss can be one: its sum over all samples is finite too.
fn plausible_loss(loss: &f64) -> bool {
    loss.abs() < 1e200
}

fn read_failures(content: &Content, asked: &[DeviceId]) -> Result<Vec<Failure>, String> {
    let Some(config) = content.config.as_ref().filter(|config| config.texts(FAILURES).is_some()) else {
        return Ok(Vec::new());
    };
    let reasons = config.texts(FAILURES).unwrap_or_default();
    let devices = listed(config).filter(|devices| devices.len() == reasons.len());
    let devices = devices.ok_or("its failures name no devices")?;
    if devices.iter().any(|device| !asked.contains(device)) {
        return Err("its failures name devices that were not asked".into());
    }
    Ok(devices.into_iter().zip(reasons.iter().cloned()).collect())
}

/// The devices that came through: as the answer names them, or the one that was asked.
fn ids(metrics: &Values, asked: &[DeviceId], failed: &[Failure]) -> Result<Vec<DeviceId>, String> {
    let ids = match listed(metrics) {
        Some(ids) => ids,
        None if asked.len() == 1 => asked.to_vec(),
        None => return Err("it does not say which devices it is of".into()),
    };
    let increasing = ids.windows(2).all(|pair| pair[0] < pair[1]);
    let known = ids.iter().all(|id| asked.contains(id) && failed.iter().all(|(failed, _)| failed != id));
    if !increasing || !known || ids.is_empty() {
        return Err("it names other devices than were asked".into());
    }
    Ok(ids)
}

fn list(metrics: &Values, key: &str, len: usize) -> Result<Option<Vec<i64>>, String> {
    match metrics.ints(key) {
        Some(list) if list.len() != len => {
            Err(format!("`{key}` has {} values for {len} devices", list.len()))
        }
        list => Ok(list),
    }
}

fn floats(metrics: &Values, key: &str, len: usize) -> Result<Option<Vec<f64>>, String> {
    match metrics.floats(key) {
        Some(list) if list.len() != len => {
            Err(format!("`{key}` has {} values for {len} devices", list.len()))
        }
        Some(list) if list.iter().any(|value| !value.is_finite()) => Err(format!("`{key}` is not finite")),
        list => Ok(list),
    }
}

fn read_tests(metrics: &Values, len: usize) -> Result<Option<Vec<EvalMetrics>>, String> {
    let (Some(samples), Some(correct), Some(losses)) = (
        list(metrics, TEST_SAMPLES, len)?,
        list(metrics, TEST_CORRECT, len)?,
        floats(metrics, TEST_LOSS_SUMS, len)?,
    ) else {
        return Ok(None);
    };
    let test = |i: usize| {
        let (samples, correct) = (u64::try_from(samples[i]).ok()?, u64::try_from(correct[i]).ok()?);
        let fits = correct <= samples && samples <= MAX_SAMPLES;
        fits.then_some(EvalMetrics { correct, loss_sum: losses[i], samples })
    };
    let tests: Option<Vec<EvalMetrics>> = (0..len).map(test).collect();
    tests.map(Some).ok_or_else(|| "more test samples are right than there are".into())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
