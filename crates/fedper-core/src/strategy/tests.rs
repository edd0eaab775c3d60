use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::params::{Layout, Params, Spec};
use crate::seed::Purpose;

/// A device whose "training" adds 1 to every value for each epoch and whose test loss is the sum of its weights.
struct Toy {
    params: Params,
    trained_for: Vec<Purpose>,
    passes: usize,
    measured: Vec<Vec<f32>>,
}

impl Learner for Toy {
    fn load(&mut self, params: &Params) -> Result<(), LearnError> {
        self.params = params.clone();
        Ok(())
    }

    fn params(&mut self) -> Result<Params, LearnError> {
        Ok(self.params.clone())
    }

    fn train(&mut self, pass: &Pass<'_>) -> Result<TrainMetrics, LearnError> {
        self.trained_for.push(pass.purpose);
        self.passes += 1;
        for position in 0..self.params.layout().len() {
            let name = self.params.layout().specs()[position].name.clone();
            let values = self.params.at_mut(position);
            if pass.only.is_some_and(|only| only.position(&name).is_none()) {
                continue;
            }
            let tilt = pass.tilt.unwrap_or_default();
            let of =
                |params: Option<&Params>, i: usize| params.and_then(|params| Some(params.get(&name)?[i]));
            for _ in 0..pass.epochs {
                for (i, v) in values.iter_mut().enumerate() {
                    // A gradient of -1 at a rate of 1.
                    let pulled = of(tilt.toward, i).map_or(0.0, |to| tilt.pull as f32 * (*v - to));
                    *v += 1.0 - pulled - of(tilt.add, i).unwrap_or(0.0);
                }
            }
        }
        Ok(TrainMetrics { loss_sum: 0.0, samples: pass.epochs.into(), steps: pass.epochs.into() })
    }

    fn measure_statistics(&mut self) -> Result<(), LearnError> {
        self.measured.push(self.params.values().to_vec());
        Ok(())
    }

    fn test(&mut self) -> Result<EvalMetrics, LearnError> {
        let loss_sum = self.params.values().iter().map(|&v| f64::from(v)).sum();
        Ok(EvalMetrics { correct: 0, loss_sum, samples: 1 })
    }
}

fn layout() -> Arc<Layout> {
    Layout::new(vec![
        Spec::trainable("conv", [1]),
        Spec::buffer("bn.running_mean", [1]),
        Spec::buffer("bn.running_var", [1]),
        Spec::trainable("fc", [1]),
    ])
    .unwrap()
}

fn whole(values: [f32; 4]) -> Params {
    Params::from_values(layout(), values.to_vec()).unwrap()
}

fn toy() -> Toy {
    Toy { params: Params::zeros(layout()), trained_for: Vec::new(), passes: 0, measured: Vec::new() }
}

fn round(parts: &Parts) -> LocalRound<'_> {
    LocalRound {
        parts,
        round: 1,
        epochs: 2,
        finetune_epochs: 5,
        rate: 1.0,
        reset_statistics: false,
        measure_statistics: false,
    }
}

/// The network that a method gives a device.
fn network(
    strategy: &dyn Strategy,
    device: &mut Toy,
    round: &LocalRound,
    received: &Shared,
    own: &Kept,
) -> Vec<f32> {
    strategy.network(device, round, received, own).unwrap();
    device.params.values().to_vec()
}

/// A received network and a device's own, where nothing but the model goes round.
fn cut(parts: &Parts, received: [f32; 4], own: [f32; 4]) -> (Shared, Kept) {
    (parts.split.cut(&whole(received)).0, parts.split.cut(&whole(own)).1)
}

#[test]
fn fedper_trains_the_received_base_under_its_own_head() {
    let parts = FedPer.parts(&Split::by_names(&layout(), &["fc"]).unwrap());
    let (received, own) = cut(&parts, [10.0, 20.0, 30.0, 99.0], [99.0, 99.0, 99.0, 40.0]);
    let trained = FedPer.train(&mut toy(), &round(&parts), &received, &own).unwrap();
    assert_eq!(trained.sent.params().values(), [12.0, 22.0, 32.0]);
    assert_eq!(trained.kept.params().values(), [42.0]);
    let tested = network(&FedPer, &mut toy(), &round(&parts), &received, &own);
    assert_eq!(tested, [10.0, 20.0, 30.0, 40.0]);
}

#[test]
fn the_ends_of_the_scale_are_fedavg_and_local() {
    let cut = Split::by_names(&layout(), &["fc"]).unwrap();
    assert_eq!(FedAvg.parts(&cut), FedPer.parts(&Split::all_base(&layout())));
    assert_eq!(Local.parts(&cut), FedPer.parts(&Split::all_personal(&layout())));
}

