//! Single layers and short sequences: outputs, loss, and the gradient of every input value and parameter, to 1e-4.

use fedper_core::params::{Params, Spec};
use fedper_nn::{Architecture, Batch, Block, InputShape, Network, Op, Sgd};
use serde_json::Value;

use crate::support::formula::{self, Start};
use crate::support::golden::{Golden, distance};
use crate::support::report::Report;

const TOLERANCE: f64 = 1e-4;

pub(crate) fn ops(list: &Value) -> Vec<Op> {
    list.as_array().unwrap().iter().map(op).collect()
}

fn op(value: &Value) -> Op {
    let number = |key: &str| value[key].as_u64().unwrap_or_else(|| panic!("{key} of {value}")) as usize;
    let name = || value["name"].as_str().unwrap().to_owned();
    match value["op"].as_str().unwrap() {
        "conv2d" => Op::Conv2d {
            name: name(),
            in_channels: number("in_channels"),
            out_channels: number("out_channels"),
            kernel: [0, 1].map(|i| value["kernel"][i].as_u64().unwrap() as usize),
            stride: number("stride"),
            padding: number("padding"),
            groups: number("groups"),
            bias: value["bias"].as_bool().unwrap(),
        },
        "batch_norm2d" => Op::BatchNorm2d { name: name(), channels: number("channels") },
        "group_norm" => Op::GroupNorm {
            name: name(),
            groups: number("groups"),
            channels: number("channels"),
            affine: value["affine"].as_bool().unwrap(),
        },
        "relu" => Op::Relu,
        "relu6" => Op::Relu6,
        "max_pool" => {
            Op::MaxPool { kernel: number("kernel"), stride: number("stride"), padding: number("padding") }
        }
        "global_avg_pool" => Op::GlobalAvgPool,
        "flatten" => Op::Flatten,
        "linear" => Op::Linear {
            name: name(),
            in_features: number("in_features"),
            out_features: number("out_features"),
        },
        "residual" => Op::Residual { main: ops(&value["main"]), shortcut: ops(&value["shortcut"]) },
        other => panic!("unknown operation {other}"),
    }
}

fn linear(name: &str, in_features: usize, out_features: usize) -> Op {
    Op::Linear { name: name.to_owned(), in_features, out_features }
}

/// A case as a network whose first layer stands for the input.
///
/// The images hold a one at a channel of their own for each sample and position, so that the weights of a 1x1
/// convolution over them are the values that come out of it, and their gradient is the gradient of these values.
struct Case {
    name: String,
    n: usize,
    input: InputShape,
    images: Vec<f32>,
    values: Vec<f32>,
    ops: Vec<Op>,
}

impl Case {
    fn new(name: &str, case: &Value) -> Self {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (n, c, height, width) = (number("batch"), number("channels"), number("height"), number("width"));
        let places = n * height * width;
        let mut images = vec![0.0; places * places];
        (0..places).for_each(|p| images[p * places + p] = 1.0);
        let float = |key: &str, default| case[key].as_f64().unwrap_or(default);
        let (scale, shift, levels) = (float("scale", 1.0), float("shift", 0.0), case["levels"].as_f64());
        let values = formula::unit(&format!("{name}/input"), c * places)
            .map(|u| formula::spread(u, scale, shift, levels))
            .collect();
        let source = Op::Conv2d {
            name: "input".to_owned(),
            in_channels: places,
            out_channels: c,
            kernel: [1, 1],
            stride: 1,
            padding: 0,
            groups: 1,
            bias: false,
        };
        let ops = std::iter::once(source).chain(ops(&case["ops"])).collect();
        Self {
            name: name.to_owned(),
            n,
            input: InputShape { channels: places, height, width },
            images,
            values,
            ops,
        }
    }

    /// The network that ends in `tail`, with all its parameters.
    fn network(&self, tail: Vec<Op>, classes: usize) -> (Network, Params) {
        let ops = self.ops.iter().cloned().chain(tail).collect();
        let block = Block { name: "all".to_owned(), ops };
        let arch = Architecture::from_blocks(self.name.clone(), self.input, classes, vec![block]).unwrap();
        let layout = arch.layout();
        let mut params = formula::params(&self.name, &layout, Start::default());
        for (position, spec) in layout.specs().iter().enumerate() {
            if spec.name == "input.weight" {
                params.at_mut(position).copy_from_slice(&self.values);
            } else if spec.name == "identity.weight" {
                params.at_mut(position).fill(0.0);
                params.at_mut(position).iter_mut().step_by(classes + 1).for_each(|w| *w = 1.0);
            } else if spec.name == "identity.bias" {
                params.at_mut(position).fill(0.0);
            } else if let Some(own) = spec.name.strip_prefix("head.") {
                let spec = Spec { name: own.to_owned(), ..spec.clone() };
                let values = formula::parameter(&format!("{}/head", self.name), &spec, Start::default());
                params.at_mut(position).copy_from_slice(&values);
            }
        }
        let mut network = Network::new(&arch, self.n).unwrap();
        network.load(&params).unwrap();
        (network, params)
    }

