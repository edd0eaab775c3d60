//! Whole networks in bf16: no further from PyTorch's float64 than 1.5 times what PyTorch's own autocast to bf16 is.
//!
//! That is far at the very beginning of a deep network's training, where rounding decides what many ReLUs let pass.
//! That each convolution is right is shown layer by layer, against plain loops of rounded operands.

use fedper_core::params::Params;
use fedper_nn::{Batch, Network, Precision};

use crate::support::formula::{self, Start};
use crate::support::golden::{Golden, distance, path};
use crate::support::report::Report;
use crate::support::rounds::architecture;

fn is_as_exact(name: &str) {
    let golden = Golden::open(&format!("network-{name}.safetensors"));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path("bf16.json")).unwrap()).unwrap();
    let theirs = |part: &str| json["distances"][name][part].as_f64().unwrap();
    let case = golden.scalar("case");
    let arch = architecture(case);
    let n = case["batch"].as_u64().unwrap() as usize;
    let set = format!("{name}/{}", case["number"]);
    let images = formula::images(&set, n, arch.input.height, arch.input.width, arch.input.channels);
    let labels = formula::labels(name, n, arch.classes);
    let start = Start { variance: case["variance"].as_f64().unwrap(), ..Start::default() };
    let mut network = Network::with_precision(&arch, n, Precision::Bf16).unwrap();
    network.load(&formula::params("server", &arch.layout(), start)).unwrap();

    let mut report = Report::new(format!("{name} in bf16"));
    let far = golden.distance("", "train/logits", network.train_logits(&images, n).unwrap());
    report.check("outputs", "train/logits", far, 1.5 * theirs("train/logits"));
    let mut gradients = Params::zeros(arch.layout());
    network.gradients(Batch { images: &images, labels: &labels }, &mut gradients).unwrap();
    let (mut found, mut want) = (Vec::new(), Vec::new());
    for name in golden.names("gradient/") {
        let (values, kept) = (gradients.get(&name).unwrap(), golden.get(&format!("gradient/{name}")));
        let entries = formula::entries(&format!("gradient/{name}"), values.len(), kept.len());
        found.extend(entries.into_iter().map(|i| values[i]));
        want.extend(kept);
    }
    report.check("gradients", "all", distance(&found, &want), 1.5 * theirs("gradient"));
    report.finish();
}

#[test]
fn cnn() {
    is_as_exact("cnn");
}

#[test]
fn resnet34_imagenet_stem() {
    is_as_exact("resnet34-imagenet");
}

#[test]
fn resnet34_cifar_stem() {
    is_as_exact("resnet34-cifar");
}

#[test]
fn mobilenet_v1_imagenet_stem() {
    is_as_exact("mobilenet_v1-imagenet");
}

#[test]
fn mobilenet_v1_cifar_stem() {
    is_as_exact("mobilenet_v1-cifar");
}
