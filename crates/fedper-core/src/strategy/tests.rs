use std::sync::Arc;

use super::*;
use crate::params::{Layout, Spec};

/// A device whose "training" adds 1 to every value for each epoch and whose test loss is the sum of its weights.
struct Toy {
    params: Params,
    trained_for: Vec<Purpose>,
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

    fn train(&mut self, epochs: u32, purpose: Purpose) -> Result<TrainMetrics, LearnError> {
        self.trained_for.push(purpose);
        self.params.values_mut().iter_mut().for_each(|v| *v += epochs as f32);
        Ok(TrainMetrics { loss_sum: 0.0, samples: u64::from(epochs) })
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
    Toy { params: Params::zeros(layout()), trained_for: Vec::new(), measured: Vec::new() }
}

fn round(split: &Split) -> LocalRound<'_> {
    LocalRound { split, epochs: 2, finetune_epochs: 5, reset_statistics: false, measure_statistics: false }
}

#[test]
fn fedper_trains_the_received_base_under_its_own_head() {
    let split = FedPer.split(&Split::by_names(&layout(), &["fc"]).unwrap());
    let (received, _) = split.cut(&whole([10.0, 20.0, 30.0, 99.0]));
    let (_, own) = split.cut(&whole([99.0, 99.0, 99.0, 40.0]));
    let trained = FedPer.train(&mut toy(), &round(&split), &received, &own).unwrap();
    assert_eq!(trained.base.params().values(), [12.0, 22.0, 32.0]);
    assert_eq!(trained.personal.params().values(), [42.0]);
    let tested = FedPer.evaluate(&mut toy(), &round(&split), &received, &own).unwrap();
    assert_eq!(tested.loss_sum, 100.0);
}

#[test]
fn the_ends_of_the_scale_are_fedavg_and_local() {
    let cut = Split::by_names(&layout(), &["fc"]).unwrap();
    assert_eq!(FedAvg.split(&cut), FedPer.split(&Split::all_base(&layout())));
    assert_eq!(Local.split(&cut), FedPer.split(&Split::all_personal(&layout())));
}

#[test]
fn fine_tuning_changes_the_evaluation_and_nothing_else() {
    let split = FedAvgFineTuned.split(&Split::all_personal(&layout()));
    assert!(split.personal().is_empty());
    let (received, own) = split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
    let mut device = toy();
    let trained = FedAvgFineTuned.train(&mut device, &round(&split), &received, &own).unwrap();
    assert_eq!(trained, FedAvg.train(&mut toy(), &round(&split), &received, &own).unwrap());
    assert_eq!(device.trained_for, [Purpose::Shuffle]);
    let mut device = toy();
    let tested = FedAvgFineTuned.evaluate(&mut device, &round(&split), &received, &own).unwrap();
    assert_eq!(tested.loss_sum, 10.0 + 4.0 * 5.0);
    assert_eq!(device.trained_for, [Purpose::FineTune]);
}

#[test]
fn statistics_are_reset_in_the_base_only() {
    let split = Split::by_names(&layout(), &["fc", "bn.running_mean"]).unwrap();
    let (received, own) = split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
    let reset = LocalRound { reset_statistics: true, ..round(&split) };
    assert_eq!(reset.assemble(&received, &own).values(), [1.0, 2.0, 1.0, 4.0]);
    assert_eq!(round(&split).assemble(&received, &own).values(), [1.0, 2.0, 3.0, 4.0]);
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
        let split = strategy.split(&cut);
        let (received, own) = split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
        for (measure_statistics, expected) in [(true, &expected), (false, &Vec::new())] {
            let mut device = toy();
            let round = LocalRound { measure_statistics, ..round(&split) };
            strategy.train(&mut device, &round, &received, &own).unwrap();
            assert!(device.measured.is_empty(), "training uses each batch's own statistics");
            strategy.evaluate(&mut device, &round, &received, &own).unwrap();
            assert_eq!(device.measured, *expected, "{}", strategy.name());
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_a_failure() {
    let split = Split::all_base(&layout());
    let (received, own) = split.cut(&whole([1.0, f32::NAN, 3.0, 4.0]));
    let error = FedAvg.train(&mut toy(), &round(&split), &received, &own).unwrap_err();
    assert!(error.to_string().contains("bn.running_mean"), "{error}");
}

#[test]
fn names_are_unique_and_found() {
    for strategy in ALL {
        assert_eq!(by_name(strategy.name()).unwrap().name(), strategy.name());
    }
    assert!(by_name("fedsomething").is_none());
}
