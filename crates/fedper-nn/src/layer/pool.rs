//! Pooling.

use super::Extent;
use super::geometry::{Walk, Window};
use crate::kernel::BLOCK;
use crate::kernel::pool::{add_scaled, max_gradient, max_tap};

/// The largest value in each window.
pub(crate) struct MaxPool {
    forward: Walk,
    backward: Walk,
    inputs: Extent,
    outputs: Extent,
    /// The tap that each output came through.
    winner: Vec<u8>,
}

impl MaxPool {
    /// # Shapes
    /// `channels` at the window's input and output positions.
    pub(crate) fn new(window: &Window, channels: usize, max_batch: usize) -> Self {
        let (inputs, outputs) = (Extent::new(channels, window.input), Extent::new(channels, window.output()));
        Self {
            forward: window.forward(),
            backward: window.backward(),
            inputs,
            outputs,
            winner: vec![0; outputs.capacity(max_batch)],
        }
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize) {
        let row = samples * BLOCK;
        for block in 0..self.inputs.blocks {
            let (x, range) = (&x[self.inputs.range(block, samples)], self.outputs.range(block, samples));
            let (y, winner) = (&mut y[range.clone()], &mut self.winner[range]);
            for run in &self.forward.runs {
                for i in 0..run.len {
                    let at = (run.to + i) * row;
                    let (y, winner) = (&mut y[at..at + row], &mut winner[at..at + row]);
                    for (j, tap) in self.forward.taps[run.taps.clone()].iter().enumerate() {
                        let x = &x[(tap.from + i) * row..][..row];
                        if j == 0 {
                            y.copy_from_slice(x);
                            winner.fill(tap.tap as u8);
                        } else {
                            max_tap(x, y, winner, tap.tap as u8);
                        }
                    }
                }
            }
        }
    }

    /// `dx (+)=` the gradient of the input.
    pub(crate) fn backward(&self, dy: &[f32], dx: &mut [f32], samples: usize, add: bool) {
        let row = samples * BLOCK;
        for block in 0..self.inputs.blocks {
            let (dx, range) =
                (&mut dx[self.inputs.range(block, samples)], self.outputs.range(block, samples));
            let (dy, winner) = (&dy[range.clone()], &self.winner[range]);
            for run in &self.backward.runs {
                for i in 0..run.len {
                    let dx = &mut dx[(run.to + i) * row..][..row];
                    if !add && run.taps.is_empty() {
                        dx.fill(0.0);
                    }
                    let mut add = add;
                    for tap in &self.backward.taps[run.taps.clone()] {
                        let at = (tap.from + i) * row;
                        max_gradient(dx, &dy[at..at + row], &winner[at..at + row], tap.tap as u8, add);
                        add = true;
                    }
                }
            }
        }
    }
}

/// The mean over all positions of an input of `extent`.
pub(crate) fn average(x: &[f32], y: &mut [f32], extent: Extent, samples: usize) {
    let to = Extent { positions: 1, ..extent };
    for block in 0..extent.blocks {
        let y = &mut y[to.range(block, samples)];
        y.fill(0.0);
        for x in x[extent.range(block, samples)].chunks_exact(samples * BLOCK) {
            add_scaled(y, x, 1.0 / extent.positions as f32);
        }
    }
}

/// `dx (+)=` the gradient of the input of [`average`].
pub(crate) fn average_gradient(dy: &[f32], dx: &mut [f32], extent: Extent, samples: usize, add: bool) {
    let from = Extent { positions: 1, ..extent };
    for block in 0..extent.blocks {
        let dy = &dy[from.range(block, samples)];
        for dx in dx[extent.range(block, samples)].chunks_exact_mut(samples * BLOCK) {
            if !add {
                dx.fill(0.0);
            }
            add_scaled(dx, dy, 1.0 / extent.positions as f32);
        }
    }
}
