//! The loops of group norm over a plane: what is known of each sample and channel lies in *lines*, as long as a position.

use crate::kernel::elementwise::{clamp, pass};
use crate::kernel::versions;

versions! {
    /// Adds the sums over positions of `y - pivot` and of its square to lines.
    pub(super) fn shifted_sums(y: &[f32], pivot: &[f32], sum: &mut [f32], squares: &mut [f32]) {
        for y in y.chunks_exact(pivot.len()) {
            for (((&y, &pivot), sum), square) in y.iter().zip(pivot).zip(&mut *sum).zip(&mut *squares) {
                let d = y - pivot;
                *sum += d;
                *square += d * d;
            }
        }
    }
}

versions! {
    /// Adds the sums over positions of `g` and of `g * (y - mean)` to lines.
    pub(super) fn gradient_sums(g: &[f32], y: &[f32], mean: &[f32], sum: &mut [f32], products: &mut [f32]) {
        for (g, y) in g.chunks_exact(mean.len()).zip(y.chunks_exact(mean.len())) {
            let lines = mean.iter().zip(&mut *sum).zip(&mut *products);
            for ((&g, &y), ((&mean, sum), product)) in g.iter().zip(y).zip(lines) {
                *sum += g;
                *product += g * (y - mean);
            }
        }
    }
}

versions! {
    /// `z = activation(scale * (y - mean) + shift)`
    pub(super) fn normalise(y: &[f32], z: &mut [f32], lines: [&[f32]; 3], range: (f32, f32)) {
        let [mean, scale, shift] = lines;
        for (y, z) in y.chunks_exact(mean.len()).zip(z.chunks_exact_mut(mean.len())) {
            let each = mean.iter().zip(scale).zip(shift);
            for ((&y, z), ((&mean, &scale), &shift)) in y.iter().zip(z).zip(each) {
                *z = clamp((y - mean) * scale + shift, range);
            }
        }
    }
}

versions! {
    /// `z = activation(scale * (y - mean) + shift + residual)`
    pub(super) fn normalise_add(
        y: &[f32],
        residual: &[f32],
        z: &mut [f32],
        lines: [&[f32]; 3],
        range: (f32, f32),
    ) {
        let [mean, scale, shift] = lines;
        let residual = residual.chunks_exact(mean.len());
        for ((y, z), r) in y.chunks_exact(mean.len()).zip(z.chunks_exact_mut(mean.len())).zip(residual) {
            let each = mean.iter().zip(scale).zip(shift);
            for (((&y, z), &r), ((&mean, &scale), &shift)) in y.iter().zip(z).zip(r).zip(each) {
                *z = clamp((y - mean) * scale + shift + r, range);
            }
        }
    }
}

versions! {
    /// Stops `g` where [`normalise`]'s activation stopped the value.
    pub(super) fn stop(g: &mut [f32], y: &[f32], lines: [&[f32]; 3], range: (f32, f32)) {
        let [mean, scale, shift] = lines;
        for (g, y) in g.chunks_exact_mut(mean.len()).zip(y.chunks_exact(mean.len())) {
            let each = mean.iter().zip(scale).zip(shift);
            for ((g, &y), ((&mean, &scale), &shift)) in g.iter_mut().zip(y).zip(each) {
                *g = pass(*g, (y - mean) * scale + shift, range);
            }
        }
    }
}

versions! {
    /// `g = scale * g + slope * (y - mean) + offset`
    pub(super) fn denormalise(g: &mut [f32], y: &[f32], lines: [&[f32]; 4]) {
        let [mean, scale, slope, offset] = lines;
        for (g, y) in g.chunks_exact_mut(mean.len()).zip(y.chunks_exact(mean.len())) {
            let each = mean.iter().zip(scale).zip(slope).zip(offset);
            for ((g, &y), (((&mean, &scale), &slope), &offset)) in g.iter_mut().zip(y).zip(each) {
                *g = *g * scale + (y - mean) * slope + offset;
            }
        }
    }
}
