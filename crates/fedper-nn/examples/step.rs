//! Images per second of a training step.
//!
//! `cargo run --release -p fedper-nn --example step -- MODEL [BATCH] [SIDE] [CHANNELS] [STEM] [THREADS] [SECONDS]`
//!
//! Each thread trains its own network; the figure is the sum over threads of batch size / median step time.

use std::error::Error;
use std::time::{Duration, Instant};

use fedper_core::seed::{Purpose, SERVER, derive, fill_normal, named};
use fedper_nn::{Architecture, Batch, InputShape, Network, Sgd};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |i: usize, default: &str| arguments.get(i).cloned().unwrap_or(default.to_owned());
    let model = argument(0, "cnn").parse()?;
    let batch: usize = argument(1, "128").parse()?;
    let side: usize = argument(2, "32").parse()?;
    let channels: usize = argument(3, "3").parse()?;
    let stem = argument(4, "imagenet").parse()?;
    let threads: usize = argument(5, "2").parse()?;
    let seconds: f64 = argument(6, "8").parse()?;
    let arch = Architecture::new(model, stem, InputShape { channels, height: side, width: side }, 10)?;

    let medians: Vec<f64> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| median_step(&arch, batch, seconds))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).collect()
    });
    let rates: Vec<String> = medians.iter().map(|m| format!("{:.1}", batch as f64 / m)).collect();
    let total: f64 = medians.iter().map(|m| batch as f64 / m).sum();
    println!(
        "{model} batch {batch} {channels}x{side}x{side} stem {stem}: {} = {total:.1} images/s, {:.2} ms a step",
        rates.join(" + "),
        1e3 * medians.iter().sum::<f64>() / threads as f64
    );
    Ok(())
}

fn median_step(arch: &Architecture, batch: usize, seconds: f64) -> f64 {
    let mut network = Network::new(arch, batch).expect("the architecture is valid");
    network
        .load(&arch.init(|name| named(1, Purpose::Init, SERVER, 0, name)))
        .expect("the parameters are the network's");
    let mut images = vec![0.0; batch * arch.input.numel()];
    fill_normal(&mut derive(2, Purpose::Dataset, 0, 0), 1.0, &mut images);
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % arch.classes as u32).collect();
    let sgd = Sgd { lr: 0.01, momentum: 0.9, weight_decay: 0.0 };
    let mut step = || {
        let start = Instant::now();
        network.train_step(Batch { images: &images, labels: &labels }, &sgd).expect("the batch is valid");
        start.elapsed()
    };
    for _ in 0..3 {
        step();
    }
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let mut times = Vec::new();
    while Instant::now() < deadline {
        times.push(step().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
