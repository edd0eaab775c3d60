//! What a layer is handed in a forward and in a backward pass.

use std::ops::Range;

use super::{ByPlanes, Extent, Scratch};
use crate::kernel::buffer::Buffer;
use crate::parameter::Sink;

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// Running statistics normalise, and nothing moves.
    Eval,
    /// The batch's statistics normalise, and move the running ones.
    Train,
    /// As [`Mode::Train`], but the running statistics move this far towards the batch's, whatever the layer's momentum.
    Measure(f32),
}

/// What all layers of a pass have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) samples: usize,
    pub(crate) mode: Mode,
}

/// What a layer calls with each part of what it computes as soon as that is complete, in order: which blocks, and their
/// planes with what lies between them. What it leaves out is seen to when it has ended.
pub(crate) type Done<'a> = &'a mut dyn FnMut(Range<usize>, &mut [f32]);

/// A layer's forward pass.
pub(crate) struct Forward<'a> {
    pub(crate) inputs: Inputs<'a>,
    pub(crate) y: &'a mut [f32],
    pub(crate) pass: Pass,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) done: Done<'a>,
}

/// A layer's backward pass.
pub(crate) struct Backward<'a> {
    pub(crate) inputs: Inputs<'a>,
    /// What the forward pass computed.
    pub(crate) z: &'a [f32],
    /// The gradient of that, which may be overwritten.
    pub(crate) dy: &'a mut [f32],
    /// Where the gradients of the inputs go.
    pub(crate) gradients: InputGradients<'a>,
    pub(crate) pass: Pass,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) sink: Sink<'a>,
    /// For the gradient of the first input.
    pub(crate) done: Done<'a>,
}

/// Activations somewhere in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: usize,
    pub(crate) extent: Extent,
}

impl Slot {
    /// The network's input, which is image-major and needs no gradient.
    pub(crate) const INPUT: usize = 0;

    pub(crate) fn is_input(&self) -> bool {
        self.number == Self::INPUT
    }

    /// Its values, unless it is the input.
    pub(crate) fn of<'a>(&self, slots: &'a [Buffer], samples: usize) -> &'a [f32] {
        &slots[self.number][..self.extent.len(samples)]
    }
}

/// What a layer reads.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) images: &'a [f32],
    /// All activations there are.
    pub(crate) slots: &'a [Buffer],
    pub(crate) reads: &'a [Slot],
    pub(crate) samples: usize,
}

impl<'a> Inputs<'a> {
    /// Input `i`.
    pub(crate) fn of(&self, i: usize) -> &'a [f32] {
        match &self.reads[i] {
            slot if slot.is_input() => self.images,
            slot => slot.of(self.slots, self.samples),
        }
    }

    /// The second input, if there is one.
    pub(crate) fn second(&self) -> Option<&'a [f32]> {
        (self.reads.len() > 1).then(|| self.of(1))
    }
}

/// Where the gradient of an input goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// The buffer that the layer writes it to. There is none for what is made in place, and for images.
    pub(crate) buffer: Option<usize>,
    /// Another reader's gradient is there already.
    pub(crate) add: bool,
    /// The buffer that it is added to after that.
    pub(crate) then: Option<usize>,
}

/// Where the gradients of all inputs go.
pub(crate) struct InputGradients<'a> {
    pub(crate) reads: &'a [Slot],
    pub(crate) targets: &'a [Target],
    pub(crate) buffers: &'a mut [Buffer],
    /// Up to this slot nobody asks for gradients.
    pub(crate) unread: usize,
    pub(crate) samples: usize,
}

/// Where one gradient goes.
pub(crate) struct InputGradient<'a> {
    pub(crate) values: &'a mut [f32],
    /// Whether it is added to what is there.
    pub(crate) add: bool,
}

impl InputGradients<'_> {
    /// Where that of input `i` goes, if anybody asks for it.
    pub(crate) fn of(&mut self, i: usize) -> Option<InputGradient<'_>> {
        let (slot, target) = (&self.reads[i], &self.targets[i]);
        let buffer = target.buffer.filter(|_| slot.number > self.unread)?;
        let values = &mut self.buffers[buffer][..slot.extent.len(self.samples)];
        Some(InputGradient { values, add: target.add })
    }
}

/// A few blocks of tensors of one shape.
#[derive(Clone)]
pub(crate) struct Planes {
    pub(crate) blocks: Range<usize>,
    pub(crate) extent: Extent,
    pub(crate) pass: Pass,
}

impl Planes {
    pub(crate) fn all(extent: Extent, pass: Pass) -> Self {
        Self { blocks: 0..extent.blocks, extent, pass }
    }

    /// Where they lie in a whole tensor, with what lies between them.
    pub(crate) fn range(&self) -> Range<usize> {
        let stride = self.extent.stride(self.pass.samples);
        self.blocks.start * stride..self.blocks.end * stride
    }

    /// Each block with where its plane lies among these.
    fn each(&self) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let (extent, samples) = (self.extent, self.pass.samples);
        self.blocks.clone().enumerate().map(move |(i, block)| (block, extent.range(i, samples)))
    }

    /// A layer's forward pass over these blocks of `y`, `residual` and `z`.
    pub(crate) fn forward(
        &self,
        layer: &mut dyn ByPlanes,
        y: &[f32],
        residual: Option<&[f32]>,
        z: &mut [f32],
    ) {
        for (block, range) in self.each() {
            let residual = residual.map(|residual| &residual[range.clone()]);
            layer.forward(block, &y[range.clone()], residual, &mut z[range], self.pass);
        }
    }

    /// Its backward pass over these blocks of `y`, `g` and `residual`.
    pub(crate) fn backward(
        &self,
        layer: &mut dyn ByPlanes,
        y: &[f32],
        g: &mut [f32],
        mut residual: Option<(&[f32], &mut [f32])>,
    ) {
        for (block, range) in self.each() {
            let residual = residual.as_mut().map(|(z, dy)| (&z[range.clone()], &mut dy[range.clone()]));
            layer.backward(block, &y[range.clone()], &mut g[range], residual, self.pass);
        }
    }
}
