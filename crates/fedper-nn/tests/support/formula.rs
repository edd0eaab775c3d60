//! Inputs, labels and weights from a formula: the counterpart of `../golden/formula.py`, which documents it.

use fedper_core::params::{Layout, Params, Spec};
use fedper_core::seed::Fnv1a;
use std::sync::Arc;

/// The first `count` outputs of splitmix64 started at the FNV-1a hash of `name`.
pub(crate) fn bits(name: &str, count: usize) -> impl Iterator<Item = u64> + use<> {
    let mut hash = Fnv1a::new();
    hash.write(name.as_bytes());
    let mut state = hash.finish();
    (0..count).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// `count` numbers in `[-1, 1)`.
pub(crate) fn unit(name: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    bits(name, count).map(|b| (b >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
}

/// What kind of values parameters begin with.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    /// Around what running variances lie.
    pub(crate) variance: f64,
    /// Whether batch norm's output is lifted above 0.
    pub(crate) calm: bool,
}

impl Default for Start {
    fn default() -> Self {
        Self { variance: 1.0, calm: false }
    }
}

/// The parameter `spec` as `owner` initialises it.
pub(crate) fn parameter(owner: &str, spec: &Spec, start: Start) -> Vec<f32> {
    let Start { variance, calm } = start;
    let product = |extents: &[usize]| extents.iter().product::<usize>() as f64;
    let values = unit(&format!("{owner}/{}", spec.name), spec.numel());
    let role: Box<dyn Fn(f64) -> f64> = match (spec.name.rsplit('.').next(), &spec.shape[..]) {
        (Some("running_mean"), _) => Box::new(|u| 0.2 * u),
        (Some("bias"), _) => Box::new(move |u| if calm { 1.0 } else { 0.0 } + 0.2 * u),
        (Some("running_var"), _) => Box::new(move |u| variance * (1.0 + 0.5 * u)),
        (_, [_, fan_in @ ..]) if fan_in.len() == 3 => {
            let bound = (6.0 / product(fan_in)).sqrt();
            Box::new(move |u| bound * u)
        }
        (_, [_, fan_in]) => {
            let bound = (3.0 / *fan_in as f64).sqrt();
            Box::new(move |u| bound * u)
        }
        _ if calm => Box::new(|u| 0.75 + 0.25 * u),
        _ => Box::new(|u| 1.5 + u),
    };
    values.map(|u| role(u) as f32).collect()
}

/// All of `owner`'s parameters.
pub(crate) fn params(owner: &str, layout: &Arc<Layout>, start: Start) -> Params {
    let mut params = Params::zeros(Arc::clone(layout));
    for (position, spec) in layout.specs().iter().enumerate() {
        params.at_mut(position).copy_from_slice(&parameter(owner, spec, start));
    }
    params
}

/// `[n][height][width][channels]`: noise around an offset per sample and channel.
pub(crate) fn images(name: &str, n: usize, height: usize, width: usize, channels: usize) -> Vec<f32> {
    shades(name, n, height, width, channels).map(|shade| shade as f32).collect()
}

/// The same as bytes, which is how datasets hold images.
pub(crate) fn pixels(name: &str, n: usize, height: usize, width: usize, channels: usize) -> Vec<u8> {
    shades(name, n, height, width, channels)
        .map(|shade| (256.0 * (shade / 3.0 + 0.5)).floor() as u8)
        .collect()
}

/// A byte as a network reads it, as torchvision's `ToTensor` and `Normalize(0.5, 0.5)` compute it.
pub(crate) fn normalised(pixel: u8) -> f32 {
    (f32::from(pixel) / 255.0 - 0.5) / 0.5
}

fn shades(
    name: &str,
    n: usize,
    height: usize,
    width: usize,
    channels: usize,
) -> impl Iterator<Item = f64> + use<> {
    let per_image = height * width * channels;
    let offsets: Vec<f64> = unit(&format!("{name}/offsets"), n * channels).collect();
    unit(&format!("{name}/pixels"), n * per_image)
        .enumerate()
        .map(move |(i, u)| offsets[i / per_image * channels + i % channels] + 0.5 * u)
}

/// One label per image.
pub(crate) fn labels(name: &str, n: usize, classes: usize) -> Vec<u32> {
    bits(&format!("{name}/labels"), n).map(|b| (b % classes as u64) as u32).collect()
}

/// Which entries of a tensor of `numel` values a golden file keeps.
pub(crate) fn entries(name: &str, numel: usize, limit: usize) -> Vec<usize> {
    if numel <= limit {
        return (0..numel).collect();
    }
    let start = |i: usize| i * numel / limit;
    bits(&format!("{name}/entries"), limit)
        .enumerate()
        .map(|(i, b)| start(i) + (b % (start(i + 1) - start(i)) as u64) as usize)
        .collect()
}

/// `scale * u + shift`; with `levels`, `u` is first rounded down to multiples of `1 / levels`, which makes ties.
pub(crate) fn spread(u: f64, scale: f64, shift: f64, levels: Option<f64>) -> f32 {
    let u = levels.map_or(u, |levels| (u * levels).floor() / levels);
    (scale * u + shift) as f32
}

#[test]
fn the_formula_gives_what_it_gives_in_python() {
    assert_eq!(bits("a", 2).collect::<Vec<_>>(), [0x5f29_c2aa_dd9b_8527, 0xff84_f1bd_b6d3_884f]);
    let spec = Spec::trainable("conv.weight", [2, 3, 3, 3]);
    let values = parameter("server", &spec, Start::default());
    let raw: Vec<u32> = values[..3].iter().map(|v| v.to_bits()).collect();
    assert_eq!(raw, [3_200_527_436, 3_200_903_342, 3_184_855_317]);
    let values = images("x", 2, 2, 2, 3);
    let raw = [0, 13, 23].map(|i: usize| values[i].to_bits());
    assert_eq!(raw, [3_194_389_519, 3_197_286_718, 3_210_061_105]);
    assert_eq!([0, 13, 23].map(|i: usize| pixels("x", 2, 2, 2, 3)[i]), [108, 103, 56]);
    assert_eq!(labels("x", 8, 10), [9, 1, 2, 9, 3, 3, 1, 8]);
    assert_eq!(entries("fc.weight", 5000, 8), [511, 1215, 1504, 2010, 2899, 3711, 4266, 4657]);
}
