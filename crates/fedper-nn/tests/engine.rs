//! What users of a network rely on: SGD, repeatability, running statistics, errors, names.

use fedper_core::params::{Layout, Params, ParamsError};
use fedper_core::seed::{Purpose, SERVER, derive, fill_normal, named};
use fedper_nn::{Architecture, Batch, InputShape, Model, Network, NnError, Precision, Sgd, Stem};

const SGD: Sgd = Sgd { lr: 0.05, momentum: 0.9, weight_decay: 1e-2 };

fn arch(model: Model, side: usize) -> Architecture {
    let input = InputShape { channels: 3, height: side, width: side };
    Architecture::new(model, Stem::Cifar, input, 10).unwrap()
}

/// Every network in every precision.
fn networks() -> impl Iterator<Item = (Model, Precision)> {
    Model::ALL.into_iter().flat_map(|model| Precision::ALL.map(|precision| (model, precision)))
}

fn fresh(arch: &Architecture) -> Params {
    arch.init(|name| named(5, Purpose::Init, SERVER, 0, name))
}

fn samples(arch: &Architecture, count: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let mut images = vec![0.0; count * arch.input.numel()];
    fill_normal(&mut derive(seed, Purpose::Dataset, 0, 0), 1.0, &mut images);
    (images, (0..count as u32).map(|i| i % 10).collect())
}

#[test]
fn a_step_is_sgd_on_the_gradient() {
    let arch = arch(Model::Cnn, 16);
    let (images, labels) = samples(&arch, 4, 1);
    let batch = Batch { images: &images, labels: &labels };
    let mut params = fresh(&arch);
    let mut network = Network::new(&arch, 4).unwrap();
    let mut velocity = vec![0f32; params.values().len()];
    for _ in 0..3 {
        let mut gradient = Params::zeros(arch.layout());
        network.load(&params).unwrap();
        network.gradients(batch, &mut gradient).unwrap();
        network.train_step(batch, &SGD).unwrap();
        for ((p, v), g) in params.values_mut().iter_mut().zip(&mut velocity).zip(gradient.values()) {
            *v = SGD.momentum * *v + (g + SGD.weight_decay * *p);
            *p -= SGD.lr * *v;
        }
        let mut stored = Params::zeros(arch.layout());
        network.store(&mut stored).unwrap();
        assert_eq!(stored, params);
    }
}

#[test]
fn results_repeat_whatever_ran_before() {
    for (model, precision) in networks() {
        let arch = arch(model, 16);
        let (images, labels) = samples(&arch, 6, 1);
        let batch = Batch { images: &images, labels: &labels };
        let train = |network: &mut Network| {
            network.load(&fresh(&arch)).unwrap();
            network.reset_momentum();
            let metrics: Vec<_> = (0..3).map(|_| network.train_step(batch, &SGD).unwrap()).collect();
            let mut params = Params::zeros(arch.layout());
            network.store(&mut params).unwrap();
            (metrics, params)
        };
        let expected = train(&mut Network::with_precision(&arch, 6, precision).unwrap());
        let mut used = Network::with_precision(&arch, 9, precision).unwrap();
        let (other, labels) = samples(&arch, 9, 2);
        used.train_step(Batch { images: &other, labels: &labels }, &SGD).unwrap();
        used.evaluate(Batch { images: &other, labels: &labels }).unwrap();
        assert_eq!(train(&mut used), expected, "{model} {precision}");
        assert!(expected.1.first_non_finite().is_none());
    }
}

#[test]
fn evaluation_does_not_depend_on_the_batch() {
    for (model, precision) in networks() {
        let arch = arch(model, 16);
        let (images, _) = samples(&arch, 5, 1);
        let mut network = Network::with_precision(&arch, 5, precision).unwrap();
        network.load(&fresh(&arch)).unwrap();
        let together = network.logits(&images, 5).unwrap().to_vec();
        for (i, image) in images.chunks_exact(arch.input.numel()).enumerate() {
            for (a, b) in network.logits(image, 1).unwrap().iter().zip(&together[i * 10..]) {
                assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{model} {precision}: {a} {b}");
            }
        }
    }
}

#[test]
fn running_statistics_move_by_a_tenth_and_large_means_do_not_cancel() {
    let arch = arch(Model::MobilenetV1, 16);
    let (mut images, _) = samples(&arch, 8, 1);
    // A mean that is huge against the deviation must not cancel.
    images.iter_mut().for_each(|v| *v += 1000.0);
    let mut network = Network::new(&arch, 8).unwrap();
    let mut params = fresh(&arch);
    // Only the middle of the stem's kernel reads channel 0: its batch norm sees the image itself.
    let stem = params.layout().position("conv_stem.weight").unwrap();
    params.at_mut(stem).fill(0.0);
    params.at_mut(stem)[4] = 1.0;
    network.load(&params).unwrap();
    network.train_logits(&images, 8).unwrap();
    network.store(&mut params).unwrap();
    let values: Vec<f64> = images.iter().step_by(3).map(|&v| f64::from(v)).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
    let close = |found: f32, expected: f64| {
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{found} {expected}")
    };
    close(params.get("bn1.running_mean").unwrap()[0], 0.1 * mean);
    close(params.get("bn1.running_var").unwrap()[0], 0.9 + 0.1 * var);
}

