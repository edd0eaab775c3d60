//! Every layer, in networks of a few of them, against plain loops in f64: logits directly, gradients by central
//! differences. The layer under test sits between others, so that its input gradient is checked through theirs.

use std::collections::HashMap;

use fedper_core::params::{Kind, Params};
use fedper_core::seed::{Purpose, derive, fill_uniform};
use fedper_nn::{Architecture, Batch, Block, InputShape, Network, Op};

type Values = HashMap<String, Vec<f64>>;

/// `[batch][channels][height][width]`
#[derive(Clone)]
struct Tensor {
    n: usize,
    c: usize,
    h: usize,
    w: usize,
    v: Vec<f64>,
}

impl Tensor {
    fn new(n: usize, c: usize, h: usize, w: usize) -> Self {
        Self { n, c, h, w, v: vec![0.0; n * c * h * w] }
    }

    fn at(&self, n: usize, c: usize, h: usize, w: usize) -> f64 {
        self.v[((n * self.c + c) * self.h + h) * self.w + w]
    }

    fn fill(mut self, f: impl Fn(usize, usize, usize, usize) -> f64) -> Self {
        for i in 0..self.v.len() {
            let (w, h) = (i % self.w, i / self.w % self.h);
            let (c, n) = (i / self.w / self.h % self.c, i / self.w / self.h / self.c);
            self.v[i] = f(n, c, h, w);
        }
        self
    }

    /// The values of a window that lie on the input, with their places in the window.
    fn window(
        &self,
        at: [usize; 4],
        k: [usize; 2],
        stride: usize,
        padding: usize,
    ) -> Vec<(usize, usize, f64)> {
        let [n, c, oh, ow] = at;
        let mut values = Vec::new();
        for kh in 0..k[0] {
            for kw in 0..k[1] {
                let (h, w) = (oh * stride + kh, ow * stride + kw);
                if h >= padding && w >= padding && h - padding < self.h && w - padding < self.w {
                    values.push((kh, kw, self.at(n, c, h - padding, w - padding)));
                }
            }
        }
        values
    }
}

