//! Clipped gradients, frozen parameters, statistics measured afresh.

use fedper_core::params::{Kind, Params};
use fedper_core::seed::{Purpose, SERVER, derive, fill_normal, named};
use fedper_nn::{Architecture, Batch, InputShape, Model, Network, Precision, Sgd, Stem};

const SGD: Sgd = Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-2 };
const SIDE: usize = 16;
const COUNT: usize = 6;

fn arch(model: Model) -> Architecture {
    let input = InputShape { channels: 3, height: SIDE, width: SIDE };
    Architecture::new(model, Stem::Cifar, input, 10).unwrap()
}

/// Every network in every precision.
fn networks() -> impl Iterator<Item = (Model, Precision)> {
    Model::ALL.into_iter().flat_map(|model| Precision::ALL.map(|precision| (model, precision)))
}

fn fresh(arch: &Architecture) -> Params {
    arch.init(|name| named(5, Purpose::Init, SERVER, 0, name))
}

fn samples(arch: &Architecture) -> (Vec<f32>, Vec<u32>) {
    let mut images = vec![0.0; COUNT * arch.input.numel()];
    fill_normal(&mut derive(1, Purpose::Dataset, 0, 0), 1.0, &mut images);
    (images, (0..COUNT as u32).map(|i| i % 10).collect())
}

fn stored(network: &Network, arch: &Architecture) -> Params {
    let mut params = Params::zeros(arch.layout());
    network.store(&mut params).unwrap();
    params
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Three steps, as PyTorch has them: `clip_grad_norm_`, then weight decay, momentum and the step.
#[test]
fn a_clipped_step_is_sgd_on_the_scaled_gradient() {
    for (model, max_norm) in [(Model::Cnn, 0.25), (Model::Mlp, 1.5)] {
        let arch = arch(model);
        let (images, labels) = samples(&arch);
        let batch = Batch { images: &images, labels: &labels };
        let mut params = fresh(&arch);
        let mut network = Network::new(&arch, COUNT).unwrap();
        let mut velocity = vec![0f32; params.values().len()];
        let mut clipped = 0;
        for _ in 0..3 {
            let mut gradient = Params::zeros(arch.layout());
            network.load(&params).unwrap();
            let before = network.gradients(batch, &mut gradient).unwrap();
            assert_eq!(network.train_step_clipped(batch, &SGD, max_norm).unwrap(), before);
            let factor = (max_norm / (norm(gradient.values()) + 1e-6)).min(1.0) as f32;
            clipped += u32::from(factor < 1.0);
            for ((p, v), g) in params.values_mut().iter_mut().zip(&mut velocity).zip(gradient.values()) {
                *v = SGD.momentum * *v + (factor * g + SGD.weight_decay * *p);
                *p -= SGD.lr * *v;
            }
            let found = stored(&network, &arch);
            let difference: Vec<f32> =
                found.values().iter().zip(params.values()).map(|(a, b)| a - b).collect();
            assert!(norm(&difference) <= 1e-7 * norm(params.values()), "{model}");
            params = found;
        }
        assert!(clipped > 0, "{model}: nothing was clipped");
    }
}

#[test]
fn where_nothing_is_clipped_nothing_changes_in_any_bit() {
    for (model, precision) in networks() {
        let others = [Sgd { weight_decay: 0.0, ..SGD }, Sgd { momentum: 0.0, ..SGD }];
        let others = if model == Model::Cnn { &others[..] } else { &[] };
        for sgd in [&[SGD], others].concat() {
            let arch = arch(model);
            let (images, labels) = samples(&arch);
            let batch = Batch { images: &images, labels: &labels };
            let train = |step: &mut dyn FnMut(&mut Network)| {
                let mut network = Network::with_precision(&arch, COUNT, precision).unwrap();
                network.load(&fresh(&arch)).unwrap();
                (0..3).for_each(|_| step(&mut network));
                stored(&network, &arch)
            };
            let plain = train(&mut |network| {
                network.train_step(batch, &sgd).unwrap();
            });
            let far = train(&mut |network| {
                network.train_step_clipped(batch, &sgd, 1e12).unwrap();
            });
            assert_eq!(plain, far, "{model} {precision} {sgd:?}");
            let near = train(&mut |network| {
                network.train_step_clipped(batch, &sgd, 1e-3).unwrap();
            });
            assert_ne!(plain, near, "{model} {precision} {sgd:?}");
        }
    }
}

/// Without momentum and weight decay a step is `lr` times the clipped gradient, and that has the norm asked for.
#[test]
fn a_clipped_step_has_the_norm_asked_for_in_every_network() {
    for (model, precision) in networks() {
        let arch = arch(model);
        let (images, labels) = samples(&arch);
        let mut network = Network::with_precision(&arch, COUNT, precision).unwrap();
        let before = fresh(&arch);
        network.load(&before).unwrap();
        let sgd = Sgd { lr: 1.0, momentum: 0.0, weight_decay: 0.0 };
        network.train_step_clipped(Batch { images: &images, labels: &labels }, &sgd, 0.5).unwrap();
        let after = stored(&network, &arch);
        let mut squares = 0.0;
        for ((spec, a), (_, b)) in before.iter().zip(after.iter()) {
            if spec.kind == Kind::Trainable {
                squares += a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            }
        }
        assert!((squares.sqrt() - 0.5).abs() < 1e-3, "{model} {precision}: {}", squares.sqrt());
    }
}

/// As `torch.optim.swa_utils.update_bn` does, but that a batch counts by its images: the mean of the batches' statistics,
/// which are read off here from one train-mode pass each, at batch norm's momentum of 0.1.
#[test]
fn statistics_measured_afresh_are_the_means_over_the_batches() {
    for model in [Model::Resnet34, Model::MobilenetV1] {
        let arch = arch(model);
        let (images, _) = samples(&arch);
        let (first, second) = images.split_at(4 * arch.input.numel());
        let mut network = Network::new(&arch, COUNT).unwrap();
        let start = fresh(&arch);
        let moved = [(first, 4), (second, 2)].map(|(images, count)| {
            network.load(&start).unwrap();
            network.train_logits(images, count).unwrap();
            stored(&network, &arch)
        });
        let mut off = start.clone();
        off.values_mut()
            .iter_mut()
            .zip(
                start.layout().specs().iter().flat_map(|spec| {
                    std::iter::repeat_n(spec.kind == Kind::Buffer, spec.shape.iter().product())
                }),
            )
            .filter(|(_, buffer)| *buffer)
            .for_each(|(value, _)| *value = 1e6);
        network.load(&off).unwrap();
        network.measure_statistics(first, 4, 0).unwrap();
        network.measure_statistics(second, 2, 4).unwrap();
        let found = stored(&network, &arch);
        for (i, (spec, found)) in found.iter().enumerate() {
            if spec.kind != Kind::Buffer {
                assert_eq!(found, start.at(i), "{}", spec.name);
                continue;
            }
            for (c, &found) in found.iter().enumerate() {
                let of = |moved: &Params| (moved.at(i)[c] - 0.9 * start.at(i)[c]) / 0.1;
                let expected = (4.0 * of(&moved[0]) + 2.0 * of(&moved[1])) / 6.0;
                let tolerance = 2e-5 * (1.0 + expected.abs());
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{model} {} {c}: {found} {expected}",
                    spec.name
                );
            }
        }
        // Training goes on at the usual momentum.
        network.load(&start).unwrap();
        network.train_logits(first, 4).unwrap();
        assert_eq!(stored(&network, &arch), moved[0]);
    }
}

