//! From an architecture to nodes: layers with the slots they read and write.

use super::gradients::{self, Plan};
use super::plan::{Case, Planned};
use crate::NnError;
use crate::arch::{Architecture, Op, Shape};
use crate::kernel::Kernels;
use crate::kernel::elementwise::Activation;
use crate::layer::activation::{Add, Elementwise};
use crate::layer::conv::Conv;
use crate::layer::depthwise::Depthwise;
use crate::layer::geometry::Window;
use crate::layer::group_norm::GroupNorm;
use crate::layer::input::Input;
use crate::layer::linear::Linear;
use crate::layer::norm::Norm;
use crate::layer::pool::{AveragePool, MaxPool};
use crate::layer::pooled_conv::PooledConv;
use crate::layer::pooled_stem::PooledStem;
use crate::layer::stem::Stem;
use crate::layer::way::Way;
use crate::layer::{ByPlanes, Extent, Layer, Slot};

/// A layer, the slots it reads and the one it writes, which is that after the node's number.
pub(crate) struct Node {
    pub(crate) layer: Box<dyn Layer>,
    pub(crate) reads: Vec<Slot>,
    pub(crate) to: Slot,
    /// Follows the layer, and is applied to each part of its output as soon as that is there.
    pub(crate) activation: Activation,
    /// Stops the gradient of the output, before the layer's backward pass.
    pub(crate) stops: Activation,
    pub(crate) plan: Plan,
    /// The next node works by planes on just this node's output, and takes each part of it as soon as it is there.
    pub(crate) feeds: bool,
    /// The node before works by planes, and this one completes the gradient of its output: it takes each part of that as soon
    /// as it is there.
    pub(crate) completes: bool,
}

impl Node {
    /// Its layer, where another node feeds or completes it.
    pub(crate) fn by_planes(&mut self) -> &mut dyn ByPlanes {
        self.layer.by_planes().expect("such nodes work by planes")
    }
}

/// A network ready to be given memory.
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    /// How the largest batch is computed.
    pub(crate) plan: Vec<Planned>,
    /// Values of each gradient buffer.
    pub(crate) buffers: Vec<usize>,
    /// The gradient buffer of the logits.
    pub(crate) logits_gradient: usize,
    /// A batch norm that sees one position per image.
    pub(crate) single: Option<String>,
}

struct Compiler {
    nodes: Vec<Node>,
    plan: Vec<Planned>,
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
    let mut compiler = Compiler { nodes: Vec::new(), plan: Vec::new(), single: None, max_batch, kernels };
    let (slot, shape, rest) = compiler.stem(&ops, shape);
    compiler.path(rest, slot, shape);
    let Compiler { mut nodes, plan, single, .. } = compiler;
    if !kernels.plain {
        fuse(&mut nodes);
    }
    let (buffers, logits_gradient) = gradients::assign(&mut nodes, max_batch);
    Ok(Program { nodes, plan, buffers, logits_gradient, single })
}

/// Finds nodes that do a part of their neighbour's work, or work on what it has just computed.
fn fuse(nodes: &mut [Node]) {
    let mut readers = vec![0; nodes.len() + 1];
    nodes.iter().flat_map(|node| &node.reads).for_each(|slot| readers[slot.number] += 1);
    for i in 1..nodes.len() {
        let [before, after] = &mut nodes[i - 1..=i] else { unreachable!("two nodes") };
        let reads = |node: &Node| node.reads.iter().filter(|&&slot| slot == before.to).count();
        if after.reads[0] != before.to || reads(after) != 1 {
            continue;
        }
        let in_place = |node: &Node| node.layer.in_place().is_some();
        if before.activation == Activation::Identity && !in_place(before) {
            before.feeds = after.layer.by_planes().is_some();
        }
        if after.layer.selects() && readers[before.to.number] == 1 && !in_place(before) {
            after.stops = std::mem::replace(&mut before.stops, Activation::Identity);
        }
        // The first node to read a slot is the last to add to its gradient.
        after.completes = before.layer.by_planes().is_some() && !in_place(after);
    }
}