fn run(ops: &[Op], mut x: Tensor, p: &Values, train: bool) -> Tensor {
    for op in ops {
        let out = |extent: usize, k: usize, s: usize, pad: usize| (extent + 2 * pad - k) / s + 1;
        x = match op {
            Op::Conv2d { name, in_channels, out_channels, kernel, stride, padding, groups, bias } => {
                let (weight, [kh, kw]) = (&p[&format!("{name}.weight")], *kernel);
                let (ig, og) = (in_channels / groups, out_channels / groups);
                let (h, w) = (out(x.h, kh, *stride, *padding), out(x.w, kw, *stride, *padding));
                Tensor::new(x.n, *out_channels, h, w).fill(|n, o, h, w| {
                    let mut sum = if *bias { p[&format!("{name}.bias")][o] } else { 0.0 };
                    for i in 0..ig {
                        for (a, b, v) in x.window([n, o / og * ig + i, h, w], *kernel, *stride, *padding) {
                            sum += v * weight[((o * ig + i) * kh + a) * kw + b];
                        }
                    }
                    sum
                })
            }
            Op::BatchNorm2d { name, channels } => {
                let part = |part: &str| &p[&format!("{name}.{part}")];
                let statistics: Vec<(f64, f64)> = (0..*channels)
                    .map(|c| {
                        let values: Vec<f64> = (0..x.n)
                            .flat_map(|n| (0..x.h * x.w).map(move |i| (n, i)))
                            .map(|(n, i)| x.at(n, c, i / x.w, i % x.w))
                            .collect();
                        let mean = values.iter().sum::<f64>() / values.len() as f64;
                        let var =
                            values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
                        if train { (mean, var) } else { (part("running_mean")[c], part("running_var")[c]) }
                    })
                    .collect();
                Tensor::new(x.n, x.c, x.h, x.w).fill(|n, c, h, w| {
                    let (mean, var) = statistics[c];
                    (x.at(n, c, h, w) - mean) / (var + 1e-5).sqrt() * part("weight")[c] + part("bias")[c]
                })
            }
            Op::GroupNorm { name, groups, channels, affine } => {
                let size = channels / groups;
                let statistics: Vec<(f64, f64)> = (0..x.n * groups)
                    .map(|i| {
                        let values = &x.v[i * size * x.h * x.w..][..size * x.h * x.w];
                        let mean = values.iter().sum::<f64>() / values.len() as f64;
                        let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
                        (mean, squares / values.len() as f64)
                    })
                    .collect();
                Tensor::new(x.n, x.c, x.h, x.w).fill(|n, c, h, w| {
                    let (mean, var) = statistics[n * groups + c / size];
                    let value = (x.at(n, c, h, w) - mean) / (var + 1e-5).sqrt();
                    match affine {
                        true => value * p[&format!("{name}.weight")][c] + p[&format!("{name}.bias")][c],
                        false => value,
                    }
                })
            }
            Op::Relu => Tensor { v: x.v.iter().map(|v| v.max(0.0)).collect(), ..x },
            Op::Relu6 => Tensor { v: x.v.iter().map(|v| v.clamp(0.0, 6.0)).collect(), ..x },
            Op::MaxPool { kernel: k, stride, padding } => {
                let (h, w) = (out(x.h, *k, *stride, *padding), out(x.w, *k, *stride, *padding));
                Tensor::new(x.n, x.c, h, w).fill(|n, c, h, w| {
                    let window = x.window([n, c, h, w], [*k; 2], *stride, *padding);
                    window.iter().fold(f64::NEG_INFINITY, |m, v| m.max(v.2))
                })
            }
            Op::GlobalAvgPool => Tensor::new(x.n, x.c, 1, 1).fill(|n, c, _, _| {
                (0..x.h * x.w).map(|i| x.at(n, c, i / x.w, i % x.w)).sum::<f64>() / (x.h * x.w) as f64
            }),
            Op::Flatten => Tensor { c: x.c * x.h * x.w, h: 1, w: 1, ..x },
            Op::Linear { name, in_features, out_features } => {
                let (weight, bias) = (&p[&format!("{name}.weight")], &p[&format!("{name}.bias")]);
                Tensor::new(x.n, *out_features, 1, 1).fill(|n, o, _, _| {
                    bias[o]
                        + (0..*in_features)
                            .map(|i| x.v[n * in_features + i] * weight[o * in_features + i])
                            .sum::<f64>()
                })
            }
            Op::Residual { main, shortcut } => {
                let (a, b) = (run(main, x.clone(), p, train), run(shortcut, x, p, train));
                Tensor { v: a.v.iter().zip(&b.v).map(|(a, b)| a + b).collect(), ..a }
            }
        };
    }
    x
}

fn loss(logits: &Tensor, labels: &[u32]) -> f64 {
    let rows = logits.v.chunks_exact(logits.c).zip(labels);
    rows.map(|(row, &label)| row.iter().map(|v| v.exp()).sum::<f64>().ln() - row[label as usize]).sum::<f64>()
        / labels.len() as f64
}

fn conv(
    name: &str,
    c: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    groups: usize,
    bias: bool,
) -> Op {
    Op::Conv2d {
        name: name.into(),
        in_channels: c[0],
        out_channels: c[1],
        kernel,
        stride,
        padding,
        groups,
        bias,
    }
}

fn norm(name: &str, channels: usize) -> Op {
    Op::BatchNorm2d { name: name.into(), channels }
}

const CLASSES: usize = 3;
/// Values of a parameter whose gradient is checked.
const MOST: usize = 40;

/// Checks `ops` between a first 1x1 convolution (from 2 to `channels` channels) and a linear layer.
fn check(what: &str, channels: usize, [height, width]: [usize; 2], batch: usize, ops: Vec<Op>) {
    let mut all = vec![conv("first", [2, channels], [1, 1], 1, 0, 1, true)];
    all.extend(ops);
    check_bare(what, InputShape { channels: 2, height, width }, batch, all);
}

