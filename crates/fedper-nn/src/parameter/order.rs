//! How a layer's order of a parameter's values relates to PyTorch's.

use std::ops::Range;

use crate::kernel::{BLOCK, blocks};

/// The order in which a parameter's values lie. Values that PyTorch does not have fill up blocks; they are zero and stay zero.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    /// PyTorch's own.
    Torch,
    /// `[block][tap][16]` of PyTorch's `[channel][tap]`.
    Lanes {
        channels: usize,
        taps: usize,
    },
    Panels(Panels),
}

impl Order {
    /// Calls `visit` with where each of PyTorch's values lies here, and there.
    pub(crate) fn each(&self, len: usize, mut visit: impl FnMut(usize, usize)) {
        match *self {
            Order::Torch => (0..len).for_each(|i| visit(i, i)),
            Order::Lanes { channels, taps } => {
                for channel in 0..channels {
                    for tap in 0..taps {
                        visit((channel / BLOCK * taps + tap) * BLOCK + channel % BLOCK, channel * taps + tap);
                    }
                }
            }
            Order::Panels(panels) => panels.each(visit),
        }
    }
}

/// Weights as `[panel][tap][input][panel width]`: what a tile of a matrix kernel needs lies in a row. A panel is one block of
/// output channels or two, as the kernel has it, the last one perhaps narrower. Rows and columns beyond the channels there
/// are, and those that lead from one group to another, are zero and stay zero: their gradient is.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    pub(crate) groups: usize,
    /// Whether what are inputs here are PyTorch's outputs, and the other way round.
    pub(crate) exchanged: bool,
    pub(crate) taps: usize,
    /// Rows of a tap: input channels, filled up to whole blocks or not; of exchanged ones, one more.
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Blocks of a full panel.
    pub(crate) blocks: usize,
}

/// A panel of output channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    /// Its first block.
    pub(crate) first: usize,
    pub(crate) blocks: usize,
    /// Where its weights begin.
    pub(crate) start: usize,
}

impl Panel {
    pub(crate) fn width(&self) -> usize {
        self.blocks * BLOCK
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.blocks
    }

    /// `count` blocks in panels of up to `panel_blocks`; a panel's weights are `rows` rows.
    fn all(count: usize, panel_blocks: usize, rows: usize) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (0..count).step_by(panel_blocks).map(move |first| Self {
            first,
            blocks: panel_blocks.min(count - first),
            start: first * BLOCK * rows,
        })
    }
}

impl Panels {
    /// Values of all panels.
    pub(crate) fn len(&self) -> usize {
        blocks(self.outputs) * BLOCK * self.taps * self.rows
    }

    pub(crate) fn panels(&self) -> impl DoubleEndedIterator<Item = Panel> + Clone + use<> {
        Panel::all(blocks(self.outputs), self.blocks, self.taps * self.rows)
    }

    /// Panels of input channels.
    pub(crate) fn input_panels(&self) -> impl Iterator<Item = Panel> + Clone + use<> {
        Panel::all(self.rows / BLOCK, self.blocks, 0)
    }

    fn each(&self, mut visit: impl FnMut(usize, usize)) {
        let (ins, outs) = (self.inputs / self.groups, self.outputs / self.groups);
        for panel in self.panels() {
            let width = panel.width();
            for output in panel.first * BLOCK..self.outputs.min(panel.range().end * BLOCK) {
                let group = output / outs;
                for input in 0..ins {
                    let own = panel.start + (group * ins + input) * width + output - panel.first * BLOCK;
                    let torch = match self.exchanged {
                        false => output * ins + input,
                        true => input * outs + output,
                    } * self.taps;
                    for tap in 0..self.taps {
                        visit(tap * self.rows * width + own, torch + tap);
                    }
                }
            }
        }
    }
}
