use super::*;
use crate::params::{Layout, Params, Spec};
use crate::split::Split;
use crate::strategy::{FedAvg, Local};

const NOW: Duration = Duration::ZERO;

fn plan() -> Plan {
    Plan {
        devices: 3,
        left_out: Vec::new(),
        rounds: 2,
        participation: 1.0,
        seed: 1,
        eval_every: 1,
        eval_devices: None,
        round_timeout: None,
        min_answers: 0,
    }
}

fn layout() -> Arc<Layout> {
    Layout::new(vec![Spec::trainable("w", [1])]).unwrap()
}

fn coordinating(plan: Plan, strategy: impl Strategy + 'static, base: Shared, done: u32) -> Coordinator {
    let parts = Arc::new(strategy.parts(&Split::all_base(&layout())));
    Coordinator::new(plan, Arc::new(strategy), parts, base, done)
}

fn base(value: f32) -> Shared {
    let layout = layout();
    Shared::new(Params::from_values(layout, vec![value]).unwrap())
}

fn answer(device: u64, round: u32, value: f32, samples: u64) -> Event {
    Event::Trained(Upload {
        device: DeviceId(device),
        round,
        samples,
        train: TrainMetrics { loss_sum: 2.0, samples, steps: 1 },
        test: None,
        base: base(value),
    })
}

fn tested(device: u64, round: u32) -> Event {
    let metrics = EvalMetrics { correct: device, loss_sum: 0.0, samples: 4 };
    Event::Evaluated { device: DeviceId(device), round, metrics }
}

fn outcome(actions: Vec<Action>) -> Outcome {
    match <[Action; 1]>::try_from(actions) {
        Ok([Action::RoundDone(outcome)]) => outcome,
        other => panic!("expected the end of a round, got {other:?}"),
    }
}

#[test]
fn devices_that_are_left_out_are_never_asked() {
    let all = Plan { devices: 12, participation: 0.5, eval_devices: Some(5), ..plan() };
    let some = Plan { left_out: vec![0, 3, 4, 11], ..all.clone() };
    assert_eq!((some.taking_part(), some.participants_per_round(), some.evaluations()), (8, 4, 5));
    let mut asked = BTreeSet::new();
    for round in 1..40 {
        let participants = some.participants(round);
        assert!(participants.is_sorted() && participants.len() == 4);
        asked.extend(participants);
    }
    let expected: BTreeSet<DeviceId> = [1, 2, 5, 6, 7, 8, 9, 10].map(DeviceId).into();
    assert_eq!(asked, expected);
    assert!(some.evaluated().iter().all(|device| expected.contains(device)));
    let none = Plan { left_out: Vec::new(), ..all.clone() };
    assert_eq!(none.participants(1), all.participants(1));
}

#[test]
fn who_took_part_and_who_failed_is_told() {
    let timeout = Duration::from_secs(1);
    let some = Plan { participation: 0.67, round_timeout: Some(timeout), rounds: 9, ..plan() };
    let mut coordinator = coordinating(some.clone(), Local, base_of_nothing(), 0);
    for round in 1..=3 {
        let asked = some.participants(round);
        coordinator.step(NOW, Event::Begin);
        // One fails, one is late.
        coordinator.step(NOW, Event::Failed { device: asked[1], round });
        coordinator.step(timeout, Event::Tick);
        let round =
            outcome((0..3).fold(
                Vec::new(),
                |last, device| match coordinator.step(NOW, tested(device, round)) {
                    actions if actions.is_empty() => last,
                    actions => actions,
                },
            ));
        assert_eq!(round.failed_devices.iter().copied().collect::<Vec<_>>(), asked);
        assert_eq!(round.participants, Some(asked));
    }
    let mut coordinator = coordinating(plan(), Local, base_of_nothing(), 0);
    coordinator.step(NOW, Event::Begin);
    for device in 0..3 {
        coordinator.step(NOW, Event::Failed { device: DeviceId(device), round: 1 });
    }
    (0..2).for_each(|device| drop(coordinator.step(NOW, tested(device, 1))));
    let round = outcome(coordinator.step(NOW, tested(2, 1)));
    assert_eq!((round.participants, round.failed_devices.len()), (None, 3));
}

