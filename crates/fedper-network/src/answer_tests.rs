use fedper_core::params::{Layout, Params, Spec};
use fedper_core::seed::{self, Purpose};
use fedper_core::split::Split;
use fedper_flower::records::ArrayRecord;
use rand_core::Rng;

use super::*;

fn base(shape: [usize; 1], value: f32) -> Shared {
    let layout = Layout::new(vec![Spec::trainable("w", shape)]).unwrap();
    let mut params = Params::zeros(layout.clone());
    params.values_mut().fill(value);
    Parts::of(Split::all_base(&layout)).adopt_state(params).unwrap()
}

/// An answer of whoever trains all of `w`, which was zero.
fn check(
    content: &Content,
    asked: &[DeviceId],
    limits: &Limits,
) -> Result<(Shared, Vec<Answer>, Vec<Failure>), String> {
    let state = base([4], 0.0);
    let parts = Parts::of(Split::all_base(state.params().layout()));
    check_trained(content, asked, &parts, &state, limits)
}

fn answers(devices: &[(u64, u64)]) -> Vec<Answer> {
    let answer = |&(device, samples)| Answer {
        device: DeviceId(device),
        samples,
        train: TrainMetrics { loss_sum: 0.1 * device as f64, samples: 2 * samples, steps: device + 1 },
        test: Some(EvalMetrics { correct: 1, loss_sum: 0.3, samples: 2 }),
    };
    devices.iter().map(answer).collect()
}

fn content(metrics: Values, base: &Shared) -> Content {
    Content { arrays: Some(ArrayRecord::of(base)), metrics: Some(metrics), config: None }
}

fn refused(content: &Content, asked: &[u64], limits: &Limits) -> String {
    let asked: Vec<DeviceId> = asked.iter().copied().map(DeviceId).collect();
    check(content, &asked, limits).unwrap_err()
}

#[test]
fn what_devices_measured_arrives_bit_for_bit() {
    let sent = answers(&[(2, 30), (5, 7)]);
    let mut content = content(trained(&sent, true), &base([4], 0.5));
    content.config = failures(&[(DeviceId(3), "tired".into())]);
    let asked = [2, 3, 5].map(DeviceId);
    let (params, found, failed) = check(&content, &asked, &Limits::default()).unwrap();
    assert_eq!((found, failed), (sent, vec![(DeviceId(3), "tired".to_owned())]));
    assert_eq!(params.params().values(), [0.5; 4]);
    let tests = [(DeviceId(2), EvalMetrics { correct: 3, loss_sum: 0.7, samples: 4 })];
    let content = Content { metrics: Some(evaluated(&tests, true)), ..Content::default() };
    assert_eq!(check_evaluated(&content, &[DeviceId(2)]).unwrap(), (tests.to_vec(), Vec::new()));
}

#[test]
fn a_base_in_one_array_is_taken_for_what_it_is() {
    let take = |base_sent: &Shared| {
        let arrays = Some(ArrayRecord::flat(base_sent));
        let content = Content { arrays, metrics: Some(trained(&answers(&[(1, 5)]), true)), config: None };
        check(&content, &[DeviceId(1)], &Limits::default())
    };
    assert_eq!(take(&base([4], 0.5)).unwrap().0.params().values(), [0.5; 4]);
    assert_eq!(take(&base([4], f32::NAN)).unwrap_err(), "`w` holds a value that is not finite");
    assert!(take(&base([5], 0.5)).unwrap_err().contains("a base of other parameters"));
}