#[test]
fn frozen_parameters_and_statistics_stay() {
    for (model, precision) in networks() {
        let arch = arch(model);
        let (images, labels) = samples(&arch);
        let batch = Batch { images: &images, labels: &labels };
        let personal = arch.personal_names(2).unwrap();
        for clip in [false, true] {
            let before = fresh(&arch);
            let mut network = Network::with_precision(&arch, COUNT, precision).unwrap();
            network.load(&before).unwrap();
            network.freeze(|name| !personal.iter().any(|own| own == name));
            for _ in 0..2 {
                match clip {
                    true => network.train_step_clipped(batch, &SGD, 0.5).unwrap(),
                    false => network.train_step(batch, &SGD).unwrap(),
                };
            }
            let after = stored(&network, &arch);
            for ((spec, a), (_, b)) in before.iter().zip(after.iter()) {
                assert_eq!(a != b, personal.contains(&spec.name), "{model} {precision}: {}", spec.name);
            }
            // Thawed, it trains as one that never was frozen.
            let mut other = Network::with_precision(&arch, COUNT, precision).unwrap();
            network.freeze(|_| false);
            network.reset_momentum();
            for network in [&mut network, &mut other] {
                network.load(&before).unwrap();
                network.train_step(batch, &SGD).unwrap();
            }
            assert_eq!(stored(&network, &arch), stored(&other, &arch), "{model} {precision}");
        }
    }
}