fn check_bare(what: &str, input: InputShape, batch: usize, mut ops: Vec<Op>) {
    let InputShape { channels, height, width } = input;
    let sized = Architecture {
        name: what.into(),
        input,
        classes: 1,
        blocks: vec![Block { name: "all".into(), ops: ops.clone() }],
    };
    let (c, h, w) = sized.summary()[0].output;
    ops.push(Op::Flatten);
    ops.push(Op::Linear { name: "last".into(), in_features: c * h * w, out_features: CLASSES });
    let blocks = vec![Block { name: "all".into(), ops: ops.clone() }];
    let arch = Architecture::from_blocks(what, input, CLASSES, blocks).unwrap();

    let mut rng = derive(3, Purpose::Init, 0, 0);
    let mut params = Params::zeros(arch.layout());
    fill_uniform(&mut rng, 0.7, params.values_mut());
    for i in 0..arch.layout().len() {
        if arch.layout().specs()[i].name.ends_with("running_var") {
            params.at_mut(i).iter_mut().for_each(|v| *v = v.abs() + 0.5);
        }
    }
    let mut images = vec![0.0; batch * input.numel()];
    fill_uniform(&mut rng, 1.0, &mut images);
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % CLASSES as u32).collect();
    let x = Tensor::new(batch, channels, height, width)
        .fill(|n, c, h, w| f64::from(images[((n * height + h) * width + w) * channels + c]));
    let mut values: Values = params
        .iter()
        .map(|(spec, values)| (spec.name.clone(), values.iter().map(|&v| f64::from(v)).collect()))
        .collect();

    // Room for more than the batch, so that nothing relies on full buffers.
    let mut network = Network::new(&arch, batch + 2).unwrap();
    network.load(&params).unwrap();
    let close = |found: &[f32], expected: &[f64], tolerance: f64, part: &str| {
        let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
        for (f, e) in found.iter().zip(expected) {
            assert!((f64::from(*f) - e).abs() < tolerance * scale, "{what}: {part}: {f} is not {e}");
        }
    };
    close(
        network.logits(&images, batch).unwrap(),
        &run(&ops, x.clone(), &values, false).v,
        1e-5,
        "eval logits",
    );
    let expected = run(&ops, x.clone(), &values, true);
    close(network.train_logits(&images, batch).unwrap(), &expected.v, 1e-4, "train logits");
    let mut gradient = Params::zeros(arch.layout());
    let metrics = network.gradients(Batch { images: &images, labels: &labels }, &mut gradient).unwrap();
    assert!((metrics.loss_sum / batch as f64 - loss(&expected, &labels)).abs() < 1e-4, "{what}: loss");
    for (spec, found) in gradient.iter().filter(|(spec, _)| spec.kind == Kind::Trainable) {
        // Some of many: each costs two passes over the batch.
        let stride = spec.numel().div_ceil(MOST) | 1;
        let numeric: Vec<f64> = (0..spec.numel())
            .step_by(stride)
            .map(|i| {
                let mut moved = |by: f64| {
                    values.get_mut(&spec.name).unwrap()[i] += by;
                    let moved = loss(&run(&ops, x.clone(), &values, true), &labels);
                    values.get_mut(&spec.name).unwrap()[i] -= by;
                    moved
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            })
            .collect();
        let found: Vec<f32> = found.iter().step_by(stride).copied().collect();
        close(&found, &numeric, 1e-3, &spec.name);
    }
}

#[test]
fn convolutions() {
    check("padded", 5, [5, 4], 3, vec![conv("c", [5, 7], [3, 3], 1, 1, 1, false)]);
    check("unpadded", 3, [7, 5], 2, vec![conv("c", [3, 4], [3, 2], 1, 0, 1, true), Op::Relu]);
    check("stride 2", 3, [5, 7], 2, vec![conv("c", [3, 5], [3, 3], 2, 1, 1, false)]);
    check("stride 2, 1x1", 4, [5, 4], 3, vec![conv("c", [4, 3], [1, 1], 2, 0, 1, false)]);
    check("one position", 3, [1, 1], 3, vec![conv("c", [3, 17], [3, 3], 1, 1, 1, true)]);
    check("wide", 19, [2, 1], 1, vec![conv("c", [19, 37], [1, 1], 1, 0, 1, false)]);
    check("many rows", 2, [3, 3], 43, vec![conv("c", [2, 3], [3, 3], 1, 1, 1, true), Op::Relu6]);
    check("tiles", 32, [6, 8], 2, vec![conv("c", [32, 33], [3, 3], 1, 1, 1, true), Op::Relu]);
    check("odd tiles", 35, [7, 9], 1, vec![conv("c", [35, 40], [3, 3], 1, 1, 1, false)]);
    check("unpadded tiles", 32, [9, 6], 3, vec![conv("c", [32, 32], [3, 3], 1, 0, 1, true)]);
    check("many taps", 2, [9, 9], 1, vec![conv("c", [2, 2], [9, 9], 1, 4, 1, true)]);
}

