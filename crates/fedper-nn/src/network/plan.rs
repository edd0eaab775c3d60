//! How convolutions and linear layers are computed: the one place that chooses.
//!
//! [`RULES`] is read from the top, and the first rule that holds is taken. What a rule asks for depends on shapes, the batch
//! and the kernels there are, never on a network's name.

use crate::kernel::{BLOCK, Kernels};
use crate::layer::geometry::Window;
use crate::layer::pooled_stem;
use crate::layer::way::{Way, Ways};
use crate::layer::winograd::Winograd;

/// A convolution or a linear layer where it stands in a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// A linear layer has one window, the whole input.
    pub(crate) window: Window,
    pub(crate) channels: [usize; 2],
    pub(crate) groups: usize,
    pub(crate) linear: bool,
    /// Whether it reads the images.
    pub(crate) first: bool,
    /// Whether a 2x2 max-pool, side by side, follows its activation.
    pub(crate) pooled: bool,
    pub(crate) kernels: Kernels,
    /// How it would be computed by tiles, where that takes fewer products.
    pub(crate) tiles: Option<Winograd>,
}

/// How one convolution or linear layer of a network is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The prefix of its parameters' names.
    pub name: String,
    /// How.
    pub way: Way,
    /// Why so.
    pub why: &'static str,
}

struct Rule {
    way: Way,
    when: fn(&Case, usize) -> bool,
    why: &'static str,
}

/// Terms that one chain may add up in a first layer's kernels.
const MAX_TERMS: usize = 128;
/// Samples up to which the memory traffic of a linear layer's weights counts more than arithmetic.
const FEW: usize = 32;
/// Positions up to which parts of bf16 are faster: of a larger plane, tiles save as much.
const MAX_POSITIONS: usize = 64;
/// Products of each value of the inputs and of the outputs, from which on cutting it costs little beside them.
const MIN_PRODUCTS: usize = 256;
/// Samples from which on they fill a tile of AMX.
const FULL: usize = BLOCK;

/// The first rule that holds is taken.
const RULES: [Rule; 14] = [
    Rule { way: Way::Matrix, when: |case, _| case.linear && case.kernels.plain, why: "asked for" },
    Rule { way: Way::Taps, when: |case, _| case.kernels.plain, why: "asked for" },
    Rule {
        way: Way::PooledLines,
        when: |case, _| case.pools_images() && pooled_stem::has_lines(&case.window),
        why: "few channels, a width of 5: a line of tiles takes fewer products",
    },
    Rule {
        way: Way::PooledWindows,
        when: |case, _| case.pools_images(),
        why: "few terms: the output is pooled before it is stored",
    },
    Rule {
        way: Way::RoundedImages,
        when: |case, _| case.first && case.groups == 1 && !case.linear && case.rounds(),
        why: "images are rounded once",
    },
    Rule {
        way: Way::Images,
        when: |case, _| case.first && case.groups == 1,
        why: "images are read where they are",
    },
    Rule {
        way: Way::Walk,
        when: |case, samples| case.linear && samples <= FEW,
        why: "few samples: reading and writing the weights is what it costs",
    },
    Rule { way: Way::Matrix, when: |case, _| case.linear, why: "many samples share the weights" },
    Rule {
        way: Way::Depthwise,
        when: |case, _| case.groups > 1 && case.channels == [case.groups; 2],
        why: "each channel by itself",
    },
    Rule { way: Way::Rounded, when: |case, _| case.rounds(), why: "bf16 was asked for" },
    Rule {
        way: Way::PooledTiles,
        when: |case, _| case.pooled && case.tiles.is_some() && case.window.output().iter().all(|&n| n > 1),
        why: "tiles take fewer products, and are pooled before they are stored",
    },
    Rule {
        way: Way::Parts,
        when: Case::cuts,
        why: "many channels on a small plane: AMX's six products of parts are faster than one of f32",
    },
    Rule { way: Way::Tiles, when: |case, _| case.tiles.is_some(), why: "tiles take fewer products" },
    Rule { way: Way::Taps, when: |_, _| true, why: "nothing else is faster" },
];

impl Case {
    /// A convolution between others.
    pub(crate) fn new(window: Window, channels: [usize; 2], groups: usize, kernels: Kernels) -> Self {
        let tiles = Winograd::new(&window, channels, groups);
        Self { window, channels, groups, linear: false, first: false, pooled: false, kernels, tiles }
    }

    fn rule(&self, samples: usize) -> &'static Rule {
        RULES.iter().find(|rule| (rule.when)(self, samples)).expect("the last rule always holds")
    }

    /// How a batch of so many samples is computed, and why.
    pub(crate) fn way(&self, samples: usize) -> (Way, &'static str) {
        let rule = self.rule(samples);
        (rule.way, rule.why)
    }

    /// How batches of up to so many samples are computed.
    pub(crate) fn ways(&self, max_batch: usize) -> Ways {
        Ways::new((1..=max_batch).map(|samples| self.rule(samples).way).collect())
    }

    fn rounds(&self) -> bool {
        self.kernels.rounding().is_some()
    }

    fn pools_images(&self) -> bool {
        self.first && self.groups == 1 && self.pooled && self.window.taps() * self.channels[0] <= MAX_TERMS
    }

    /// Whether parts of bf16 are faster.
    fn cuts(&self, samples: usize) -> bool {
        let positions: usize = self.window.output().iter().product();
        let products = self.window.taps() * self.channels[0].min(self.channels[1]);
        self.kernels.exact().is_some()
            && positions <= MAX_POSITIONS
            && products >= MIN_PRODUCTS
            && samples >= FULL
    }
}