fn base_of_nothing() -> Shared {
    Shared::new(Params::zeros(Layout::new(Vec::new()).unwrap()))
}

#[test]
fn two_rounds_by_hand() {
    let mut coordinator = coordinating(plan(), FedAvg, base(0.0), 0);
    let actions = coordinator.step(NOW, Event::Begin);
    assert_eq!(actions.len(), 3);
    assert!(
        matches!(&actions[1], Action::Train(DeviceId(1), d) if d.round == 1 && d.base.params().values() == [0.0])
    );
    assert!(coordinator.step(NOW, Event::Begin).is_empty(), "a round is running");
    assert!(coordinator.step(NOW, answer(2, 1, 6.0, 1)).is_empty());
    assert!(coordinator.step(NOW, answer(2, 1, 99.0, 1)).is_empty(), "a second answer");
    assert!(coordinator.step(NOW, answer(0, 0, 99.0, 1)).is_empty(), "an answer to an older round");
    assert!(coordinator.step(NOW, tested(0, 1)).is_empty(), "an evaluation nobody asked for");
    assert!(coordinator.step(NOW, answer(0, 1, 2.0, 3)).is_empty());
    let actions = coordinator.step(NOW, Event::Failed { device: DeviceId(1), round: 1 });
    assert_eq!(coordinator.base().params().values(), [3.0], "(3 * 2 + 1 * 6) / 4");
    assert_eq!(actions.len(), 3);
    assert!(matches!(&actions[0], Action::Evaluate(DeviceId(0), d) if d.base.params().values() == [3.0]));
    coordinator.step(NOW, tested(2, 1));
    coordinator.step(NOW, tested(0, 1));
    let round = outcome(coordinator.step(NOW, tested(1, 1)));
    assert_eq!((round.round, round.answered, round.failed), (1, 2, 1));
    assert_eq!(round.train, TrainMetrics { loss_sum: 4.0, samples: 4, steps: 2 });
    assert_eq!((round.bytes_down, round.bytes_up), (3 * 4, 2 * 4));
    assert_eq!(round.tests.len(), 3);

    coordinator.step(NOW, Event::Begin);
    for device in 0..3 {
        coordinator.step(NOW, answer(device, 2, 1.0, 1));
    }
    for device in 0..2 {
        coordinator.step(NOW, tested(device, 2));
    }
    assert_eq!(
        outcome(coordinator.step(NOW, Event::Failed { device: DeviceId(2), round: 2 })).tests.len(),
        2
    );
    assert!(matches!(coordinator.step(NOW, Event::Begin)[..], [Action::Finished]));
}

#[test]
fn a_round_that_nobody_answers_changes_nothing() {
    let mut coordinator = coordinating(Plan { eval_devices: Some(0), ..plan() }, FedAvg, base(7.0), 0);
    coordinator.step(NOW, Event::Begin);
    for device in 0..2 {
        coordinator.step(NOW, Event::Failed { device: DeviceId(device), round: 1 });
    }
    let round = outcome(coordinator.step(NOW, Event::Failed { device: DeviceId(2), round: 1 }));
    assert_eq!((round.answered, round.failed), (0, 3));
    assert_eq!(coordinator.base().params().values(), [7.0]);
}

#[test]
fn a_round_goes_on_without_devices_that_are_late() {
    let timeout = Duration::from_secs(60);
    let mut coordinator = coordinating(
        Plan { round_timeout: Some(timeout), eval_devices: Some(1), ..plan() },
        FedAvg,
        base(0.0),
        0,
    );
    coordinator.step(NOW, Event::Begin);
    coordinator.step(NOW, answer(1, 1, 5.0, 2));
    assert!(coordinator.step(timeout / 2, Event::Tick).is_empty());
    assert_eq!(coordinator.deadline(), Some(timeout));
    let actions = coordinator.step(timeout, Event::Tick);
    assert!(matches!(actions[..], [Action::Evaluate(..)]));
    assert_eq!(coordinator.base().params().values(), [5.0]);
    assert!(coordinator.step(timeout, answer(0, 1, 99.0, 2)).is_empty(), "too late");
    let round = outcome(coordinator.step(timeout * 2, Event::Tick));
    assert_eq!((round.answered, round.failed, round.tests.len()), (1, 2, 0));
}

