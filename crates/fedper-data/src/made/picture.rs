//! A picture with known properties: a sky-like gradient, stripes, a few discs and boxes, grain.

use fedper_core::seed::{self, Purpose, Random, SERVER};

/// How many properties a picture has.
pub(super) const PROPERTIES: usize = 4;

/// Brightness, warmth (red against blue), texture (how strong the stripes are) and roundness (discs against boxes), each
/// from -1 to 1.
pub(super) type Properties = [f64; PROPERTIES];

/// Discs and boxes in a picture.
const SHAPES: usize = 5;

/// The name of a picture's file.
pub(super) fn name(photo: usize) -> String {
    format!("made_{photo:05}.jpg")
}

fn stream(seed: u64, photo: usize, what: &str) -> Random {
    seed::named(seed, Purpose::Dataset, SERVER, 0, &format!("made {what} {photo}"))
}

/// What a picture is like, drawn uniformly.
pub(super) fn properties(seed: u64, photo: usize) -> Properties {
    let mut rng = stream(seed, photo, "properties");
    std::array::from_fn(|_| 2.0 * seed::uniform(&mut rng) - 1.0)
}

/// A disc or a box.
struct Shape {
    round: bool,
    x: f64,
    y: f64,
    radius: f64,
    /// Added to what lies below.
    light: f64,
}

impl Shape {
    fn covers(&self, x: f64, y: f64) -> bool {
        let (dx, dy) = ((x - self.x).abs(), (y - self.y).abs());
        if self.round {
            dx * dx + dy * dy < self.radius * self.radius
        } else {
            dx.max(dy) < self.radius * 0.886
        }
    }
}

/// Draws picture `photo`.
///
/// # Shapes
/// `[height][width][3]`
pub(super) fn draw(seed: u64, photo: usize, width: usize, height: usize) -> Vec<u8> {
    let [brightness, warmth, texture, roundness] = properties(seed, photo);
    let mut rng = stream(seed, photo, "pixels");
    // Lengths are in units of the shorter side.
    let unit = width.min(height) as f64;
    let (across, down) = (width as f64 / unit, height as f64 / unit);
    let round = libm::round((roundness + 1.0) / 2.0 * SHAPES as f64) as usize;
    let shapes: [Shape; SHAPES] = std::array::from_fn(|i| Shape {
        round: i < round,
        x: across * seed::uniform(&mut rng),
        y: down * seed::uniform(&mut rng),
        radius: 0.08 + 0.08 * seed::uniform(&mut rng),
        // As many lighter ones as darker ones, so that brightness is the picture's.
        light: if (i + photo).is_multiple_of(2) { 30.0 } else { -30.0 },
    });
    let slope = 30.0 * (2.0 * seed::uniform(&mut rng) - 1.0);
    let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * seed::uniform(&mut rng));
    let waves = 2.0 * std::f64::consts::PI * (7.0 + 2.0 * seed::uniform(&mut rng));
    let stripes = 26.0 * (texture + 1.0);
    let tint = [40.0 * warmth, 0.0, -40.0 * warmth];
    let mut pixels = Vec::with_capacity(3 * width * height);
    let (mut grain, mut left) = (0u64, 0);
    for row in 0..height {
        let y = row as f64 / unit;
        for column in 0..width {
            let x = column as f64 / unit;
            let mut light = 128.0 + 55.0 * brightness + slope * (y / down - 0.5);
            light += stripes * libm::sin(waves * (x * cos + y * sin));
            light += shapes.iter().filter(|shape| shape.covers(x, y)).map(|shape| shape.light).sum::<f64>();
            if left == 0 {
                (grain, left) = (seed::below(&mut rng, 1 << 32), 8);
            }
            light += (grain & 15) as f64 - 7.5;
            (grain, left) = (grain >> 4, left - 1);
            pixels.extend(tint.map(|tint| libm::round(light + tint).clamp(0.0, 255.0) as u8));
        }
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_can_be_seen() {
        // Over many pictures, what is measured follows what was asked for.
        let correlation = |measure: fn(&[u8]) -> f64, property: usize| {
            let pairs: Vec<(f64, f64)> =
                (0..60).map(|i| (properties(3, i)[property], measure(&draw(3, i, 40, 30)))).collect();
            let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / pairs.len() as f64;
            let (a, b) = (mean(|p| p.0), mean(|p| p.1));
            let sum = |of: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|p| of(p.0 - a, p.1 - b)).sum::<f64>();
            sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
        };
        let brightness = |pixels: &[u8]| pixels.iter().map(|&byte| f64::from(byte)).sum();
        let warmth =
            |pixels: &[u8]| pixels.chunks(3).map(|pixel| f64::from(pixel[0]) - f64::from(pixel[2])).sum();
        let texture = |pixels: &[u8]| {
            pixels.windows(4).map(|pair| f64::from(pair[0]) - f64::from(pair[3])).map(|d| d * d).sum()
        };
        assert!(correlation(brightness, 0) > 0.95);
        assert!(correlation(warmth, 1) > 0.95);
        assert!(correlation(texture, 2) > 0.6);
    }
}
