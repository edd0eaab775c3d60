//! `fedper bench`.

use std::path::PathBuf;
use std::time::Duration;

use fedper_nn::{InputShape, InstructionSet, Precision, Sgd};
use serde::Serialize;

use super::bench_scale;
use super::settings::SettingsArgs;
use super::table::{Align, bytes, grouped, table};
use crate::bench::{Figures, aggregate, round, train};
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::experiment;
use crate::failure::Failure;
use crate::rundir::write_atomically;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Images a second of the whole local step: forward, loss, backward, SGD
    ///
    /// Each worker trains a network of its own on a fixed batch in memory, all at the same time. The rate is the sum over
    /// workers of batch size / median step time.
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(TrainArgs),
    /// Seconds of a whole round: training, average, evaluation, checkpoint
    ///
    /// Runs the simulator in a temporary folder. Flags are those of `fedper run`, but by default one FedPer round is that of
    /// PFLlib: Fashion-MNIST if its files are found (else the part in the program), 20 devices with 2 classes each, a
    /// quarter of their samples for testing, cnn with K_P = 1, batch 10, learning rate 0.005, no momentum, last batches
    /// left out.
    #[command(after_help = ROUND_EXAMPLES)]
    Round(Box<RoundArgs>),
    /// GB/s of base parameters averaged, beside a plain copy of them
    ///
    /// Devices' bases come one by one, as in a round; making them and giving their memory back is not in the time. The copy
    /// is memcpy of the same bases in the same run, on all cores as the average is; its bandwidth counts bytes read and
    /// bytes written.
    #[command(after_help = AGGREGATE_EXAMPLES)]
    Aggregate(AggregateArgs),
    /// What a round costs as the federation grows: start-up, seconds a round, memory
    Scale(bench_scale::Args),
}

const TRAIN_EXAMPLES: &str = "\
Examples:
  fedper bench train
  fedper bench train --model resnet34 --workers 1
  fedper bench train --model cnn --batch-size 10 --image-size 28 --channels 1 --json";

const ROUND_EXAMPLES: &str = "\
Examples:
  fedper bench round
  fedper bench round --workers 1 --rounds 1
  fedper bench round --model mobilenet_v1 --batch-size 20 --samples-per-client 500 --json";

const AGGREGATE_EXAMPLES: &str = "\
Examples:
  fedper bench aggregate
  fedper bench aggregate --model mobilenet_v1 --clients 1000 --personal-layers 4";

