//! From an architecture to nodes: layers with the slots they read and write.

use fedper_core::params::Params;

use super::gradients::{self, Gradients};
use crate::NnError;
use crate::arch::{Architecture, Op, Shape};
use crate::kernel::Kernels;
use crate::kernel::elementwise::Activation;
use crate::layer::Extent;
use crate::layer::conv::Conv;
use crate::layer::depthwise::Depthwise;
use crate::layer::geometry::Window;
use crate::layer::linear::Linear;
use crate::layer::norm::Norm;
use crate::layer::pool::MaxPool;
use crate::layer::pooled_conv::PooledConv;
use crate::layer::pooled_stem::PooledStem;
use crate::layer::stem::Stem;
use crate::optim::{Array, Parameter};

/// What a node does.
pub(crate) enum Layer {
    /// Image-major input into blocked activations.
    Input {
        channels: usize,
    },
    /// A first convolution straight from image-major input.
    Stem(Stem, Activation),
    Conv(Conv, Activation),
    Linear(Linear, Activation),
    /// [`Layer::Stem`] and the max-pool after it.
    PooledStem(PooledStem),
    /// [`Layer::Conv`] and the max-pool after it.
    PooledConv(Box<PooledConv>),
    Depthwise(Depthwise, Activation),
    Norm(Norm),
    Activation(Activation),
    /// The sum of the source and the residual.
    Add(Activation),
    /// With the activation before it whose gradient it stops in that node's place: at a quarter of the positions.
    MaxPool(MaxPool, Activation),
    AveragePool,
}

impl Layer {
    /// Takes over an array of every parameter.
    pub(crate) fn load(&mut self, params: &Params, array: Array) {
        match self {
            Self::Stem(layer, _) => layer.load(params, array),
            Self::Conv(layer, _) => layer.load(params, array),
            Self::Linear(layer, _) => layer.load(params, array),
            Self::PooledStem(layer) => layer.stem.load(params, array),
            Self::PooledConv(layer) => layer.conv.load(params, array),
            Self::Depthwise(layer, _) => layer.load(params, array),
            Self::Norm(layer) => layer.load(params, array),
            Self::Input { .. }
            | Self::Activation(_)
            | Self::Add(_)
            | Self::MaxPool(..)
            | Self::AveragePool => {}
        }
    }

    /// Hands every parameter that training changes to `visit`.
    pub(crate) fn trainable(&mut self, visit: &mut dyn FnMut(&mut Parameter)) {
        match self {
            Self::Stem(layer, _) => layer.trainable(visit),
            Self::Conv(layer, _) => layer.trainable(visit),
            Self::Linear(layer, _) => layer.trainable(visit),
            Self::PooledStem(layer) => layer.stem.trainable(visit),
            Self::PooledConv(layer) => layer.conv.trainable(visit),
            Self::Depthwise(layer, _) => layer.trainable(visit),
            Self::Norm(layer) => layer.trainable(visit),
            Self::Input { .. }
            | Self::Activation(_)
            | Self::Add(_)
            | Self::MaxPool(..)
            | Self::AveragePool => {}
        }
    }
}

/// A layer and the slots it reads (`from`, `residual`) and writes (`to`).
pub(crate) struct Node {
    pub(crate) layer: Layer,
    pub(crate) from: usize,
    pub(crate) residual: Option<usize>,
    pub(crate) to: usize,
    pub(crate) gradients: Gradients,
    /// The next node is a batch norm of just this node's output, which takes each part of it as soon as it is there.
    pub(crate) feeds_norm: bool,
    /// The node before is a batch norm whose output's gradient this node completes: it takes each part of that as soon as
    /// it is there.
    pub(crate) completes_norm: bool,
    /// The next node stops the gradient of this one's activation.
    pub(crate) stopped: bool,
}

/// The slot of the network's input, which needs no gradient.
pub(crate) const INPUT: usize = 0;