    fn check(&self, golden: &Golden, features: usize, report: &mut Report) {
        let prefix = format!("{}/", self.name);
        let group = self.name.split(' ').next().unwrap();
        let mut check = |name: &str, found: &[f32]| {
            let full = format!("{prefix}{name}");
            // The input gradient of a batch norm over two values is the small rest of a cancellation: PyTorch's own
            // float32 is 4e-4 from float64 there, and nowhere else as far as 1e-4.
            let allowed = TOLERANCE.max(1.5 * golden.distances(&full).contiguous);
            let distance = golden.distance(&prefix, name, found);
            report.check(&format!("{group}: {}", kind(name)), &full, distance, allowed);
        };

        // A network ends in a vector: the identity brings the output there unchanged.
        let (mut network, _) =
            self.network(vec![Op::Flatten, linear("identity", features, features)], features);
        check("output/eval", network.logits(&self.images, self.n).unwrap());
        check("output/train", network.train_logits(&self.images, self.n).unwrap());

        let classes = 10;
        let tail = vec![Op::Flatten, linear("head", features, classes)];
        let (mut network, initial) = self.network(tail, classes);
        let labels = formula::labels(&self.name, self.n, classes);
        let batch = Batch { images: &self.images, labels: &labels };
        let mut params = initial.clone();
        let mut gradients = Params::zeros(params.layout().clone());
        let loss = network.gradients(batch, &mut gradients).unwrap().loss_sum / self.n as f64;
        check("loss", &[loss as f32]);
        network.store(&mut params).unwrap();
        for name in golden.names(&format!("{prefix}buffer/")) {
            check(&format!("buffer/{name}"), params.get(&name).unwrap());
        }
        for name in golden.names(&format!("{prefix}gradient/")) {
            check(&format!("gradient/{name}"), gradients.get(parameter(&name)).unwrap());
        }

        let stepped = golden.names(&format!("{prefix}stepped/"));
        if !stepped.is_empty() {
            let sgd = golden.scalar("sgd");
            let float = |key: &str| sgd[key].as_f64().unwrap() as f32;
            let sgd =
                Sgd { lr: float("lr"), momentum: float("momentum"), weight_decay: float("weight_decay") };
            network.load(&initial).unwrap();
            for _ in 0..golden.scalar("steps").as_u64().unwrap() {
                network.train_step(batch, &sgd).unwrap();
            }
            network.store(&mut params).unwrap();
            for name in stepped {
                check(&format!("stepped/{name}"), params.get(parameter(&name)).unwrap());
            }
        }
    }
}

/// What a golden file calls `input` is the weight of the convolution that stands for it.
fn parameter(name: &str) -> &str {
    if name == "input" { "input.weight" } else { name }
}

fn kind(name: &str) -> &str {
    match name {
        "gradient/input" => "input gradient",
        _ => name.split('/').next().unwrap(),
    }
}

#[test]
fn layers_agree_with_pytorch() {
    let golden = Golden::open("layers.safetensors");
    let ill_conditioned =
        golden.names("").into_iter().filter(|n| golden.distances(n).contiguous > TOLERANCE / 1.5);
    assert_eq!(ill_conditioned.collect::<Vec<_>>(), ["batch norm 16 1x1 n2/gradient/input"]);
    let mut report = Report::new("layers");
    for (name, case) in golden.scalar("cases").as_object().unwrap() {
        let features = case["features"].as_u64().unwrap() as usize;
        Case::new(name, case).check(&golden, features, &mut report);
    }
    report.finish();
}

#[test]
fn the_comparison_sees_a_wrong_entry() {
    let golden = Golden::open("layers.safetensors");
    let name = "flatten linear n7/gradient/layer.bias";
    let mut values = golden.get(name);
    assert_eq!(golden.distance("flatten linear n7/", "gradient/layer.bias", &values), 0.0);
    values[3] *= 1.01;
    assert!(distance(&values, &golden.get(name)) > 1e-5);
    values[3] = f32::NAN;
    assert!(distance(&values, &golden.get(name)).is_nan());
}