#[derive(clap::Args)]
pub(super) struct TrainArgs {
    /// Network: resnet34, mobilenet_v1, cnn or mlp
    #[arg(long, value_name = "NAME", default_value = "mobilenet_v1")]
    model: String,
    /// First layers of resnet34 and mobilenet_v1: imagenet (stride 2) or cifar (stride 1)
    #[arg(long, value_name = "NAME", default_value = "imagenet")]
    stem: String,
    /// What normalises in resnet34 and mobilenet_v1: batch, group or group:COUNT
    #[arg(long, value_name = "KIND", default_value = "batch")]
    norm: String,
    /// What convolutions compute in: fp32, or bf16, which is faster on a CPU with AMX or AVX512-BF16
    #[arg(long, value_name = "NAME", default_value = "fp32")]
    precision: String,
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

#[derive(clap::Args)]
pub(super) struct RoundArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct AggregateArgs {
    /// Network: resnet34, mobilenet_v1, cnn or mlp
    #[arg(long, value_name = "NAME", default_value = "resnet34")]
    model: String,
    /// Height and width of the images, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    image_size: usize,
    /// Channels of the images
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    channels: usize,
    /// Number of classes
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    classes: usize,
    /// How many blocks, counted from the output, are personal (K_P)
    #[arg(long, value_name = "K", default_value_t = 1)]
    personal_layers: usize,
    /// Number of devices
    #[arg(long, value_name = "N", default_value_t = 100)]
    clients: u64,
    /// How many times to average them all
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    rounds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn main(command: Command) -> Result<(), Failure> {
    match command {
        Command::Train(args) => Ok(train(&args)?),
        Command::Round(args) => Ok(round(*args)?),
        Command::Aggregate(args) => Ok(aggregate(&args)?),
        Command::Scale(args) => bench_scale::main(&args),
    }
}

fn train(args: &TrainArgs) -> Result<(), Error> {
    let config = Config::resolve(&Settings {
        model: Some(args.model.clone()),
        stem: Some(args.stem.clone()),
        norm: Some(args.norm.clone()),
        precision: Some(args.precision.clone()),
        image_size: Some(args.image_size),
        batch_size: Some(args.batch_size),
        lr: Some(args.lr),
        momentum: Some(args.momentum),
        ..Settings::default()
    })?;
    let input = input(args.image_size, args.channels);
    let options = train::Options {
        architecture: config.architecture(input, args.classes)?,
        precision: config.precision,
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
        format!("{} ({})", report.precision, report.kernels),
        format!("{} x {input}", args.batch_size),
        options.workers.to_string(),
        or_dash(images_per_second.map(|rate| format!("{rate:.1}"))),
        format!("{:.2} ms", 1e3 * seconds),
        or_dash(gflops_nominal.map(|rate| format!("{rate:.1}"))),
        report.steps.iter().sum::<usize>().to_string(),
        or_dash(peak_rss_bytes.map(bytes)),
    ];
    if config.precision == Precision::Bf16 && !InstructionSet::current().multiplies_bf16() {
        super::say(format_args!("{}", super::NO_BF16));
    }
    let columns = [
        ("model", Align::Left),
        ("precision", Align::Left),
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

fn round(args: RoundArgs) -> Result<(), Error> {
    let workers = super::workers(args.workers)?;
    let rounds = args.settings.0.rounds.unwrap_or(3);
    if rounds == 0 {
        return Err(Error::Config("rounds is 0: it must be at least 1".into()));
    }
    let experiment = round::prepare(args.settings.0, rounds)?;
    let report = round::measure(&experiment, workers)?;
    if args.json {
        return print_json(&report);
    }
    let Figures { images_per_second, gflops_nominal, seconds, peak_rss_bytes, .. } = report.figures;
    let round::Parts { train, average, evaluate, checkpoint } = report.parts;
    let mut row =
        vec![experiment.config.model.to_string(), report.devices.to_string(), report.images.to_string()];
    row.push(workers.to_string());
    row.push(or_dash(images_per_second.map(|rate| format!("{rate:.0}"))));
    row.push(or_dash(gflops_nominal.map(|rate| format!("{rate:.1}"))));
    row.extend([seconds, train, average, evaluate, checkpoint].map(|seconds| format!("{seconds:.3} s")));
    row.push(or_dash(peak_rss_bytes.map(bytes)));
    let columns = [
        ("model", Align::Left),
        ("devices", Align::Right),
        ("images", Align::Right),
        ("workers", Align::Right),
        ("images/s", Align::Right),
        ("GFLOP/s", Align::Right),
        ("round", Align::Right),
        ("train", Align::Right),
        ("average", Align::Right),
        ("evaluate", Align::Right),
        ("checkpoint", Align::Right),
        ("memory", Align::Right),
    ];
    super::print(&format!("{}: medians of {rounds}\n\n{}", report.dataset, table(&columns, &[row])))
}

fn aggregate(args: &AggregateArgs) -> Result<(), Error> {
    let config = Config::resolve(&Settings {
        model: Some(args.model.clone()),
        image_size: Some(args.image_size),
        personal_layers: Some(args.personal_layers),
        clients: Some(args.clients),
        rounds: Some(args.rounds),
        ..Settings::default()
    })?;
    let architecture = config.architecture(input(args.image_size, args.channels), args.classes)?;
    let params = train::initial(&architecture);
    let (base, _) = experiment::cut(&config, &architecture, params.layout())?.cut(&params);
    if base.params().layout().is_empty() {
        return Err(Error::Config(format!(
            "personal_layers is {}: no base is left to average",
            args.personal_layers
        )));
    }
    drop(params);
    let report = aggregate::measure(base.params(), config.clients, config.rounds);
    if args.json {
        return print_json(&report);
    }
    let row = vec![
        args.model.clone(),
        report.devices.to_string(),
        bytes(report.base_bytes),
        format!("{:.3} s", report.figures.seconds),
        format!("{:.2} GB/s", report.gigabytes_per_second),
        format!("{:.2} GB/s", report.copy_gigabytes_per_second),
        format!("{:.2}", report.copy_ratio),
        or_dash(report.figures.peak_rss_bytes.map(bytes)),
    ];
    let columns = [
        ("model", Align::Left),
        ("devices", Align::Right),
        ("base", Align::Right),
        ("time", Align::Right),
        ("averaged", Align::Right),
        ("copy, read + written", Align::Right),
        ("copy's time / average's", Align::Right),
        ("memory", Align::Right),
    ];
    super::print(&table(&columns, &[row]))
}

fn input(size: usize, channels: usize) -> InputShape {
    InputShape { channels, height: size, width: size }
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
