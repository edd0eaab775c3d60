//! Pooling.

use super::blocks;
use super::geometry::{Walk, Window};
use crate::kernel::BLOCK;
use crate::kernel::pool::{add_scaled, max_gradient, max_tap};

/// The largest value in each window.
pub(crate) struct MaxPool {
    forward: Walk,
    backward: Walk,
    /// Input and output positions.
    positions: [usize; 2],
    /// The tap that each output came through.
    winner: Vec<u8>,
}

impl MaxPool {
    /// # Shapes
    /// `channels` at the window's input and output positions.
    pub(crate) fn new(window: &Window, channels: usize, max_batch: usize) -> Self {
        let positions = [window.input, window.output()].map(|[height, width]| height * width);
        Self {
            forward: window.forward(),
            backward: window.backward(),
            positions,
            winner: vec![0; blocks(channels) * BLOCK * positions[1] * max_batch],
        }
    }

    pub(crate) fn forward(&mut self, x: &[f32], y: &mut [f32], samples: usize) {
        let row = samples * BLOCK;
        let [x_plane, y_plane] = self.positions.map(|positions| positions * row);
        let planes = x.chunks_exact(x_plane).zip(y.chunks_exact_mut(y_plane));
        for ((x, y), winner) in planes.zip(self.winner.chunks_exact_mut(y_plane)) {
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
        let [x_plane, y_plane] = self.positions.map(|positions| positions * row);
        let planes = dx.chunks_exact_mut(x_plane).zip(dy.chunks_exact(y_plane));
        for ((dx, dy), winner) in planes.zip(self.winner.chunks_exact(y_plane)) {
            for run in &self.backward.runs {
                for i in 0..run.len {
                    let dx = &mut dx[(run.to + i) * row..][..row];
                    if !add {
                        dx.fill(0.0);
                    }
                    for tap in &self.backward.taps[run.taps.clone()] {
                        let at = (tap.from + i) * row;
                        max_gradient(dx, &dy[at..at + row], &winner[at..at + row], tap.tap as u8);
                    }
                }
            }
        }
    }
}

/// The mean over all positions.
///
/// # Shapes
/// `x` blocked, `y` the same with one position.
pub(crate) fn average(x: &[f32], y: &mut [f32], samples: usize) {
    let row = samples * BLOCK;
    let positions = x.len() / y.len();
    y.fill(0.0);
    for (x, y) in x.chunks_exact(positions * row).zip(y.chunks_exact_mut(row)) {
        for x in x.chunks_exact(row) {
            add_scaled(y, x, 1.0 / positions as f32);
        }
    }
}

/// `dx (+)=` the gradient of the input of [`average`].
pub(crate) fn average_gradient(dy: &[f32], dx: &mut [f32], samples: usize, add: bool) {
    let row = samples * BLOCK;
    let positions = dx.len() / dy.len();
    if !add {
        dx.fill(0.0);
    }
    for (dx, dy) in dx.chunks_exact_mut(positions * row).zip(dy.chunks_exact(row)) {
        for dx in dx.chunks_exact_mut(row) {
            add_scaled(dx, dy, 1.0 / positions as f32);
        }
    }
}