#[test]
fn first_convolutions() {
    let input = InputShape { channels: 3, height: 7, width: 5 };
    for (kernel, stride, padding) in
        [([3, 3], 1, 1), ([7, 7], 2, 3), ([2, 3], 2, 0), ([7, 5], 1, 0), ([5, 5], 3, 4)]
    {
        check_bare("stem", input, 3, vec![conv("c", [3, 5], kernel, stride, padding, 1, true), Op::Relu]);
    }
    check_bare("depthwise first", input, 2, vec![conv("c", [3, 3], [3, 3], 1, 1, 3, false)]);
    check_bare("norm first", input, 2, vec![norm("n", 3)]);
    check_bare("linear first", input, 2, vec![]);
}

#[test]
fn grouped_and_depthwise_convolutions() {
    check("groups", 4, [4, 3], 2, vec![conv("c", [4, 6], [3, 3], 1, 1, 2, true)]);
    check("multiplier", 3, [3, 3], 2, vec![conv("c", [3, 6], [3, 3], 2, 1, 3, false)]);
    check("depthwise", 5, [4, 5], 3, vec![conv("c", [5, 5], [3, 3], 1, 1, 5, false), Op::Relu6]);
    check("depthwise, stride 2", 17, [5, 4], 1, vec![conv("c", [17, 17], [3, 3], 2, 1, 17, true)]);
}

#[test]
fn norms_and_activations() {
    check("norm", 3, [3, 2], 2, vec![norm("n", 3)]);
    check("norm, relu", 17, [2, 3], 3, vec![norm("n", 17), Op::Relu]);
    check("norm, relu6, batch of one", 5, [3, 5], 1, vec![norm("n", 5), Op::Relu6]);
    check("norm, one position", 5, [1, 1], 7, vec![norm("n", 5), Op::Relu]);
    check("activations alone", 3, [2, 2], 2, vec![Op::Relu, Op::Relu6, Op::Flatten, Op::Relu]);
}

#[test]
fn group_norms() {
    let norm = |channels, groups, affine| Op::GroupNorm { name: "g".into(), groups, channels, affine };
    let what = |channels, groups| format!("{channels} channels in {groups} groups");
    // Groups within a block, of whole blocks, across blocks, and of all. (One of a channel alone is the first below.)
    for (channels, groups) in [(6, 2), (32, 8), (64, 2), (96, 3), (48, 2), (40, 5), (20, 10), (33, 1)] {
        for (affine, batch) in [(true, 3), (false, 1)] {
            let ops = vec![norm(channels, groups, affine), Op::Relu];
            check(&what(channels, groups), channels, [3, 4], batch, ops);
        }
    }
    check("one position", 32, [1, 1], 4, vec![norm(32, 4, true)]);
    check("many positions", 4, [13, 11], 2, vec![norm(4, 2, true), Op::Relu6]);
    let narrow = InputShape { channels: 3, height: 5, width: 4 };
    check_bare("group norm first", narrow, 2, vec![norm(3, 3, true), Op::Relu]);
    for (channels, groups) in [(32, 4), (64, 1), (40, 2)] {
        let main =
            vec![conv("c", [channels, channels], [3, 3], 1, 1, 1, false), norm(channels, groups, true)];
        let added = Op::Residual { main, shortcut: vec![] };
        check(&what(channels, groups), channels, [3, 4], 2, vec![added, Op::Relu]);
    }
}

#[test]
fn pools_and_linear_layers() {
    let pool = |kernel, stride, padding| Op::MaxPool { kernel, stride, padding };
    check("max-pool", 3, [5, 7], 2, vec![pool(2, 2, 0)]);
    check("overlapping max-pool", 5, [5, 4], 2, vec![pool(3, 2, 1), Op::Relu]);
    check("average pool", 5, [3, 2], 3, vec![Op::GlobalAvgPool]);
    let linear = |i, o| Op::Linear { name: "l".into(), in_features: i, out_features: o };
    check("linear", 3, [2, 3], 3, vec![Op::Flatten, linear(18, 35), Op::Relu]);
    check("linear, many rows", 3, [2, 1], 33, vec![Op::Flatten, linear(6, 5), Op::Relu]);
}