/// A network ready to be given memory.
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    /// The shape of each slot; the last one is the logits.
    pub(crate) slots: Vec<Extent>,
    /// Values of each gradient buffer.
    pub(crate) buffers: Vec<usize>,
    /// The gradient buffer of the logits.
    pub(crate) logits_gradient: usize,
    /// A batch norm that sees one position per image.
    pub(crate) single: Option<String>,
}

struct Compiler {
    nodes: Vec<Node>,
    slots: Vec<Extent>,
    single: Option<String>,
    max_batch: usize,
    kernels: Kernels,
}

/// # Errors
/// [`NnError::Architecture`] if the blocks do not fit each other.
pub(crate) fn compile(
    architecture: &Architecture,
    max_batch: usize,
    kernels: Kernels,
) -> Result<Program, NnError> {
    architecture.validate()?;
    let ops: Vec<Op> = architecture.blocks.iter().flat_map(|block| block.ops.iter().cloned()).collect();
    let shape = architecture.input_shape();
    let mut compiler =
        Compiler { nodes: Vec::new(), slots: vec![extent(shape)], single: None, max_batch, kernels };
    let (slot, shape, rest) = compiler.stem(&ops, shape);
    let (last, _) = compiler.path(rest, slot, shape);
    let Compiler { mut nodes, slots, single, .. } = compiler;
    assert_eq!(last, slots.len() - 1, "the last node writes the last slot");
    fuse(&mut nodes, slots.len());
    let (buffers, logits_gradient) = gradients::assign(&mut nodes, &slots, max_batch);
    Ok(Program { nodes, slots, buffers, logits_gradient, single })
}

/// Finds nodes that do a part of their neighbour's work, or work on what it has just computed.
fn fuse(nodes: &mut [Node], slots: usize) {
    let mut readers = vec![0; slots];
    for node in nodes.iter() {
        readers[node.from] += 1;
        node.residual.iter().for_each(|&slot| readers[slot] += 1);
    }
    for i in 1..nodes.len() {
        let [before, after] = &mut nodes[i - 1..=i] else { unreachable!("two nodes") };
        let computes = |layer: &Layer| match layer {
            Layer::Stem(_, activation)
            | Layer::Conv(_, activation)
            | Layer::Linear(_, activation)
            | Layer::Depthwise(_, activation) => Some(*activation),
            _ => None,
        };
        if let (Some(Activation::Identity), Layer::Norm(_)) = (computes(&before.layer), &after.layer) {
            before.feeds_norm = after.from == before.to && after.residual != Some(before.to);
        }
        if let (Some(activation), Layer::MaxPool(_, stops)) = (computes(&before.layer), &mut after.layer)
            && after.from == before.to
            && readers[before.to] == 1
        {
            *stops = activation;
            before.stopped = true;
        }
        // The first node to read a slot is the last to add to its gradient.
        if let (Layer::Norm(_), Layer::Conv(..) | Layer::Linear(..) | Layer::Depthwise(..)) =
            (&before.layer, &after.layer)
        {
            after.completes_norm = after.from == before.to;
        }
    }
}

