//! Every way to compute a layer against the plainest one, on odd shapes and in batches around which the choice changes.

use std::collections::HashSet;

use fedper_core::params::{Kind, Params};
use fedper_core::seed::{Purpose, derive, fill_uniform};
use fedper_nn::{Architecture, Batch, Block, InputShape, InstructionSet, Network, Op, Precision, Sgd, Way};

const CLASSES: usize = 5;

fn conv(name: &str, [inputs, outputs]: [usize; 2], kernel: [usize; 2], stride: usize, padding: usize) -> Op {
    Op::Conv2d {
        name: name.into(),
        in_channels: inputs,
        out_channels: outputs,
        kernel,
        stride,
        padding,
        groups: 1,
        bias: true,
    }
}

fn norm(name: &str, channels: usize) -> Op {
    Op::batch_norm(name, channels)
}

/// `ops` and a linear layer.
fn network(name: &str, input: [usize; 3], mut ops: Vec<Op>) -> Architecture {
    let input = InputShape { channels: input[0], height: input[1], width: input[2] };
    let block = |ops: &[Op]| vec![Block::new("all", ops.to_vec())];
    let open = Architecture { name: name.into(), input, classes: 1, blocks: block(&ops) };
    let (c, h, w) = open.summary()[0].output;
    ops.extend([Op::Flatten, Op::linear("last", c * h * w, CLASSES)]);
    Architecture::from_blocks(name, input, CLASSES, block(&ops)).unwrap()
}

fn networks() -> Vec<Architecture> {
    let depthwise = Op::Conv2d {
        name: "d".into(),
        in_channels: 20,
        out_channels: 20,
        kernel: [3, 3],
        stride: 2,
        padding: 1,
        groups: 20,
        bias: false,
    };
    let block = |channels: usize| Op::Residual {
        main: vec![
            conv("b.1", [channels; 2], [3, 3], 1, 1),
            norm("b.n1", channels),
            Op::Relu,
            conv("b.2", [channels; 2], [3, 3], 1, 1),
            norm("b.n2", channels),
        ],
        shortcut: vec![],
    };
    vec![
        network(
            "pooled lines, pooled tiles",
            [1, 28, 26],
            vec![
                conv("a", [1, 33], [5, 5], 1, 0),
                Op::Relu,
                Op::max_pool(2),
                conv("b", [33, 40], [5, 5], 1, 0),
                Op::Relu,
                Op::max_pool(2),
                Op::Flatten,
                Op::linear("l", 40 * 4 * 3, 70),
                Op::Relu,
            ],
        ),
        network(
            "pooled windows",
            [3, 15, 11],
            vec![conv("a", [3, 20], [3, 3], 1, 1), Op::Relu6, Op::max_pool(2), norm("n", 20), Op::Relu],
        ),
        network(
            "images, tiles",
            [3, 9, 7],
            vec![
                conv("a", [3, 35], [3, 3], 1, 1),
                norm("n", 35),
                Op::Relu,
                conv("b", [35, 48], [3, 3], 1, 1),
                norm("m", 48),
                Op::Relu,
            ],
        ),
        network(
            "residual, parts",
            [3, 6, 5],
            vec![conv("a", [3, 64], [3, 3], 2, 1), norm("n", 64), Op::Relu, block(64), Op::Relu],
        ),
        network(
            "depthwise, taps",
            [2, 11, 9],
            vec![
                conv("a", [2, 20], [3, 3], 1, 1),
                depthwise,
                norm("n", 20),
                Op::Relu6,
                conv("p", [20, 18], [1, 1], 1, 0),
                Op::Relu,
                Op::GlobalAvgPool,
            ],
        ),
        network(
            "linear layers",
            [1, 4, 3],
            vec![Op::Flatten, Op::linear("a", 12, 37), Op::Relu, Op::linear("b", 37, 130), Op::Relu],
        ),
        network(
            "groups of all channels",
            [3, 8, 8],
            vec![
                conv("a", [3, 32], [3, 3], 1, 1),
                Op::GroupNorm { name: "g".into(), groups: 2, channels: 32, affine: true },
                Op::Relu,
                conv("b", [32, 48], [3, 3], 2, 1),
                Op::GroupNorm { name: "h".into(), groups: 1, channels: 48, affine: true },
                Op::Relu6,
            ],
        ),
    ]
}

/// Logits of both, the gradient and what a step makes of the weights and statistics.
fn compute(mut network: Network, params: &Params, batch: Batch<'_>) -> [Vec<f32>; 4] {
    let samples = batch.labels.len();
    network.load(params).unwrap();
    let eval = network.logits(batch.images, samples).unwrap().to_vec();
    let mut gradient = Params::zeros(params.layout().clone());
    network.gradients(batch, &mut gradient).unwrap();
    network.load(params).unwrap();
    let train = network.train_logits(batch.images, samples).unwrap().to_vec();
    let mut after = params.clone();
    network.load(params).unwrap();
    network.train_step(batch, &Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 }).unwrap();
    network.store(&mut after).unwrap();
    [eval, train, gradient.values().to_vec(), after.values().to_vec()]
}

#[test]
fn every_way_computes_what_the_plainest_does() {
    let mut met = HashSet::new();
    for arch in networks() {
        let mut params = arch.init(|name| fedper_core::seed::named(5, Purpose::Init, 0, 0, name));
        for i in 0..params.layout().len() {
            if params.layout().specs()[i].kind == Kind::Buffer {
                params.at_mut(i).iter_mut().for_each(|value| *value += 0.3);
            }
        }
        for samples in [1, 2, 8, 10, 12, 15, 16, 17, 32, 33] {
            let mut rng = derive(samples as u64, Purpose::Init, 0, 0);
            let mut images = vec![0.0; samples * arch.input.numel()];
            fill_uniform(&mut rng, 1.0, &mut images);
            let labels: Vec<u32> = (0..samples as u32).map(|i| i * 3 % CLASSES as u32).collect();
            let batch = Batch { images: &images, labels: &labels };
            let planned = Network::plan(&arch, samples, Precision::Fp32).unwrap();
            met.extend(planned.iter().map(|layer| layer.way));
            // More memory than the batch needs, so that nothing relies on full buffers.
            let fast = compute(Network::new(&arch, samples + 1).unwrap(), &params, batch);
            let plain = compute(Network::plain(&arch, samples + 3).unwrap(), &params, batch);
            for (what, (fast, plain)) in ["eval logits", "train logits", "gradient", "after a step"]
                .iter()
                .zip(fast.iter().zip(&plain))
            {
                let scale = plain.iter().fold(0.1f32, |most, value| most.max(value.abs()));
                for (a, b) in fast.iter().zip(plain) {
                    let name = &arch.name;
                    assert!(
                        (a - b).abs() <= 1e-4 * scale,
                        "{name}, {samples} samples: {what}: {a} is not {b}"
                    );
                }
            }
        }
    }
    let mut all = vec![
        Way::PooledLines,
        Way::PooledWindows,
        Way::Images,
        Way::Depthwise,
        Way::PooledTiles,
        Way::Tiles,
        Way::Taps,
        Way::Walk,
        Way::Matrix,
    ];
    if InstructionSet::current() == InstructionSet::Amx {
        all.push(Way::Parts);
    }
    for way in all {
        assert!(met.contains(&way), "no network here is computed by {way}");
    }
}