#[test]
fn what_a_node_says_of_itself_arrives() {
    let (two, none) = (Some([0, 7].map(DeviceId).to_vec()), Some(Vec::new()));
    let images = Some(Images { classes: vec!["cat".into(), "dog".into()], shape: [28, 28, 3] });
    for claim in [
        Claim { devices: two.clone(), compact: true, images, refusal: None },
        Claim { devices: none.clone(), ..Claim::default() },
        Claim { devices: None, compact: true, ..Claim::default() },
        Claim { devices: two, compact: true, images: None, refusal: Some("no".into()) },
        Claim { devices: none, refusal: Some("no".into()), ..Claim::default() },
    ] {
        assert_eq!(Claim::of(&claim.to_content()), claim);
    }
    assert_eq!(Claim::of(&Content::default()), Claim::default());
    let mut strange = Values::default();
    strange.set_ints("device-ids", vec![-1]);
    assert_eq!(Claim::of(&Content { metrics: Some(strange), ..Content::default() }), Claim::default());
}

#[test]
fn a_python_device_is_one_device() {
    let mut metrics = Values::default();
    metrics.set_int("num-examples", 10);
    metrics.set_float("train_loss", 0.5);
    metrics.set_float("eval_acc", 0.7);
    let content = content(metrics, &base([4], 1.0));
    let (_, found, _) = check(&content, &[DeviceId(9)], &Limits::default()).unwrap();
    assert_eq!((found[0].device, found[0].samples, found[0].train.loss_sum), (DeviceId(9), 10, 5.0));
    let (tests, _) = check_evaluated(&content, &[DeviceId(9)]).unwrap();
    assert_eq!((tests[0].1.correct, tests[0].1.samples), (7, 10));
    assert!(refused(&content, &[8, 9], &Limits::default()).contains("which devices"));
}

#[test]
fn what_cannot_be_an_update_is_refused_with_the_reason() {
    let limits = Limits { max_samples: 1000, max_update_norm: Some(3.0) };
    let good = base([4], 1.0);
    let of = |devices: &[(u64, u64)], base: &Shared| content(trained(&answers(devices), true), base);
    for (content, asked, expected) in [
        (of(&[(1, 0)], &good), &[1][..], "0 samples, where 1 to 1000"),
        (of(&[(1, 1001)], &good), &[1], "1001 samples"),
        (of(&[(1, u64::MAX)], &good), &[1], "samples"),
        (of(&[(1, 5)], &base([4], f32::NAN)), &[1], "not finite"),
        (of(&[(1, 5)], &base([4], f32::INFINITY)), &[1], "not finite"),
        (of(&[(1, 5)], &base([4], 1.6)), &[1], "norm 3.2"),
        (of(&[(1, 5)], &base([5], 1.0)), &[1], "has shape [5], expected [4]"),
        (of(&[(1, 5)], &good), &[2], "other devices"),
        (of(&[(2, 5), (1, 5)], &good), &[1, 2], "other devices"),
        (Content { metrics: None, ..of(&[(1, 5)], &good) }, &[1], "no metrics"),
        (Content { arrays: None, ..of(&[(1, 5)], &good) }, &[1], "no arrays"),
    ] {
        let reason = refused(&content, asked, &limits);
        assert!(reason.contains(expected), "{reason}");
    }
    let mut metrics = trained(&answers(&[(1, 5), (2, 5)]), true);
    metrics.set_int("num-examples", 11);
    assert!(refused(&content(metrics, &good), &[1, 2], &limits).contains("num-examples is 11"));
    let mut metrics = trained(&answers(&[(1, 5)]), true);
    metrics.set_ints("device-samples", vec![5, 5]);
    assert!(refused(&content(metrics, &good), &[1], &limits).contains("2 values for 1 devices"));
    let mut metrics = trained(&answers(&[(1, 5)]), true);
    metrics.set_ints("device-test-correct", vec![3]);
    assert!(refused(&content(metrics, &good), &[1], &limits).contains("more test samples"));
    let mut metrics = trained(&answers(&[(1, 5)]), true);
    metrics.set_floats("device-loss-sums", vec![f64::NAN]);
    assert!(refused(&content(metrics, &good), &[1], &limits).contains("not finite"));
}