#[test]
fn fine_tuning_changes_the_evaluation_and_nothing_else() {
    let parts = FedAvgFineTuned.parts(&Split::all_personal(&layout()));
    assert!(parts.kept.is_empty());
    let (received, own) = parts.split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
    let mut device = toy();
    let trained = FedAvgFineTuned.train(&mut device, &round(&parts), &received, &own).unwrap();
    assert_eq!(trained, FedAvg.train(&mut toy(), &round(&parts), &received, &own).unwrap());
    assert_eq!(device.trained_for, [Purpose::Shuffle]);
    let mut device = toy();
    let tested = network(&FedAvgFineTuned, &mut device, &round(&parts), &received, &own);
    assert_eq!(tested, [6.0, 7.0, 8.0, 9.0]);
    assert_eq!(device.trained_for, [Purpose::FineTune]);
}

#[test]
fn statistics_are_reset_in_the_base_only() {
    let parts = Parts::of(Split::by_names(&layout(), &["fc", "bn.running_mean"]).unwrap());
    let (received, own) = parts.split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
    let reset = LocalRound { reset_statistics: true, ..round(&parts) };
    assert_eq!(reset.assemble(&received, &own).values(), [1.0, 2.0, 1.0, 4.0]);
    assert_eq!(round(&parts).assemble(&received, &own).values(), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn statistics_are_measured_under_the_received_base_before_a_test() {
    let cut = Split::by_names(&layout(), &["fc"]).unwrap();
    for (strategy, expected) in [
        (&FedPer as &dyn Strategy, vec![vec![1.0, 2.0, 3.0, 4.0]]),
        (&FedAvg, vec![vec![1.0, 2.0, 3.0, 4.0]]),
        // After fine-tuning, which changes the weights.
        (&FedAvgFineTuned, vec![vec![6.0, 7.0, 8.0, 9.0]]),
        // Nothing was received: the statistics are the device's own anyway.
        (&Local, vec![]),
    ] {
        let parts = strategy.parts(&cut);
        let (received, own) = parts.split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
        for (measure_statistics, expected) in [(true, &expected), (false, &Vec::new())] {
            let mut device = toy();
            let round = LocalRound { measure_statistics, ..round(&parts) };
            strategy.train(&mut device, &round, &received, &own).unwrap();
            assert!(device.measured.is_empty(), "training uses each batch's own statistics");
            strategy.network(&mut device, &round, &received, &own).unwrap();
            assert_eq!(device.measured, *expected, "{}", strategy.name());
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_a_failure() {
    let parts = Parts::of(Split::all_base(&layout()));
    let (received, own) = parts.split.cut(&whole([1.0, f32::NAN, 3.0, 4.0]));
    let error = FedAvg.train(&mut toy(), &round(&parts), &received, &own).unwrap_err();
    assert!(error.to_string().contains("bn.running_mean"), "{error}");
}

#[test]
fn names_are_unique_and_found() {
    let names: BTreeSet<&str> = METHODS.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), METHODS.len());
    for entry in METHODS {
        assert_eq!(registry::by_name(entry.name).unwrap().by_default().name(), entry.name);
    }
    assert!(registry::by_name("fedsomething").is_none());
}

#[test]
fn settings_are_checked() {
    const ENTRY: Entry = Entry::new(
        "pulled",
        &[
            Setting::number("lambda", "how strongly it is pulled", 1.0),
            Setting::whole("epochs", "how long", None),
        ],
        |values| {
            assert_eq!(values.get("lambda") == 1.0, values.given("lambda").is_none());
            Arc::new(FedPer)
        },
    );
    let with = |entry: &Entry, name: &str, value: f64| {
        let values = BTreeMap::from([(name.to_owned(), value)]);
        entry.with(&values).map(|_| ())
    };
    assert_eq!(with(&ENTRY, "lambda", 0.1), Ok(()));
    assert_eq!(with(&ENTRY, "epochs", 0.0), Ok(()));
    assert_eq!(ENTRY.by_default().name(), "fedper");
    for (entry, name, value, expected) in [
        (&ENTRY, "lambda", -0.1, "pulled.lambda is -0.1, and it must be 0 or more: how"),
        (&ENTRY, "lambda", f64::NAN, "pulled.lambda is NaN, and it must be 0 or more"),
        (&ENTRY, "mu", 1.0, "pulled has no setting `mu`: it has lambda, epochs"),
        (&ENTRY, "epochs", 1.5, "pulled.epochs is 1.5, and it must be a whole number"),
        (&FedPer::ENTRY, "lambda", 1.0, "fedper has no settings, so no fedper.lambda"),
    ] {
        let error = with(entry, name, value).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

mod ditto;
mod fedrep;
mod scaffold;
