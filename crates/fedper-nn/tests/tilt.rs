//! Tilted steps: `gradient += pull * (w - toward) + add`, after clipping and before weight decay and momentum.

use std::sync::Arc;

use fedper_core::params::{Kind, Layout, Params, ParamsError, Spec};
use fedper_core::seed::{Purpose, SERVER, derive, fill_normal, named};
use fedper_nn::{Architecture, Batch, InputShape, Model, Network, NnError, Precision, Sgd, Stem};

const SGD: Sgd = Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-2 };
const PULL: f32 = 0.3;
const COUNT: usize = 5;

/// With this stem the last planes have a single position, where most taps of a filter never meet the input.
fn arch(model: Model) -> Architecture {
    let input = InputShape { channels: 3, height: 17, width: 19 };
    Architecture::new(model, Stem::Imagenet, input, 7).unwrap()
}

/// Every network in every precision.
fn networks() -> impl Iterator<Item = (Architecture, Precision)> {
    Model::ALL.into_iter().flat_map(|model| Precision::ALL.map(|precision| (arch(model), precision)))
}

fn fresh(arch: &Architecture) -> Params {
    arch.init(|name| named(5, Purpose::Init, SERVER, 0, name))
}

fn samples(arch: &Architecture) -> (Vec<f32>, Vec<u32>) {
    let mut images = vec![0.0; COUNT * arch.input.numel()];
    fill_normal(&mut derive(1, Purpose::Dataset, 0, 0), 1.0, &mut images);
    (images, (0..COUNT as u32).map(|i| i % 7).collect())
}

fn stored(network: &Network) -> Params {
    let mut params = Params::zeros(network.layout().clone());
    network.store(&mut params).unwrap();
    params
}

fn loaded(arch: &Architecture, precision: Precision) -> Network {
    let mut network = Network::with_precision(arch, COUNT, precision).unwrap();
    network.load(&fresh(arch)).unwrap();
    network
}

/// Random values for what `keep` keeps of a network's parameters, from the last to the first.
fn noise(layout: &Layout, seed: u64, keep: impl Fn(usize, &Spec) -> bool) -> Params {
    let kept = layout.specs().iter().enumerate().rev().filter(|(i, spec)| keep(*i, spec));
    let mut params = Params::zeros(Layout::new(kept.map(|(_, spec)| spec.clone()).collect()).unwrap());
    fill_normal(&mut derive(seed, Purpose::Dataset, 1, 0), 0.1, params.values_mut());
    params
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// What a step is, written out.
struct Slow<'a> {
    sgd: Sgd,
    pull: f32,
    toward: &'a Params,
    add: &'a Params,
    max_norm: Option<f64>,
    frozen: &'a dyn Fn(&str) -> bool,
    velocity: Params,
}

impl Slow<'_> {
    fn step(&mut self, params: &mut Params, gradient: &Params) {
        let layout = params.layout().clone();
        let trains = |spec: &Spec| spec.kind == Kind::Trainable && !(self.frozen)(&spec.name);
        let squares = gradient.iter().filter(|(spec, _)| trains(spec)).map(|(_, g)| norm(g).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let factor = self.max_norm.map_or(1.0, |max| (max / (norm + 1e-6)).min(1.0) as f32);
        for (i, spec) in layout.specs().iter().enumerate().filter(|(_, spec)| trains(spec)) {
            let (toward, add) = (self.toward.get(&spec.name), self.add.get(&spec.name));
            let velocity = self.velocity.at_mut(i);
            for (j, w) in params.at_mut(i).iter_mut().enumerate() {
                let mut g = factor * gradient.at(i)[j];
                g += toward.map_or(0.0, |toward| self.pull * (*w - toward[j]));
                g += add.map_or(0.0, |add| add[j]);
                velocity[j] = self.sgd.momentum * velocity[j] + (g + self.sgd.weight_decay * *w);
                *w -= self.sgd.lr * velocity[j];
            }
        }
    }
}