impl Compiler {
    /// Begins with a convolution or linear layer from image-major input if that is what the network begins with;
    /// otherwise reorders the input. Returns where its output is, and the operations that are left.
    fn stem<'a>(&mut self, ops: &'a [Op], shape: Shape) -> (Slot, Shape, &'a [Op]) {
        let from = Slot { number: Slot::INPUT, extent: extent(shape) };
        let (first, skipped) = match ops {
            [Op::Flatten, first, ..] => (Some(first), 1),
            [first, ..] => (Some(first), 0),
            [] => (None, 0),
        };
        let (Some(op), Some((name, outputs, bias))) = (first, first.and_then(of_images)) else {
            return self.blocked(shape, ops);
        };
        let flat = Shape { flat: skipped == 1, ..shape };
        let after = flat.after(op).expect("validated");
        let (activation, used) = activation(&ops[skipped + 1..]);
        let rest = &ops[skipped + 1 + used..];
        let (window, channels) = (window(op, flat), [shape.channels, outputs]);
        let case = Case {
            linear: matches!(op, Op::Linear { .. }),
            first: true,
            pooled: rest.first().is_some_and(is_2x2),
            ..Case::new(window, channels, 1, self.kernels)
        };
        let way = case.way(self.max_batch);
        let stem = || Stem::new(name, &window, channels, bias, self.max_batch, self.kernels.matrix);
        let (to, after, rest) = match way.0 {
            Way::PooledLines | Way::PooledWindows => {
                let after = after.after(&rest[0]).expect("validated");
                let lines = way.0 == Way::PooledLines;
                let stem = PooledStem::new(stem(), outputs, activation, self.max_batch, lines);
                (self.whole(Box::new(stem), &[from], activation, after), after, &rest[1..])
            }
            Way::RoundedImages => {
                let stem = stem().in_bf16(self.kernels.rounding(), self.max_batch);
                (self.node(Box::new(stem), &[from], activation, after), after, rest)
            }
            Way::Images => (self.node(Box::new(stem()), &[from], activation, after), after, rest),
            _ => return self.blocked(shape, ops),
        };
        self.note(name, way);
        (to, after, rest)
    }

    /// Begins with the input in blocks.
    fn blocked<'a>(&mut self, shape: Shape, ops: &'a [Op]) -> (Slot, Shape, &'a [Op]) {
        let from = Slot { number: Slot::INPUT, extent: extent(shape) };
        let input = Input { channels: shape.channels, extent: extent(shape) };
        (self.node(Box::new(input), &[from], Activation::Identity, shape), shape, ops)
    }

    fn note(&mut self, name: &str, (way, why): (Way, &'static str)) {
        self.plan.push(Planned { name: name.to_owned(), way, why });
    }

    /// Compiles `ops` from slot `from`; returns the slot of the result.
    fn path(&mut self, ops: &[Op], mut from: Slot, mut shape: Shape) -> (Slot, Shape) {
        let mut rest = ops;
        while let [op, next @ ..] = rest {
            let (follows, used) = activation(next);
            let mut after = shape.after(op).expect("validated");
            rest = match op {
                Op::Relu => {
                    from = self.elementwise(Activation::Relu, from, after);
                    next
                }
                Op::Relu6 => {
                    from = self.elementwise(Activation::Relu6, from, after);
                    next
                }
                Op::Flatten => next,
                Op::Residual { main, shortcut } => {
                    from = self.residual(main, shortcut, from, shape, follows);
                    &next[used..]
                }
                Op::MaxPool { .. } => {
                    let pool = MaxPool::new(&window(op, shape), shape.channels, self.max_batch);
                    from = self.node(Box::new(pool), &[from], Activation::Identity, after);
                    next
                }
                Op::GlobalAvgPool => {
                    let pool = AveragePool { inputs: extent(shape) };
                    from = self.node(Box::new(pool), &[from], Activation::Identity, after);
                    next
                }
                Op::BatchNorm2d { .. } | Op::GroupNorm { .. } => {
                    from = self.norm(op, from, None, shape, follows);
                    &next[used..]
                }
                Op::Conv2d { name, in_channels, out_channels, groups, bias, .. } => {
                    let (window, channels) = (window(op, shape), [*in_channels, *out_channels]);
                    let pool = next[used..].first().filter(|pool| is_2x2(pool));
                    let case =
                        Case { pooled: pool.is_some(), ..Case::new(window, channels, *groups, self.kernels) };
                    let (way, ways) = (case.way(self.max_batch), case.ways(self.max_batch));
                    let conv =
                        || Conv::new(name, &window, channels, *groups, *bias, self.kernels, ways.clone());
                    match (way.0, pool) {
                        (Way::PooledTiles, Some(pool)) => {
                            let conv =
                                PooledConv::new(conv(), &window, follows, *out_channels, self.max_batch);
                            after = after.after(pool).expect("validated");
                            from = self.whole(Box::new(conv), &[from], follows, after);
                        }
                        (Way::Depthwise, _) => {
                            let conv = Depthwise::new(name, &window, *groups, *bias);
                            from = self.node(Box::new(conv), &[from], follows, after);
                        }
                        _ => from = self.node(Box::new(conv()), &[from], follows, after),
                    }
                    self.note(name, way);
                    &next[used + usize::from(way.0 == Way::PooledTiles)..]
                }
                Op::Linear { name, out_features, .. } => {
                    let (window, channels) = (window(op, shape), [shape.channels, *out_features]);
                    let case = Case { linear: true, ..Case::new(window, channels, 1, self.kernels) };
                    let ways = case.ways(self.max_batch);
                    let layer = Linear::new(name, &window, channels, self.kernels.matrix, ways);
                    from = self.node(Box::new(layer), &[from], follows, after);
                    self.note(name, case.way(self.max_batch));
                    &next[used..]
                }
            };
            shape = after;
        }
        (from, shape)
    }

    /// An activation that no layer applies.
    fn elementwise(&mut self, activation: Activation, from: Slot, shape: Shape) -> Slot {
        self.whole(Box::new(Elementwise(activation)), &[from], activation, shape)
    }

    /// A residual sum. If a path ends in a norm, that norm adds the other path to its output.
    fn residual(
        &mut self,
        main: &[Op],
        shortcut: &[Op],
        from: Slot,
        shape: Shape,
        follows: Activation,
    ) -> Slot {
        let (ends_in_norm, other) = match (main, shortcut) {
            ([.., Op::BatchNorm2d { .. } | Op::GroupNorm { .. }], _) => (main, shortcut),
            (_, [.., Op::BatchNorm2d { .. } | Op::GroupNorm { .. }]) => (shortcut, main),
            _ => {
                let (a, after) = self.path(main, from, shape);
                let (b, _) = self.path(shortcut, from, shape);
                return self.whole(Box::new(Add(follows)), &[a, b], follows, after);
            }
        };
        let [before @ .., norm] = ends_in_norm else { unreachable!("the path was chosen for its end") };
        // The other path first, so that the norm follows right upon what it normalises.
        let (added, _) = self.path(other, from, shape);
        let (y, after) = self.path(before, from, shape);
        self.norm(norm, y, Some(added), after, follows)
    }

    /// A norm with what follows it: it adds a residual, and applies and stops its activation by itself.
    fn norm(
        &mut self,
        op: &Op,
        from: Slot,
        residual: Option<Slot>,
        shape: Shape,
        follows: Activation,
    ) -> Slot {
        let (extent, adds) = (extent(shape), residual.is_some());
        let layer: Box<dyn Layer> = match op {
            Op::BatchNorm2d { name, channels } => {
                if shape.positions() == 1 && self.single.is_none() {
                    self.single = Some(name.clone());
                }
                Box::new(Norm::new(name, *channels, extent, adds, follows))
            }
            Op::GroupNorm { name, groups, channels, affine } => {
                let counts = [*channels, *groups];
                Box::new(GroupNorm::new(name, counts, *affine, extent, adds, follows, self.max_batch))
            }
            _ => unreachable!("called for norms"),
        };
        let reads: Vec<Slot> = [from].into_iter().chain(residual).collect();
        self.node(layer, &reads, Activation::Identity, shape)
    }

    /// A node whose output an activation follows.
    fn node(&mut self, layer: Box<dyn Layer>, reads: &[Slot], activation: Activation, after: Shape) -> Slot {
        let to = Slot { number: self.nodes.len() + 1, extent: extent(after) };
        self.nodes.push(Node {
            layer,
            reads: reads.to_vec(),
            to,
            activation,
            stops: activation,
            plan: Plan::default(),
            feeds: false,
            completes: false,
        });
        to
    }

    /// A node whose layer applies the activation after it by itself, but does not stop its gradient.
    fn whole(&mut self, layer: Box<dyn Layer>, reads: &[Slot], activation: Activation, after: Shape) -> Slot {
        let to = self.node(layer, reads, activation, after);
        self.nodes.last_mut().expect("just pushed").activation = Activation::Identity;
        to
    }
}

/// Name, outputs and bias of what can be computed from images.
fn of_images(op: &Op) -> Option<(&str, usize, bool)> {
    match op {
        Op::Conv2d { name, out_channels, groups: 1, bias, .. } => Some((name, *out_channels, *bias)),
        Op::Linear { name, out_features, .. } => Some((name, *out_features, true)),
        _ => None,
    }
}

/// Whether it is the max-pool that a convolution can do along: 2x2, side by side.
fn is_2x2(op: &Op) -> bool {
    matches!(op, Op::MaxPool { kernel: 2, stride: 2, padding: 0 })
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