impl Compiler {
    /// Begins with a convolution or linear layer from image-major input if that is what the network begins with;
    /// otherwise reorders the input. Returns where its output is, and the operations that are left.
    fn stem<'a>(&mut self, ops: &'a [Op], shape: Shape) -> (usize, Shape, &'a [Op]) {
        let (first, skipped) = match ops {
            [Op::Flatten, first, ..] => (Some(first), 1),
            [first, ..] => (Some(first), 0),
            [] => (None, 0),
        };
        let stem = match first {
            Some(Op::Conv2d { name, out_channels, groups: 1, bias, .. }) => {
                Some((name, *out_channels, *bias))
            }
            Some(Op::Linear { name, out_features, .. }) => Some((name, *out_features, true)),
            _ => None,
        };
        let Some((op, (name, outputs, bias))) = first.zip(stem) else {
            let to = self.slot(shape);
            self.push(Layer::Input { channels: shape.channels }, INPUT, None, to);
            return (to, shape, ops);
        };
        let shape = if skipped == 1 { Shape { flat: true, ..shape } } else { shape };
        let after = shape.after(op).expect("validated");
        let (activation, used) = activation(&ops[skipped + 1..]);
        let channels = [shape.channels, outputs];
        let window = window(op, shape);
        let stem = Stem::new(name, &window, channels, bias, self.max_batch, self.kernels.matrix);
        let rest = &ops[skipped + 1 + used..];
        if let Some(pool) = rest.first().filter(|pool| PooledStem::fits(&window, channels[0], pool)) {
            let after = after.after(pool).expect("validated");
            let stem = PooledStem::new(stem, outputs, activation, self.max_batch);
            let to = self.slot(after);
            self.push(Layer::PooledStem(stem), INPUT, None, to);
            return (to, after, &rest[1..]);
        }
        let bf16 = self.kernels.rounding().filter(|_| matches!(op, Op::Conv2d { .. }));
        let stem = stem.in_bf16(bf16, self.max_batch);
        let to = self.slot(after);
        self.push(Layer::Stem(stem, activation), INPUT, None, to);
        (to, after, rest)
    }

    /// Compiles `ops` from slot `from`; returns the slot of the result.
    fn path(&mut self, ops: &[Op], mut from: usize, mut shape: Shape) -> (usize, Shape) {
        let mut rest = ops;
        while let [op, next @ ..] = rest {
            let (follows, used) = activation(next);
            let mut after = shape.after(op).expect("validated");
            rest = match op {
                Op::Relu => self.elementwise(Activation::Relu, &mut from, after, next),
                Op::Relu6 => self.elementwise(Activation::Relu6, &mut from, after, next),
                Op::Flatten => next,
                Op::Residual { main, shortcut } => {
                    from = self.residual(main, shortcut, from, shape, follows);
                    &next[used..]
                }
                Op::MaxPool { .. } => {
                    let pool = MaxPool::new(&window(op, shape), shape.channels, self.max_batch);
                    from = self.node(Layer::MaxPool(pool, Activation::Identity), from, after);
                    next
                }
                Op::GlobalAvgPool => {
                    from = self.node(Layer::AveragePool, from, after);
                    next
                }
                Op::BatchNorm2d { name, channels } => {
                    from = self.norm(name, *channels, from, None, shape, follows);
                    &next[used..]
                }
                Op::Conv2d { name, in_channels, out_channels, groups, bias, .. } => {
                    let window = window(op, shape);
                    let pool = next[used..].first();
                    // In bf16 there are no tiles whose outputs could be pooled in registers.
                    if let Some(pool) = pool.filter(|pool| {
                        self.kernels.rounding().is_none()
                            && PooledConv::fits(&window, [*in_channels, *out_channels], *groups, pool)
                    }) {
                        let channels = [*in_channels, *out_channels];
                        let kernels = Kernels { bf16: None, ..self.kernels };
                        let conv = Conv::new(name, &window, channels, *groups, *bias, kernels);
                        let conv = PooledConv::new(conv, &window, follows, *out_channels, self.max_batch);
                        after = after.after(pool).expect("validated");
                        from = self.node(Layer::PooledConv(Box::new(conv)), from, after);
                        (rest, shape) = (&next[used + 1..], after);
                        continue;
                    }
                    let layer = if groups == in_channels && groups == out_channels && *groups > 1 {
                        Layer::Depthwise(Depthwise::new(name, &window, *groups, *bias), follows)
                    } else {
                        let channels = [*in_channels, *out_channels];
                        Layer::Conv(Conv::new(name, &window, channels, *groups, *bias, self.kernels), follows)
                    };
                    from = self.node(layer, from, after);
                    &next[used..]
                }
                Op::Linear { name, out_features, .. } => {
                    let channels = [shape.channels, *out_features];
                    let layer = Linear::new(name, [shape.height, shape.width], channels, self.kernels.matrix);
                    from = self.node(Layer::Linear(layer, follows), from, after);
                    &next[used..]
                }
            };
            shape = after;
        }
        (from, shape)
    }

    fn elementwise<'a>(
        &mut self,
        activation: Activation,
        from: &mut usize,
        shape: Shape,
        next: &'a [Op],
    ) -> &'a [Op] {
        *from = self.node(Layer::Activation(activation), *from, shape);
        next
    }

    /// A residual sum. If a path ends in a batch norm, that batch norm adds the other path to its output.
    fn residual(
        &mut self,
        main: &[Op],
        shortcut: &[Op],
        from: usize,
        shape: Shape,
        follows: Activation,
    ) -> usize {
        let (ends_in_norm, other) = match (main, shortcut) {
            ([.., Op::BatchNorm2d { .. }], _) => (main, shortcut),
            (_, [.., Op::BatchNorm2d { .. }]) => (shortcut, main),
            _ => {
                let (a, after) = self.path(main, from, shape);
                let (b, _) = self.path(shortcut, from, shape);
                let to = self.slot(after);
                self.push(Layer::Add(follows), a, Some(b), to);
                return to;
            }
        };
        let [before @ .., Op::BatchNorm2d { name, channels }] = ends_in_norm else {
            unreachable!("the path was chosen for its end")
        };
        // The other path first, so that the batch norm follows right upon what it normalises.
        let (added, _) = self.path(other, from, shape);
        let (y, after) = self.path(before, from, shape);
        self.norm(name, *channels, y, Some(added), after, follows)
    }

    fn norm(
        &mut self,
        name: &str,
        channels: usize,
        from: usize,
        residual: Option<usize>,
        shape: Shape,
        follows: Activation,
    ) -> usize {
        if shape.positions() == 1 && self.single.is_none() {
            self.single = Some(name.to_owned());
        }
        let to = self.slot(shape);
        self.push(Layer::Norm(Norm::new(name, channels, follows)), from, residual, to);
        to
    }

    fn node(&mut self, layer: Layer, from: usize, after: Shape) -> usize {
        let to = self.slot(after);
        self.push(layer, from, None, to);
        to
    }

    fn slot(&mut self, shape: Shape) -> usize {
        self.slots.push(extent(shape));
        self.slots.len() - 1
    }

    fn push(&mut self, layer: Layer, from: usize, residual: Option<usize>, to: usize) {
        let gradients = Gradients::default();
        self.nodes.push(Node {
            layer,
            from,
            residual,
            to,
            gradients,
            feeds_norm: false,
            completes_norm: false,
            stopped: false,
        });
    }
}

fn extent(shape: Shape) -> Extent {
    Extent::new(shape.channels, [shape.height, shape.width])
}

/// The activation that `ops` begin with, and how many operations that is.
fn activation(ops: &[Op]) -> (Activation, usize) {
    match ops.first() {
        Some(Op::Relu) => (Activation::Relu, 1),
        Some(Op::Relu6) => (Activation::Relu6, 1),
        _ => (Activation::Identity, 0),
    }
}

/// How the windows of `op` lie over an input of `shape`. A linear layer has one window, the whole input: PyTorch's
/// flattened order (channel, row, column) is then that of a convolution's weight.
fn window(op: &Op, shape: Shape) -> Window {
    let input = [shape.height, shape.width];
    match *op {
        Op::Conv2d { kernel, stride, padding, .. } => Window { input, kernel, stride, padding },
        Op::MaxPool { kernel, stride, padding } => Window { input, kernel: [kernel; 2], stride, padding },
        _ => Window { input, kernel: input, stride: 1, padding: 0 },
    }
}