#[test]
fn a_base_of_another_layout_is_a_failure() {
    let mut coordinator =
        coordinating(Plan { devices: 1, eval_devices: Some(0), ..plan() }, FedAvg, base(1.0), 0);
    coordinator.step(NOW, Event::Begin);
    let layout = Layout::new(vec![Spec::trainable("v", [1])]).unwrap();
    let Event::Trained(mut upload) = answer(0, 1, 9.0, 1) else { unreachable!() };
    upload.base = Shared::new(Params::zeros(layout));
    assert_eq!(outcome(coordinator.step(NOW, Event::Trained(upload))).failed, 1);
    assert_eq!(coordinator.base().params().values(), [1.0]);
}

#[test]
fn nothing_is_sent_when_nothing_is_shared() {
    let empty = Shared::new(Params::zeros(Layout::new(vec![]).unwrap()));
    let mut coordinator =
        coordinating(Plan { devices: 1, eval_devices: Some(0), ..plan() }, Local, empty.clone(), 0);
    coordinator.step(NOW, Event::Begin);
    let Event::Trained(mut upload) = answer(0, 1, 9.0, 1) else { unreachable!() };
    upload.base = empty;
    let round = outcome(coordinator.step(NOW, Event::Trained(upload)));
    assert_eq!((round.answered, round.bytes_down, round.bytes_up), (1, 0, 0));
}

#[test]
fn participants_follow_from_the_seed() {
    let plan = Plan { devices: 100, participation: 0.1, ..plan() };
    assert_eq!(plan.participants(3).len(), 10);
    assert_eq!(plan.participants(3), plan.participants(3));
    assert_ne!(plan.participants(3), plan.participants(4));
    assert_ne!(plan.participants(3), Plan { seed: 2, ..plan.clone() }.participants(3));
    assert!(plan.participants(3).is_sorted());
    assert_eq!(Plan { participation: 1e-9, ..plan.clone() }.participants(1).len(), 1);
    assert_eq!(Plan { participation: 1.0, ..plan.clone() }.participants(1).len(), 100);
    assert_eq!(Plan { eval_devices: Some(7), ..plan.clone() }.evaluated().len(), 7);
    assert_eq!(plan.evaluated().len(), 100);
}

#[test]
fn evaluation_every_so_often_and_at_the_end() {
    let plan = Plan { rounds: 11, eval_every: 5, ..plan() };
    assert_eq!((1..=11).filter(|&round| plan.evaluates(round)).collect::<Vec<_>>(), [5, 10, 11]);
}

fn together(round: u32, devices: &[(u64, u64)], value: f32) -> Event {
    let answer = |&(device, samples)| Answer {
        device: DeviceId(device),
        samples,
        train: TrainMetrics { loss_sum: 1.0, samples, steps: 1 },
        test: None,
    };
    Event::TrainedTogether(Together {
        round,
        answers: devices.iter().map(answer).collect(),
        base: base(value),
    })
}

#[test]
fn devices_that_share_a_machine_count_with_all_their_samples() {
    let plan = Plan { eval_devices: Some(1), ..plan() };
    let mut coordinator = coordinating(plan, FedAvg, base(0.0), 0);
    coordinator.step(NOW, Event::Begin);
    coordinator.step(NOW, answer(1, 1, 2.0, 2));
    assert_eq!(coordinator.awaited(), [DeviceId(0), DeviceId(2)]);
    for wrong in [
        together(1, &[(0, 9), (1, 9)], 99.0),
        together(1, &[(0, 9), (0, 9)], 99.0),
        together(1, &[], 99.0),
        together(2, &[(0, 9), (2, 9)], 99.0),
    ] {
        assert!(coordinator.step(NOW, wrong).is_empty());
    }
    assert_eq!(coordinator.awaited().len(), 2, "what cannot be a part of the round changes nothing");
    coordinator.step(NOW, together(1, &[(0, 1), (2, 5)], 6.0));
    assert_eq!(coordinator.base().params().values(), [5.0], "(2 * 2 + 6 * 6) / 8");
    let device = coordinator.awaited()[0].0;
    let round = outcome(coordinator.step(NOW, tested(device, 1)));
    assert_eq!((round.answered, round.failed, round.train.samples), (3, 0, 8));
    assert_eq!(
        (round.bytes_down, round.bytes_up),
        (3 * 4, 3 * 4),
        "each device counts, however many share a base"
    );
}