#[test]
fn every_model_learns_a_batch_by_heart() {
    for (model, precision) in networks() {
        let arch = arch(model, 16);
        let (images, labels) = samples(&arch, 8, 1);
        let batch = Batch { images: &images, labels: &labels };
        let mut network = Network::with_precision(&arch, 8, precision).unwrap();
        network.load(&fresh(&arch)).unwrap();
        let sgd = Sgd { lr: 0.01, momentum: 0.9, weight_decay: 0.0 };
        let losses: Vec<f64> = (0..40).map(|_| network.train_step(batch, &sgd).unwrap().loss_sum).collect();
        assert!(losses[39] < 0.5 * losses[0], "{model} {precision}: {losses:?}");
    }
}

#[test]
fn wrong_input_is_an_error_and_changes_nothing() {
    let arch = arch(Model::Resnet34, 8);
    let (images, labels) = samples(&arch, 3, 1);
    let size = arch.input.numel();
    let mut network = Network::new(&arch, 2).unwrap();
    network.load(&fresh(&arch)).unwrap();
    let mut step =
        |images: &[f32], labels: &[u32]| network.train_step(Batch { images, labels }, &SGD).unwrap_err();
    assert_eq!(step(&[], &[]), NnError::BatchSize { maximum: 2, found: 0 });
    assert_eq!(step(&images, &labels), NnError::BatchSize { maximum: 2, found: 3 });
    assert_eq!(
        step(&images[1..2 * size], &labels[..2]),
        NnError::ImageLength { samples: 2, per_sample: size, found: 2 * size - 1 }
    );
    assert_eq!(step(&images[..2 * size], &[0, 10]), NnError::Label { sample: 1, label: 10, classes: 10 });
    assert_eq!(arch.min_train_batch(), 2);
    assert_eq!(step(&images[..size], &[0]), NnError::SingleValue { layer: "layer4.0.downsample.1".into() });
    assert!(network.evaluate(Batch { images: &images[..size], labels: &[0] }).is_ok());
    let mut params = Params::zeros(arch.layout());
    network.store(&mut params).unwrap();
    assert_eq!(params, fresh(&arch));
    assert!(matches!(Network::new(&arch, 0), Err(NnError::BatchSize { .. })));
}

#[test]
fn parameters_are_matched_by_name_and_shape() {
    let arch = arch(Model::Mlp, 2);
    let mut network = Network::new(&arch, 1).unwrap();
    let params = fresh(&arch);
    let specs = arch.layout().specs().to_vec();
    let mut reversed = Params::zeros(Layout::new(specs.iter().rev().cloned().collect()).unwrap());
    network.load(&params).unwrap();
    network.store(&mut reversed).unwrap();
    assert!(params.iter().all(|(spec, values)| reversed.get(&spec.name) == Some(values)));
    let mut back = Params::zeros(arch.layout());
    let mut second = Network::new(&arch, 1).unwrap();
    second.load(&reversed).unwrap();
    second.store(&mut back).unwrap();
    assert_eq!(back, params);

    let wrong = |specs| Params::zeros(Layout::new(specs).unwrap());
    assert_eq!(network.load(&wrong(specs[1..].to_vec())), Err(ParamsError::Missing("fc1.weight".into())));
    let mut shape = specs.clone();
    shape[0].shape.swap(0, 1);
    assert!(matches!(network.load(&wrong(shape)), Err(ParamsError::Shape { .. })));
    let mut more = specs;
    more.push(fedper_core::params::Spec::trainable("fc4.bias", [1]));
    assert_eq!(network.load(&wrong(more)), Err(ParamsError::Unknown("fc4.bias".into())));
}

#[test]
fn blocks_names_and_counts_are_the_fields() {
    // torchvision's resnet34, timm's mobilenetv1_100, PFLlib's FedAvgCNN and the 2NN, with these heads.
    let count = |model, channels, side, classes| {
        let input = InputShape { channels, height: side, width: side };
        let arch = Architecture::new(model, Stem::Imagenet, input, classes).unwrap();
        let summary = arch.summary();
        (summary.len(), summary.iter().map(|block| block.trainable).sum::<usize>())
    };
    assert_eq!(count(Model::Resnet34, 3, 224, 1000), (18, 21_797_672));
    assert_eq!(count(Model::MobilenetV1, 3, 224, 1000), (15, 4_231_976));
    assert_eq!(count(Model::Cnn, 1, 28, 10), (4, 582_026));
    assert_eq!(count(Model::Mlp, 1, 28, 10), (3, 199_210));

    let arch = arch(Model::Resnet34, 32);
    assert!(arch.personal_names(0).unwrap().is_empty());
    assert_eq!(arch.personal_names(1).unwrap(), ["fc.weight", "fc.bias"]);
    assert!(arch.personal_names(2).unwrap().contains(&"layer4.2.bn2.running_var".to_owned()));
    assert_eq!(arch.personal_names(18).unwrap().len(), arch.layout().len());
    assert!(matches!(arch.personal_names(19), Err(NnError::PersonalLayers { maximum: 18, .. })));
    assert_eq!(arch.block_of("layer1.0.conv1.weight"), Some(1));
    assert_eq!(arch.block_of("layer5"), None);
    for model in Model::ALL {
        assert_eq!(model.to_string().parse::<Model>().unwrap(), model);
    }
    assert!("vgg".parse::<Model>().is_err() && "none".parse::<Stem>().is_err());
    let small = InputShape { channels: 1, height: 15, width: 28 };
    let error = Architecture::new(Model::Cnn, Stem::Cifar, small, 10).unwrap_err();
    assert!(error.to_string().contains("too small"), "{error}");
}