/// Whatever an answer says is refused or makes sense. `FEDPER_FUZZ_CASES` says how many are tried.
#[test]
fn arbitrary_answers_are_refused_or_make_sense() {
    let cases: u64 = std::env::var("FEDPER_FUZZ_CASES").map_or(20_000, |text| text.parse().unwrap());
    let asked = [1, 2, 5].map(DeviceId);
    let good = base([4], 1.0);
    let (mut trained_well, mut tested_well) = (0, 0);
    for case in 0..cases {
        let mut random = seed::derive(7, Purpose::Failure, 0, case);
        let mut below = |n: u64| random.next_u64() % n;
        let devices = [(1, 5), (2, 7), (5, 1)];
        let mut content = content(trained(&answers(&devices[..1 + below(3) as usize]), true), &good);
        if below(2) == 0 {
            content.config = failures(&[(DeviceId(below(7)), "tired".into())]);
        }
        for _ in 0..below(4) {
            const KEYS: [&str; 13] = [
                SAMPLES,
                IDS,
                DEVICE_SAMPLES,
                TRAINED,
                LOSS_SUMS,
                TEST_SAMPLES,
                TEST_CORRECT,
                TEST_LOSS_SUMS,
                FAILURES,
                "train_loss",
                "accuracy",
                "loss",
                "surprise",
            ];
            const INTS: [i64; 10] = [0, 1, 2, 5, 7, 13, -1, i64::MAX, i64::MIN, 10_000_001];
            const FLOATS: [f64; 8] = [0.0, 1.0, -1.0, 0.5, f64::NAN, f64::INFINITY, f64::MAX, 1e-310];
            let key = KEYS[below(13) as usize];
            let ints = (0..below(5)).map(|_| INTS[below(10) as usize]).collect::<Vec<_>>();
            let floats = (0..below(5)).map(|_| FLOATS[below(8) as usize]).collect::<Vec<_>>();
            let values = match (below(4), &mut content.config) {
                (0, Some(config)) => config,
                _ => content.metrics.as_mut().unwrap(),
            };
            match below(6) {
                0 => values.set_int(key, INTS[below(10) as usize]),
                1 => values.set_float(key, FLOATS[below(8) as usize]),
                2 => values.set_ints(key, ints),
                3 => values.set_floats(key, floats),
                4 => values.set_texts(key, vec![String::new(); ints.len()]),
                _ => values.set_text(key, "text"),
            }
        }
        let asked = &asked[..1 + below(3) as usize];
        let max_samples = if below(2) == 0 { u64::MAX } else { 10 };
        let limits = Limits { max_samples, ..Limits::default() };
        let plausible = |test: &EvalMetrics| test.correct <= test.samples && test.loss_sum.is_finite();
        if let Ok((params, answers, failed)) = check(&content, asked, &limits) {
            trained_well += 1;
            assert!(!answers.is_empty() && params.params().first_non_finite().is_none());
            let devices =
                answers.iter().map(|answer| answer.device).chain(failed.iter().map(|(device, _)| *device));
            assert!(devices.clone().all(|device| asked.contains(&device)), "case {case}");
            assert_eq!(
                devices.collect::<std::collections::BTreeSet<_>>().len(),
                answers.len() + failed.len()
            );
            for answer in &answers {
                assert!((1..=max_samples).contains(&answer.samples), "case {case}");
                assert!(
                    answer.train.loss_sum.is_finite() && answer.test.iter().all(plausible),
                    "case {case}"
                );
            }
        }
        if let Ok((tests, _)) = check_evaluated(&content, asked) {
            tested_well += 1;
            assert!(
                tests.iter().all(|(device, test)| asked.contains(device) && plausible(test)),
                "case {case}"
            );
        }
    }
    println!("of {cases} answers {trained_well} were taken for trainings, {tested_well} for tests");
    assert!(
        trained_well > cases / 20 && tested_well > cases / 20,
        "hardly any came as far as the last check"
    );
}