#[test]
fn a_tilted_step_is_sgd_on_the_corrected_gradient() {
    let ways = [
        (SGD, None, false),
        (Sgd { momentum: 0.0, weight_decay: 0.0, ..SGD }, None, true),
        (Sgd { weight_decay: 0.0, ..SGD }, Some(0.2), false),
        (SGD, Some(0.2), true),
    ];
    for (arch, precision) in networks() {
        let (images, labels) = samples(&arch);
        let batch = Batch { images: &images, labels: &labels };
        let personal = arch.personal_names(2).unwrap();
        let layout = arch.layout();
        // Parts that overlap in part, and that name running statistics and frozen parameters too.
        let toward = noise(&layout, 2, |i, _| i % 3 != 0);
        let add = noise(&layout, 3, |i, _| i % 4 != 1);
        for (sgd, max_norm, freeze) in ways {
            let frozen = |name: &str| freeze && !personal.iter().any(|own| own == name);
            let velocity = Params::zeros(layout.clone());
            let (toward, add, frozen) = (&toward, &add, &frozen);
            let mut slow = Slow { sgd, pull: PULL, toward, add, max_norm, frozen, velocity };
            let mut network = loaded(&arch, precision);
            let mut probe = loaded(&arch, precision);
            network.freeze(frozen);
            probe.freeze(frozen);
            network.tilt(PULL, Some(toward), Some(add)).unwrap();
            for _ in 0..2 {
                let before = stored(&network);
                let mut gradient = Params::zeros(layout.clone());
                probe.load(&before).unwrap();
                probe.gradients(batch, &mut gradient).unwrap();
                match max_norm {
                    Some(max_norm) => network.train_step_clipped(batch, &sgd, max_norm).unwrap(),
                    None => network.train_step(batch, &sgd).unwrap(),
                };
                // Statistics are the forward pass's own.
                let mut expected = stored(&probe);
                slow.step(&mut expected, &gradient);
                for ((spec, found), (_, want)) in stored(&network).iter().zip(expected.iter()) {
                    let difference: Vec<f32> = found.iter().zip(want).map(|(a, b)| a - b).collect();
                    // Norms are added up in another order.
                    let allowed = if max_norm.is_some() { 1e-6 * norm(want) } else { 0.0 };
                    let at = format!("{} {precision} {sgd:?} {max_norm:?} {}", arch.name, spec.name);
                    assert!(norm(&difference) <= allowed, "{at}: {}", norm(&difference));
                }
            }
        }
    }
}

type Prepare<'a> = dyn Fn(&mut Network) -> Result<(), NnError> + 'a;

/// Three steps of training after `prepare`.
fn trained(arch: &Architecture, precision: Precision, prepare: impl FnOnce(&mut Network)) -> Params {
    let (images, labels) = samples(arch);
    let batch = Batch { images: &images, labels: &labels };
    let mut network = loaded(arch, precision);
    prepare(&mut network);
    for _ in 0..2 {
        network.train_step(batch, &SGD).unwrap();
    }
    network.train_step_clipped(batch, &SGD, 0.5).unwrap();
    stored(&network)
}

#[test]
fn what_is_no_tilt_changes_no_bit() {
    // Which array lies where is the layers' affair, and these have them all.
    let networks = networks().filter(|(arch, _)| arch.name != Model::Resnet34.to_string());
    for (arch, precision) in networks {
        let layout = arch.layout();
        let some = noise(&layout, 2, |_, _| true);
        let nothing = noise(&layout, 2, |_, spec| spec.kind == Kind::Buffer);
        let plain = trained(&arch, precision, |_| {});
        let tilted = trained(&arch, precision, |network| network.tilt(PULL, Some(&some), None).unwrap());
        assert_ne!(plain, tilted);
        let none: [&Prepare; 5] = [
            &|network| network.tilt(0.0, Some(&some), None),
            &|network| network.tilt(PULL, None, None),
            &|network| network.tilt(PULL, Some(&nothing), Some(&nothing)),
            &|network| {
                network.tilt(PULL, Some(&some), Some(&some))?;
                network.untilt();
                Ok(())
            },
            // What the last tilt named, and this one does not.
            &|network| {
                network.tilt(PULL, Some(&some), Some(&some))?;
                network.tilt(PULL, Some(&nothing), None)
            },
        ];
        for (i, prepare) in none.iter().enumerate() {
            let found = trained(&arch, precision, |network| prepare(network).unwrap());
            assert_eq!(found, plain, "{} {precision} {i}", arch.name);
        }
    }
}

