//! Pooling.

use super::geometry::{Walk, Window};
use crate::kernel::pool::{add_scaled, max_gradient, max_tap};

/// The largest value in each window.
pub(crate) struct MaxPool {
    forward: Walk,
    backward: Walk,
    channels: usize,
    /// The tap that each output came through.
    winner: Vec<u8>,
}

impl MaxPool {
    /// # Shapes
    /// Input `[positions][batch][channels]`, output `[positions'][batch][channels]`.
    pub(crate) fn new(window: &Window, channels: usize, max_batch: usize) -> Self {
        let [height, width] = window.output();
        Self {
            forward: window.forward(),
            backward: window.backward(),
            channels,
            winner: vec![0; height * width * max_batch * channels],
        }
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize) {
        let position = samples * self.channels;
        for run in &self.forward.runs {
            for i in 0..run.len {
                let at = (run.to + i) * position;
                let (y, winner) = (&mut y[at..at + position], &mut self.winner[at..at + position]);
                for (j, tap) in self.forward.taps[run.taps.clone()].iter().enumerate() {
                    let x = &x[(tap.from + i) * position..][..position];
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

    /// `dx (+)=` the gradient of the input.
    pub(crate) fn backward(&self, dy: &[f32], dx: &mut [f32], samples: usize, add: bool) {
        let position = samples * self.channels;
        for run in &self.backward.runs {
            for i in 0..run.len {
                let dx = &mut dx[(run.to + i) * position..][..position];
                if !add {
                    dx.fill(0.0);
                }
                for tap in &self.backward.taps[run.taps.clone()] {
                    let at = (tap.from + i) * position;
                    max_gradient(dx, &dy[at..at + position], &self.winner[at..at + position], tap.tap as u8);
                }
            }
        }
    }
}

/// The mean over all positions.
///
/// # Shapes
/// `x` `[positions][batch][channels]`, `y` `[batch][channels]`.
pub(crate) fn average(x: &[f32], y: &mut [f32]) {
    let positions = x.len() / y.len();
    y.fill(0.0);
    for x in x.chunks_exact(y.len()) {
        add_scaled(y, x, 1.0 / positions as f32);
    }
}

/// `dx (+)=` the gradient of the input of [`average`].
pub(crate) fn average_gradient(dy: &[f32], dx: &mut [f32], add: bool) {
    let positions = dx.len() / dy.len();
    for dx in dx.chunks_exact_mut(dy.len()) {
        if !add {
            dx.fill(0.0);
        }
        add_scaled(dx, dy, 1.0 / positions as f32);
    }
}
