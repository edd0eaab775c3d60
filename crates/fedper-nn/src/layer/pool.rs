//! Pooling.

use super::geometry::{Walk, Window};
use super::{Backward, Extent, Forward, InputGradient, Layer, Scratch};
use crate::kernel::BLOCK;
use crate::kernel::pool::{add_scaled, max_gradient, max_tap};
use crate::parameter::parameters;

/// The largest value in each window.
pub(crate) struct MaxPool {
    forward: Walk,
    backward: Walk,
    inputs: Extent,
    outputs: Extent,
    /// The tap that each output came through.
    winner: Vec<u8>,
}

parameters!(MaxPool:);

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
}

impl Layer for MaxPool {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
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

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { dy, mut gradients, pass, .. } = pass;
        let Some(InputGradient { values: dx, add }) = gradients.of(0) else { return };
        let samples = pass.samples;
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
    fn in_place(&self) -> Option<usize> {
        None
    }

    fn selects(&self) -> bool {
        true
    }
}

/// The mean over all positions.
pub(crate) struct AveragePool {
    pub(crate) inputs: Extent,
}

parameters!(AveragePool:);

impl AveragePool {
    fn outputs(&self) -> Extent {
        Extent { positions: 1, ..self.inputs }
    }

    fn share(&self) -> f32 {
        1.0 / self.inputs.positions as f32
    }
}

impl Layer for AveragePool {
    fn reserve(&self, _: &mut Scratch, _: usize, _: bool) {}

    fn forward(&mut self, pass: Forward<'_>) {
        let Forward { inputs, y, pass, .. } = pass;
        let (x, samples) = (inputs.of(0), pass.samples);
        for block in 0..self.inputs.blocks {
            let y = &mut y[self.outputs().range(block, samples)];
            y.fill(0.0);
            for x in x[self.inputs.range(block, samples)].chunks_exact(samples * BLOCK) {
                add_scaled(y, x, self.share());
            }
        }
    }

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { dy, mut gradients, pass, .. } = pass;
        let Some(InputGradient { values: dx, add }) = gradients.of(0) else { return };
        let samples = pass.samples;
        for block in 0..self.inputs.blocks {
            let dy = &dy[self.outputs().range(block, samples)];
            for dx in dx[self.inputs.range(block, samples)].chunks_exact_mut(samples * BLOCK) {
                if !add {
                    dx.fill(0.0);
                }
                add_scaled(dx, dy, self.share());
            }
        }
    }

    fn in_place(&self) -> Option<usize> {
        None
    }
}
