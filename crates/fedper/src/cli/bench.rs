//! `fedper bench`.

use std::path::PathBuf;
use std::time::Duration;

use fedper_nn::{Architecture, InputShape, Sgd};
use serde::Serialize;

use super::table::{Align, bytes, grouped, table};
use crate::bench::{Figures, train};
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::rundir::write_atomically;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Images a second of the whole local step: forward, loss, backward, SGD
    ///
    /// Each worker trains a network of its own on a fixed batch in memory, all at the same time. The rate is the sum over
    /// workers of batch size / median step time.
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(TrainArgs),
}

const TRAIN_EXAMPLES: &str = "\
Examples:
  fedper bench train
  fedper bench train --model resnet34 --workers 1
  fedper bench train --model cnn --batch-size 10 --image-size 28 --channels 1 --json";

#[derive(clap::Args)]
pub(super) struct TrainArgs {
    /// Network: resnet34, mobilenet_v1, cnn or mlp
    #[arg(long, value_name = "NAME", default_value = "mobilenet_v1")]
    model: String,
    /// First layers of resnet34 and mobilenet_v1: imagenet (stride 2) or cifar (stride 1)
    #[arg(long, value_name = "NAME", default_value = "imagenet")]
    stem: String,
    /// Samples a step
    #[arg(long, value_name = "COUNT", default_value_t = 128)]
    batch_size: usize,
    /// Height and width of the images, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    image_size: usize,
    /// Channels of the images
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    channels: usize,
    /// Number of classes
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    classes: usize,
    /// Learning rate of SGD
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    lr: f64,
    /// Momentum of SGD
    #[arg(long, value_name = "FACTOR", default_value_t = 0.9)]
    momentum: f64,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Seconds to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Steps of each worker before that
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    warmup: usize,
    /// Do not measure: write a safetensors file of initial weights, a batch and the losses of the first three steps, for
    /// other programs to compare with
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn main(command: Command) -> Result<(), Error> {
    match command {
        Command::Train(args) => train(&args),
    }
}

fn train(args: &TrainArgs) -> Result<(), Error> {
    let config = Config::resolve(&Settings {
        model: Some(args.model.clone()),
        stem: Some(args.stem.clone()),
        image_size: Some(args.image_size),
        batch_size: Some(args.batch_size),
        lr: Some(args.lr),
        momentum: Some(args.momentum),
        ..Settings::default()
    })?;
    let side = args.image_size;
    let input = InputShape { channels: args.channels, height: side, width: side };
    let options = train::Options {
        architecture: Architecture::new(config.model, config.stem, input, args.classes)?,
        batch_size: config.batch_size,
        sgd: Sgd { lr: config.lr as f32, momentum: config.momentum as f32, weight_decay: 0.0 },
        workers: super::workers(args.workers)?,
        warmup: args.warmup,
        duration: seconds(args.seconds)?,
    };
    if let Some(path) = &args.check {
        let params = train::check(&options)?;
        let file = fedper_nn::weights::write_safetensors(&params)
            .map_err(|error| Error::Foreign { path: path.clone(), reason: error.to_string() })?;
        write_atomically(path, &file)?;
        return super::print(&format!("{}: {} bytes\n", path.display(), grouped(file.len() as u64)));
    }
    let report = train::measure(&options)?;
    if args.json {
        return print_json(&report);
    }
    let Figures { images_per_second, gflops_nominal, seconds, peak_rss_bytes, .. } = report.figures;
    let row = vec![
        args.model.clone(),
        format!("{} x {input}", args.batch_size),
        options.workers.to_string(),
        or_dash(images_per_second.map(|rate| format!("{rate:.1}"))),
        format!("{:.2} ms", 1e3 * seconds),
        or_dash(gflops_nominal.map(|rate| format!("{rate:.1}"))),
        report.steps.iter().sum::<usize>().to_string(),
        or_dash(peak_rss_bytes.map(bytes)),
    ];
    let columns = [
        ("model", Align::Left),
        ("batch", Align::Right),
        ("workers", Align::Right),
        ("images/s", Align::Right),
        ("step", Align::Right),
        ("GFLOP/s", Align::Right),
        ("steps", Align::Right),
        ("memory", Align::Right),
    ];
    super::print(&table(&columns, &[row]))
}

fn seconds(seconds: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Error::Config(format!("seconds is {seconds}: it must be greater than 0")))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

fn print_json(report: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(report).expect("a report is plain data");
    text.push('\n');
    super::print(&text)
}
