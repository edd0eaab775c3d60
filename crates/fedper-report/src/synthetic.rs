//! Synthetic run directories for tests: what a run would write, without running one. The curves look like those of
//! federated learning on devices that hold a few classes each.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use fedper_core::metrics::{Spread, Worst};
use fedper_records::{
    AlgorithmSummary, DevicePartition, DeviceRecord, PartitionRecord, RoundRecord, Summary,
};

/// What to make.
pub(super) struct Synthetic {
    pub(super) devices: u64,
    pub(super) classes: Vec<String>,
    pub(super) classes_per_device: usize,
    pub(super) rounds: u32,
    pub(super) algorithms: Vec<&'static str>,
    pub(super) eval_every: u32,
    pub(super) seed: u64,
    pub(super) personal_layers: u32,
    pub(super) bytes_per_device: u64,
    pub(super) complete: bool,
    /// Name of its directory, if not one made of its settings.
    pub(super) name: Option<&'static str>,
}

impl Default for Synthetic {
    fn default() -> Self {
        Self {
            devices: 10,
            classes: CIFAR.map(str::to_owned).to_vec(),
            classes_per_device: 4,
            rounds: 20,
            algorithms: vec!["fedavg", "fedper", "local", "fedavg-ft"],
            eval_every: 1,
            seed: 1,
            personal_layers: 1,
            bytes_per_device: 12_870_000,
            complete: true,
            name: None,
        }
    }
}

const CIFAR: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// SplitMix64: enough for made-up curves.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Roughly normal, with deviation 1.
    fn normal(&mut self) -> f64 {
        ((0..6).map(|_| self.uniform()).sum::<f64>() - 3.0) * 2f64.sqrt()
    }
}

/// A run as read back, of that seed.
pub(super) fn seeded(seed: u64) -> super::RunData {
    let dir = tempfile::tempdir().unwrap();
    Synthetic { seed, ..Synthetic::default() }.write(dir.path());
    super::RunData::read(dir.path()).unwrap()
}