#[test]
fn at_the_anchor_the_correction_is_exactly_nothing() {
    for (arch, precision) in networks() {
        let (images, labels) = samples(&arch);
        let batch = Batch { images: &images, labels: &labels };
        let step = |pull: Option<f32>| {
            let mut network = loaded(&arch, precision);
            if let Some(pull) = pull {
                network.tilt(pull, Some(&fresh(&arch)), None).unwrap();
            }
            network.train_step(batch, &SGD).unwrap();
            stored(&network)
        };
        assert_eq!(step(Some(1e6)), step(None), "{} {precision}", arch.name);
    }
}

/// By hand, without a gradient in the way: dead inputs leave the weights of the first layer to the tilt alone.
#[test]
fn a_weight_without_gradient_goes_where_it_is_pulled() {
    let arch = arch(Model::Mlp);
    let (images, labels) = (vec![0.0; COUNT * arch.input.numel()], vec![1; COUNT]);
    let batch = Batch { images: &images, labels: &labels };
    let mut network = loaded(&arch, Precision::Fp32);
    let layout = arch.layout();
    let toward = noise(&layout, 4, |i, _| i == 0);
    network.tilt(1.0, Some(&toward), None).unwrap();
    network.train_step(batch, &Sgd { lr: 1.0, momentum: 0.0, weight_decay: 0.0 }).unwrap();
    let found = stored(&network);
    for (found, want) in found.at(0).iter().zip(toward.values()) {
        assert!((found - want).abs() <= 1e-6 * (1.0 + want.abs()), "{found} {want}");
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let arch = arch(Model::Cnn);
    let layout = arch.layout();
    let some = noise(&layout, 2, |i, _| i < 3);
    let name = layout.specs()[0].name.clone();
    let params = |spec: Spec| Params::zeros(Layout::new(vec![spec]).unwrap());
    let unknown = params(Spec::trainable("control/x", [1]));
    let shape: Vec<usize> = layout.specs()[0].shape.iter().rev().copied().collect();
    let turned = params(Spec::trainable(name.clone(), shape.clone()));
    let tilted =
        trained(&arch, Precision::Fp32, |network| network.tilt(PULL, Some(&some), Some(&some)).unwrap());
    let found = trained(&arch, Precision::Fp32, |network| {
        network.tilt(PULL, Some(&some), Some(&some)).unwrap();
        let wrong = NnError::Params(ParamsError::Unknown("control/x".into()));
        assert_eq!(network.tilt(1.0, Some(&unknown), None), Err(wrong));
        let expected = layout.specs()[0].shape.clone();
        let wrong = NnError::Params(ParamsError::Shape { name, expected, found: shape });
        assert_eq!(network.tilt(0.0, Some(&some), Some(&turned)), Err(wrong));
    });
    assert_eq!(found, tilted);
}

/// Gradients are those of the loss, tilted or not; evaluation does not know of it.
#[test]
fn a_tilt_is_of_steps_alone() {
    let arch = arch(Model::Resnet34);
    let (images, labels) = samples(&arch);
    let batch = Batch { images: &images, labels: &labels };
    let layout: Arc<Layout> = arch.layout();
    let some = noise(&layout, 2, |_, _| true);
    let look = |tilt: bool| {
        let mut network = loaded(&arch, Precision::Fp32);
        if tilt {
            network.tilt(PULL, Some(&some), Some(&some)).unwrap();
        }
        let mut gradient = Params::zeros(layout.clone());
        network.gradients(batch, &mut gradient).unwrap();
        (gradient, network.evaluate(batch).unwrap(), stored(&network))
    };
    assert_eq!(look(true), look(false));
}
