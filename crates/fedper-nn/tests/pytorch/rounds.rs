//! Two FedPer rounds over three devices, with the engine driven by hand and a plain weighted average.

use fedper_core::params::Params;
use fedper_nn::{Batch, Network};

use crate::support::report::Report;
use crate::support::rounds::{Device, Rounds};

/// One device's local training in the order of its samples; the mean loss of the samples as they were met.
fn train(network: &mut Network, device: &Device, case: &Rounds) -> f64 {
    let per_image = case.arch.input.numel();
    let mut loss = 0.0;
    for _ in 0..case.local_epochs {
        let batches = device.labels.chunks(case.batch).zip(device.images.chunks(case.batch * per_image));
        for (labels, images) in batches {
            loss += network.train_step(Batch { images, labels }, &case.sgd).unwrap().loss_sum;
        }
    }
    loss / (device.labels.len() * case.local_epochs) as f64
}

fn agree(name: &str) {
    let case = Rounds::open(name);
    let mut report = Report::new(format!("{name}: two rounds, K_P = {}", case.personal_layers));
    let all: usize = case.devices.iter().map(|device| device.labels.len()).sum();
    let mut network = Network::new(&case.arch, case.batch).unwrap();
    let mut devices: Vec<Params> = (0..case.devices.len()).map(|j| case.initial(j)).collect();
    for k in 0..case.rounds {
        let mut mean = vec![0f64; case.layout.numel()];
        for (j, device) in case.devices.iter().enumerate() {
            network.load(&devices[j]).unwrap();
            network.reset_momentum();
            let loss = train(&mut network, device, &case);
            case.check_loss(&mut report, k, j, loss);
            network.store(&mut devices[j]).unwrap();
            let share = device.labels.len() as f64 / all as f64;
            for (sum, &value) in mean.iter_mut().zip(devices[j].values()) {
                *sum += share * f64::from(value);
            }
        }
        for device in &mut devices {
            for (position, spec) in case.layout.specs().iter().enumerate() {
                if !case.personal.contains(&spec.name) {
                    let mean = &mean[case.layout.range(position)];
                    device.at_mut(position).iter_mut().zip(mean).for_each(|(v, &m)| *v = m as f32);
                }
            }
        }
    }
    case.check_base(&mut report, &devices[0]);
    for (j, device) in devices.iter().enumerate() {
        case.check_personal(&mut report, j, device);
    }
    report.finish();
}

#[test]
fn mlp() {
    agree("mlp");
}

#[test]
fn cnn() {
    agree("cnn");
}

#[test]
fn resnet34_imagenet_stem() {
    agree("resnet34-imagenet");
}

#[test]
fn resnet34_cifar_stem() {
    agree("resnet34-cifar");
}

#[test]
fn mobilenet_v1_imagenet_stem() {
    agree("mobilenet_v1-imagenet");
}

#[test]
fn mobilenet_v1_cifar_stem() {
    agree("mobilenet_v1-cifar");
}