impl Synthetic {
    /// Writes a run directory.
    pub(super) fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        let mut noise = Noise(self.seed);
        fs::write(dir.join("config.toml"), self.config()).unwrap();
        let partition = self.partition(&mut noise);
        fs::write(dir.join("partition.json"), serde_json::to_vec(&partition).unwrap()).unwrap();
        let mut rounds = BufWriter::new(fs::File::create(dir.join("rounds.jsonl")).unwrap());
        let mut devices = BufWriter::new(fs::File::create(dir.join("devices.jsonl")).unwrap());
        let mut summary = Summary {
            version: "0.1.0".to_owned(),
            commit: Some("3f1c2ab".to_owned()),
            seed: self.seed,
            cpu: "AMD EPYC 7B13".to_owned(),
            kernels: Some("avx2".to_owned()),
            workers: 2,
            command: format!("fedper run --config runs/demo/config.toml --seed {}", self.seed),
            complete: true,
            rounds: Some(self.rounds),
            seconds: 0.0,
            dataset_note: None,
            notes: vec!["device 7 is left out & named".to_owned()],
            image_shape: Some([32, 32, 3]),
            pixels: None,
            init_sha256: None,
            peak_rss_bytes: Some(412_300_000),
            algorithms: Default::default(),
            new_clients: None,
        };
        for algorithm in &self.algorithms {
            let (records, evaluated) = self.run(algorithm, &mut noise);
            for record in &evaluated {
                serde_json::to_writer(&mut devices, record).unwrap();
                devices.write_all(b"\n").unwrap();
            }
            for record in &records {
                serde_json::to_writer(&mut rounds, record).unwrap();
                rounds.write_all(b"\n").unwrap();
            }
            summary.seconds += records.iter().map(|r| r.seconds).sum::<f64>();
            summary.algorithms.insert((*algorithm).to_owned(), summarise(&records, &evaluated));
        }
        if self.complete {
            fs::write(dir.join("summary.json"), serde_json::to_vec_pretty(&summary).unwrap()).unwrap();
        }
    }

    fn config(&self) -> String {
        format!(
            "seed = {}\nworkers = 2\nalgorithm = [{}]\n\n[data]\ndataset = \"cifar10\"\nclients = {}\nclasses_per_client = {}\n\
             test_fraction = 0.2\naugment = true\n\n[model]\nmodel = \"mobilenet-v1\"\npersonal_layers = {}\nbatch_norm = \"average\"\n\n\
             [training]\nrounds = {}\nlocal_epochs = 4\nbatch_size = 128\nlr = 0.01\nmomentum = 0.9\nweight_decay = 0.0\n\
             participation = 1.0\neval_every = {}\n",
            self.seed,
            self.algorithms.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", "),
            self.devices,
            self.classes_per_device,
            self.personal_layers,
            self.rounds,
            self.eval_every
        )
    }

    fn partition(&self, noise: &mut Noise) -> PartitionRecord {
        let classes = self.classes.len();
        let mut next = 0;
        let devices = (0..self.devices)
            .map(|device| {
                let mut train_classes = vec![0u32; classes];
                while train_classes.iter().filter(|&&c| c > 0).count() < self.classes_per_device.min(classes)
                {
                    let class = (noise.uniform() * classes as f64) as usize;
                    train_classes[class] = (60.0 + 400.0 * noise.uniform().powi(2)) as u32;
                }
                let test_classes: Vec<u32> = train_classes.iter().map(|c| c / 4).collect();
                // As many indices as a large federation can afford in a test.
                let mut take = |count: u32| -> Vec<u32> {
                    let count = if self.devices > 1000 { 1 } else { count };
                    next += count;
                    (next - count..next).collect()
                };
                let (train, test) = (take(train_classes.iter().sum()), take(test_classes.iter().sum()));
                DevicePartition { device, train, test, train_classes, test_classes, labels: None }
            })
            .collect();
        PartitionRecord { dataset: "cifar10".to_owned(), classes: self.classes.clone(), devices }
    }

    fn run(&self, algorithm: &str, noise: &mut Noise) -> (Vec<RoundRecord>, Vec<DeviceRecord>) {
        // Where the curve ends, how fast it gets there, how far devices lie apart, how much it shakes.
        let (end, speed, apart, shake) = match algorithm {
            "fedper" => (0.845 - 0.03 * f64::from(self.personal_layers - 1), 4.0, 0.055, 0.006),
            "fedavg" => (0.56, 9.0, 0.13, 0.03),
            "local" => (0.70, 3.0, 0.075, 0.005),
            "fedavg-ft" => (0.79, 5.0, 0.07, 0.01),
            _ => (0.75, 6.0, 0.08, 0.012),
        };
        let (down, up) = match algorithm {
            "local" => (0, 0),
            "fedper" => (self.bytes_per_device * 9 / 10, self.bytes_per_device * 9 / 10),
            _ => (self.bytes_per_device, self.bytes_per_device),
        };
        let offsets: Vec<f64> = (0..self.devices).map(|_| noise.normal() * apart).collect();
        let tests: Vec<u64> = (0..self.devices).map(|_| 60 + (noise.uniform() * 140.0) as u64).collect();
        let (mut rounds, mut devices) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            let progress = 1.0 - (-f64::from(round) / speed).exp();
            let level = 0.25 + (end - 0.25) * progress + noise.normal() * shake;
            let evaluated = round % self.eval_every == 0 || round == self.rounds;
            let measure = |shift: f64, noise: &mut Noise| -> Vec<(u64, f64)> {
                (0..self.devices)
                    .map(|d| {
                        let samples = tests[d as usize] as f64;
                        let wanted = level + shift + offsets[d as usize] + noise.normal() * 0.015;
                        (d, (wanted.clamp(0.0, 1.0) * samples).round() / samples)
                    })
                    .collect()
            };
            let spread = |values: &[(u64, f64)]| {
                Spread::of(
                    &values.iter().map(|&(d, a)| (a, tests[d as usize] as f64)).collect::<Vec<_>>(),
                    Worst::Low,
                )
            };
            let after = evaluated.then(|| measure(0.0, noise));
            let before = evaluated.then(|| measure(if algorithm == "local" { 0.0 } else { 0.035 }, noise));
            let loss = |accuracy: f64| (1.05 - accuracy) * 1.6;
            for &(device, accuracy) in after.iter().flatten() {
                devices.push(DeviceRecord {
                    algorithm: algorithm.to_owned(),
                    round,
                    device,
                    samples: tests[device as usize],
                    accuracy,
                    loss: loss(accuracy),
                });
            }
            rounds.push(RoundRecord {
                algorithm: algorithm.to_owned(),
                round,
                accuracy: after.as_deref().and_then(spread),
                accuracy_local: before.as_deref().and_then(spread),
                loss: after.as_ref().and_then(|v| {
                    let pairs: Vec<_> = v.iter().map(|&(_, a)| (loss(a), 1.0)).collect();
                    Spread::of(&pairs, Worst::High)
                }),
                train_loss: Some(1.6 * (1.0 - 0.96 * progress) + 0.02 * noise.uniform()),
                bytes_down: down * self.devices,
                bytes_up: up * self.devices,
                wire_down: None,
                wire_up: None,
                seconds: 3.1 + noise.uniform(),
                devices: self.devices as u32,
                failed: 0,
                samples_trained: self.devices * 1600,
                participants: None,
                failed_devices: Vec::new(),
                untested: 0,
                ended: None,
            });
        }
        (rounds, devices)
    }
}

fn summarise(rounds: &[RoundRecord], devices: &[DeviceRecord]) -> AlgorithmSummary {
    let means: Vec<(f64, u32)> = rounds.iter().filter_map(|r| Some((r.accuracy?.mean, r.round))).collect();
    let best = means.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0));
    let tail = &means[means.len().saturating_sub(10)..];
    let last = means.last().copied();
    AlgorithmSummary {
        rounds: rounds.len() as u32,
        stopped_early: false,
        ended: None,
        untested: 0,
        last: last.map(|(mean, _)| mean),
        best: best.map(|(mean, _)| mean),
        best_round: best.map(|(_, round)| round),
        mean_last_10: (!tail.is_empty())
            .then(|| tail.iter().map(|(m, _)| m).sum::<f64>() / tail.len() as f64),
        accuracy: rounds.iter().rev().find_map(|r| r.accuracy),
        devices: devices
            .iter()
            .filter(|d| last.is_some_and(|(_, round)| d.round == round))
            .map(|d| (d.device, d.accuracy))
            .collect(),
        bytes_down: rounds.iter().map(|r| r.bytes_down).sum(),
        bytes_up: rounds.iter().map(|r| r.bytes_up).sum(),
        wire_down: None,
        wire_up: None,
        seconds: rounds.iter().map(|r| r.seconds).sum(),
        images_per_second: 450.0,
    }
}