#[test]
fn a_round_that_too_few_answer_is_tried_again() {
    let timeout = Duration::from_secs(5);
    let plan = Plan { min_answers: 2, round_timeout: Some(timeout), eval_devices: Some(0), ..plan() };
    let mut coordinator = coordinating(plan, FedAvg, base(7.0), 0);
    coordinator.step(NOW, Event::Begin);
    coordinator.step(NOW, answer(0, 1, 1.0, 1));
    let actions = coordinator.step(timeout, Event::Tick);
    assert!(matches!(actions[..], [Action::TooFew { round: 1, answered: 1 }]));
    assert_eq!((coordinator.base().params().values(), coordinator.round()), (&[7.0][..], 0));
    assert_eq!((coordinator.deadline(), coordinator.awaited().len()), (None, 0));
    assert!(coordinator.step(timeout, answer(1, 1, 1.0, 1)).is_empty(), "late");

    assert_eq!(coordinator.step(timeout, Event::Begin).len(), 3);
    coordinator.step(timeout, answer(0, 1, 1.0, 1));
    coordinator.step(timeout, answer(2, 1, 3.0, 1));
    let round = outcome(coordinator.step(2 * timeout, Event::Tick));
    assert_eq!((round.round, round.answered, round.failed), (1, 2, 1));
    assert_eq!(coordinator.base().params().values(), [2.0]);
}

#[test]
fn an_evaluation_that_too_few_answer_goes_on_with_the_others() {
    let timeout = Duration::from_secs(5);
    let plan = Plan { min_answers: 3, round_timeout: Some(timeout), ..plan() };
    let mut coordinator = coordinating(plan, FedAvg, base(0.0), 0);
    coordinator.step(NOW, Event::Begin);
    for device in 0..3 {
        coordinator.step(NOW, answer(device, 1, 4.0, 1));
    }
    let failed = |device| Event::Failed { device: DeviceId(device), round: 1 };
    let lost = |device| Event::Lost { device: DeviceId(device), round: 1 };
    // One answers, one is lost, and one is late.
    coordinator.step(NOW, tested(0, 1));
    coordinator.step(NOW, lost(2));
    assert!(coordinator.step(NOW, tested(2, 1)).is_empty(), "it is not awaited now");
    let actions = coordinator.step(timeout, Event::Tick);
    assert!(matches!(actions[..], [Action::TooFewTests { round: 1, heard: 1, needed: 3 }]));
    assert_eq!((coordinator.base().params().values(), coordinator.round()), (&[4.0][..], 1));
    assert_eq!((coordinator.deadline(), coordinator.awaited().len()), (None, 0));

    let actions = coordinator.step(timeout, Event::Begin);
    assert!(matches!(actions[..], [Action::Evaluate(DeviceId(1), _), Action::Evaluate(DeviceId(2), _)]));
    assert_eq!(coordinator.deadline(), Some(2 * timeout));
    // One that says no is heard, and not asked again.
    coordinator.step(timeout, failed(2));
    let actions = coordinator.step(timeout, lost(1));
    assert!(matches!(actions[..], [Action::TooFewTests { round: 1, heard: 2, needed: 3 }]));
    assert_eq!(coordinator.step(timeout, Event::Begin).len(), 1);
    let round = outcome(coordinator.step(timeout, tested(1, 1)));
    assert_eq!((round.round, round.answered, round.failed), (1, 3, 0), "training was not repeated");
    assert_eq!(round.tests.keys().copied().collect::<Vec<_>>(), [DeviceId(0), DeviceId(1)]);
    assert_eq!(coordinator.step(timeout, Event::Begin).len(), 3, "the next round");
}
