//! Golden rounds: two FedPer rounds over three devices as PyTorch computes them (`../golden/rounds.py`).

use std::collections::HashSet;
use std::sync::Arc;

use fedper_core::params::{Layout, Params};
use fedper_nn::{Architecture, InputShape, InstructionSet, Sgd};
use serde_json::Value;

use super::formula::{self, Start};
use super::golden::Golden;
use super::report::{FLOOR, Report};

/// With AVX2 the distances have the pattern of one unit of `layer4.1` whose input is within rounding of 0 and falls on the other
/// side of its ReLU: they grow towards the convolution right before it, and behind it there is none.
const UNIT_ON_THE_OTHER_SIDE: (&str, &str) = ("avx2", "resnet34-cifar");

/// One device's data.
pub(crate) struct Device {
    /// `[samples][height][width][channels]`
    pub(crate) pixels: Vec<u8>,
    /// The same, as a network reads them.
    pub(crate) images: Vec<f32>,
    pub(crate) labels: Vec<u32>,
}

/// What to run, and what must come out.
pub(crate) struct Rounds {
    golden: Golden,
    /// Whether 1e-4 is asked for, as of shallow networks; else some times the distance of PyTorch's float32.
    shallow: bool,
    /// How often that distance is allowed.
    times: f64,
    pub(crate) arch: Architecture,
    pub(crate) layout: Arc<Layout>,
    pub(crate) personal_layers: usize,
    /// Names of the parameters and buffers that stay on the device.
    pub(crate) personal: HashSet<String>,
    pub(crate) rounds: usize,
    pub(crate) local_epochs: usize,
    pub(crate) batch: usize,
    pub(crate) sgd: Sgd,
    pub(crate) devices: Vec<Device>,
}

/// The architecture that a golden file's `case` names.
pub(crate) fn architecture(case: &Value) -> Architecture {
    let number = |key: &str| case[key].as_u64().unwrap() as usize;
    let model = case["model"].as_str().unwrap().parse().unwrap();
    let stem = case["stem"].as_str().unwrap_or("cifar").parse().unwrap();
    let input = InputShape { channels: number("channels"), height: number("height"), width: number("width") };
    Architecture::new(model, stem, input, number("classes")).unwrap()
}

impl Rounds {
    pub(crate) fn open(name: &str) -> Self {
        let golden = Golden::open(&format!("rounds-{name}.safetensors"));
        let case = golden.scalar("case").clone();
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let float = |key: &str| case[key].as_f64().unwrap() as f32;
        let kernels = InstructionSet::current().to_string();
        let times = if (kernels.as_str(), name) == UNIT_ON_THE_OTHER_SIDE { 8.0 } else { 1.5 };
        let arch = architecture(&case);
        let input = arch.input;
        let samples = case["samples"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize);
        let devices = samples.enumerate().map(|(j, n)| {
            let name = format!("{name}/device-{j}");
            let pixels = formula::pixels(&name, n, input.height, input.width, input.channels);
            Device {
                images: pixels.iter().map(|&pixel| formula::normalised(pixel)).collect(),
                pixels,
                labels: formula::labels(&name, n, arch.classes),
            }
        });
        Self {
            shallow: case["stem"].is_null(),
            times,
            layout: arch.layout(),
            personal_layers: number("personal_layers"),
            personal: arch.personal_names(number("personal_layers")).unwrap().into_iter().collect(),
            rounds: number("rounds"),
            local_epochs: number("local_epochs"),
            batch: number("batch"),
            sgd: Sgd { lr: float("lr"), momentum: float("momentum"), weight_decay: float("weight_decay") },
            devices: devices.collect(),
            arch,
            golden,
        }
    }

    /// The parameters of the whole network as device `j` begins the first round: the server's base and its own
    /// personal layers.
    pub(crate) fn initial(&self, j: usize) -> Params {
        let start = Start { calm: self.golden.scalar("case")["calm"].as_bool().unwrap(), ..Start::default() };
        let mut params = formula::params("server", &self.layout, start);
        let own = formula::params(&format!("device-{j}"), &self.layout, start);
        for (position, spec) in self.layout.specs().iter().enumerate() {
            if self.personal.contains(&spec.name) {
                params.at_mut(position).copy_from_slice(own.at(position));
            }
        }
        params
    }

    /// Compares the mean training loss of device `j` in round `k`, both counted from 0.
    pub(crate) fn check_loss(&self, report: &mut Report, k: usize, j: usize, loss: f64) {
        let name = format!("loss/{k}/{j}");
        let want = self.golden.value(&name);
        let allowed = (1.5 * self.golden.distances(&name).all).max(1e-5);
        report.check("loss", &name, (loss - want).abs() / want, allowed);
    }

    /// Compares the base after the last round.
    pub(crate) fn check_base(&self, report: &mut Report, params: &Params) {
        self.check(report, "base", params);
    }

    /// Compares the personal parameters of device `j` after the last round.
    pub(crate) fn check_personal(&self, report: &mut Report, j: usize, params: &Params) {
        self.check(report, &format!("device-{j}"), params);
    }

    fn check(&self, report: &mut Report, owner: &str, params: &Params) {
        let names = self.golden.names(&format!("{owner}/"));
        let is_base = owner == "base";
        let expected =
            self.layout.specs().iter().filter(|s| self.personal.contains(&s.name) != is_base).count();
        let start = self.initial(owner.strip_prefix("device-").map_or(0, |j| j.parse().unwrap()));
        assert_eq!(names.len(), expected, "{owner}: another number of parameters");
        for name in names {
            assert_eq!(self.personal.contains(&name), !is_base, "`{name}` is on the wrong side");
            let key = format!("{owner}/{name}");
            let found = params.get(&name).unwrap_or_else(|| panic!("`{name}` is missing"));
            let distance = self.golden.distance("", &key, found);
            let allowed = match self.shallow {
                true => 1e-4,
                false => (self.times * self.golden.distances(&key).all).max(FLOOR),
            };
            // A weight that training hardly moved would agree with anything.
            let moved = self.golden.distance("", &key, start.get(&name).unwrap());
            assert!(moved > 5.0 * allowed, "{key}: moved by {moved:.1e}, but {allowed:.1e} is allowed");
            let group = if name.contains("running") { "running statistics" } else { "weights" };
            report.check(&format!("{owner} {group}"), &name, distance, allowed);
        }
    }
}