/// As FedRep trains: the personal layers first, then the base, each as if nothing had been before it.
#[test]
fn parts_train_one_after_the_other() {
    for (model, precision) in networks() {
        let arch = arch(model);
        let (images, labels) = samples(&arch);
        let batch = Batch { images: &images, labels: &labels };
        let steps = |network: &mut Network| {
            network.train_step(batch, &SGD).unwrap();
            network.train_step_clipped(batch, &SGD, 0.5).unwrap();
            network.train_step(batch, &SGD).unwrap();
            stored(network, &arch)
        };
        for personal_layers in [1, arch.blocks.len() / 2, arch.blocks.len() - 1] {
            let personal = arch.personal_names(personal_layers).unwrap();
            let is_personal = |name: &str| personal.iter().any(|own| own == name);
            let before = fresh(&arch);
            let mut network = Network::with_precision(&arch, COUNT, precision).unwrap();
            network.load(&before).unwrap();
            network.freeze(|name| !is_personal(name));
            let between = steps(&mut network);
            network.reset_momentum();
            network.freeze(is_personal);
            let after = steps(&mut network);
            let at = format!("{model} {precision}, {personal_layers} personal layers");
            for (i, (spec, before)) in before.iter().enumerate() {
                let own = is_personal(&spec.name);
                assert_eq!(before != between.at(i), own, "{at}, first {}", spec.name);
                assert_eq!(between.at(i) != after.at(i), !own, "{at}, then {}", spec.name);
            }
            let phase = |start: &Params, frozen: &dyn Fn(&str) -> bool| {
                let mut network = Network::with_precision(&arch, COUNT, precision).unwrap();
                network.load(start).unwrap();
                network.freeze(frozen);
                steps(&mut network)
            };
            assert_eq!(phase(&before, &|name| !is_personal(name)), between, "{at}, first");
            assert_eq!(phase(&between, &is_personal), after, "{at}, then");
        }
    }
}

/// Without batch norm, what trains does not see whether the rest is frozen.
#[test]
fn what_is_not_frozen_trains_as_before() {
    let arch = arch(Model::Cnn);
    let (images, labels) = samples(&arch);
    let batch = Batch { images: &images, labels: &labels };
    let step = |frozen: &dyn Fn(&str) -> bool| {
        let mut network = Network::new(&arch, COUNT).unwrap();
        network.load(&fresh(&arch)).unwrap();
        network.freeze(frozen);
        network.train_step(batch, &SGD).unwrap();
        stored(&network, &arch)
    };
    let whole = step(&|_| false);
    for frozen in ["conv1", "fc"] {
        let part = step(&|name| name.starts_with(frozen));
        for ((spec, a), (_, b)) in part.iter().zip(whole.iter()) {
            assert_eq!(a == b, !spec.name.starts_with(frozen), "{}", spec.name);
        }
    }
}

/// A frozen batch norm is the function it is in eval mode, and so is its gradient: against differences of the loss.
#[test]
fn the_gradient_through_frozen_batch_norms_is_that_of_eval_mode() {
    for model in [Model::MobilenetV1, Model::Resnet34] {
        let arch = arch(model);
        let (images, labels) = samples(&arch);
        let batch = Batch { images: &images, labels: &labels };
        // Statistics of these very images, so that activations neither vanish nor grow from layer to layer.
        let mut network = Network::new(&arch, COUNT).unwrap();
        network.load(&fresh(&arch)).unwrap();
        for _ in 0..100 {
            network.train_logits(&images, COUNT).unwrap();
        }
        let params = stored(&network, &arch);
        network.freeze(|name| name.contains("running_"));
        let mut gradient = Params::zeros(arch.layout());
        let trained = network.gradients(batch, &mut gradient).unwrap();
        assert_eq!(stored(&network, &arch), params, "{model}: statistics moved");
        assert!((trained.loss_sum - network.evaluate(batch).unwrap().loss_sum).abs() < 1e-4);
        let name = arch.layout().specs()[0].name.clone();
        let position = arch.layout().position(&name).unwrap();
        let direction: Vec<f32> = gradient.at(position).to_vec();
        let slope = norm(&direction);
        let step = 1e-2 / slope;
        let mut loss = |sign: f64| {
            let mut moved = params.clone();
            for (p, d) in moved.at_mut(position).iter_mut().zip(&direction) {
                *p += (sign * step * f64::from(*d) / slope) as f32;
            }
            network.load(&moved).unwrap();
            network.evaluate(batch).unwrap().loss_sum / COUNT as f64
        };
        let found = (loss(1.0) - loss(-1.0)) / (2.0 * step);
        assert!((found - slope).abs() < 0.03 * slope, "{model}: {found} and {slope}");
    }
}