/// Convolutions that are one layer with the 2x2 max-pool after them, as those of many channels are, and such as are not.
#[test]
fn pooled_convolutions() {
    let pool = || Op::MaxPool { kernel: 2, stride: 2, padding: 0 };
    let c = |channels, kernel, padding, bias| conv("c", channels, [kernel; 2], 1, padding, 1, bias);
    check("pooled", 32, [9, 10], 2, vec![c([32, 33], 5, 0, true), Op::Relu, pool()]);
    check("pooled, 3x3", 33, [6, 9], 2, vec![c([33, 32], 3, 0, false), Op::Relu6, pool()]);
    check("pooled, padded, no activation", 32, [5, 6], 1, vec![c([32, 32], 5, 2, true), pool()]);
    let first = conv("first", [2, 32], [1, 1], 1, 0, 1, false);
    let after_norm = vec![first, norm("n", 32), c([32, 32], 3, 1, true), pool()];
    check_bare("pooled, after a norm", InputShape { channels: 2, height: 7, width: 7 }, 2, after_norm);
    let residual = Op::Residual {
        main: vec![c([32, 34], 3, 1, true), Op::Relu, pool()],
        shortcut: vec![conv("d", [32, 34], [2, 2], 2, 0, 1, false)],
    };
    check("pooled, of two readers", 32, [6, 6], 2, vec![residual]);
    check("few channels", 2, [8, 6], 2, vec![c([2, 3], 5, 0, true), Op::Relu, pool()]);
    let overlapping = Op::MaxPool { kernel: 3, stride: 2, padding: 1 };
    check("overlapping", 32, [8, 8], 2, vec![c([32, 32], 3, 1, true), Op::Relu, overlapping]);
}

#[test]
fn pooled_first_convolutions() {
    let pool = || Op::MaxPool { kernel: 2, stride: 2, padding: 0 };
    let input = InputShape { channels: 3, height: 9, width: 8 };
    for (kernel, stride, padding) in [([3, 3], 1, 1), ([5, 5], 1, 0), ([2, 3], 2, 0), ([3, 5], 1, 2)] {
        let first = conv("c", [3, 5], kernel, stride, padding, 1, true);
        check_bare("pooled stem", input, 3, vec![first, Op::Relu, pool()]);
    }
    let first = conv("c", [3, 35], [3, 3], 2, 1, 1, true);
    check_bare("pooled stem, many outputs", input, 1, vec![first, Op::Relu6, pool()]);
}

#[test]
fn residuals() {
    let residual = |main: Vec<Op>, shortcut: Vec<Op>| Op::Residual { main, shortcut };
    let c = |name: &str, i, o, stride| conv(name, [i, o], [3, 3], stride, 1, 1, false);
    let basic = || vec![c("a", 4, 4, 1), norm("an", 4), Op::Relu, c("b", 4, 4, 1), norm("bn", 4)];
    check("basic block", 4, [3, 4], 2, vec![Op::Relu, residual(basic(), vec![]), Op::Relu, norm("n", 4)]);
    let down = vec![conv("d", [4, 5], [1, 1], 2, 0, 1, false), norm("dn", 5)];
    check(
        "downsampling",
        4,
        [3, 4],
        3,
        vec![residual(vec![c("a", 4, 5, 2), norm("an", 5)], down), Op::Relu6],
    );
    check("norm against identity", 3, [2, 3], 2, vec![residual(vec![norm("n", 3)], vec![]), Op::Relu]);
    check("identity against norm", 3, [2, 3], 2, vec![residual(vec![], vec![norm("n", 3)])]);
    check(
        "plain sum",
        3,
        [3, 3],
        2,
        vec![residual(vec![c("a", 3, 3, 1)], vec![c("b", 3, 3, 1), Op::Relu]), Op::Relu],
    );
    check("identity and pool", 3, [1, 1], 2, vec![residual(vec![Op::GlobalAvgPool], vec![])]);
    check("relu against identity", 3, [2, 2], 2, vec![residual(vec![Op::Relu], vec![]), Op::Relu]);
}
