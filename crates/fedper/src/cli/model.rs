//! `fedper model`.

use std::path::{Path, PathBuf};

use fedper_core::params::{Kind, Params, Spec};
use fedper_core::seed::{self, Purpose, SERVER};
use fedper_core::split::Split;
use fedper_nn::weights::{WeightsError, write_safetensors, write_with_note};
use fedper_nn::{Architecture, InputShape, InstructionSet, Network, NnError};

use super::import;
use super::table::{Align, bytes, grouped, table};
use crate::config::{Config, Settings};
use crate::error::Error;
use crate::experiment;
use crate::rundir::{read_summary, write_atomically};
use fedper_run::settled::device_network;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// A network's blocks: output, parameters, side of the cut, and what a device sends
    #[command(after_help = SUMMARY_EXAMPLES)]
    Summary(SummaryArgs),
    /// Write a whole network as one safetensors file, under its published parameter names
    ///
    /// From a run: a device's own network, its base joined with its personal layers. Without one: the initial weights.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportArgs),
    /// Take what fits a network from weights that were made elsewhere, as a file for --init
    ///
    /// Parameters are matched by name and shape. Those that do not fit, such as a classifier of other classes, are named
    /// and left out: they start as they would without the file.
    #[command(after_help = import::EXAMPLES)]
    Import(import::Args),
}

const SUMMARY_EXAMPLES: &str = "\
Examples:
  fedper model summary
  fedper model summary --model resnet34 --stem cifar --input 3x32x32 --classes 100 --personal-layers 4
  fedper model summary --model cnn --personal-pattern 'fc.*' --parameters
  fedper model summary --model cnn --plan --batch-size 32";

const EXPORT_EXAMPLES: &str = "\
Examples:
  fedper model export --run runs/001 --algorithm fedper --device 3 --out device3.safetensors
  fedper model export --model resnet34 --seed 7 --out initial.safetensors";

#[derive(clap::Args)]
pub(super) struct NetworkArgs {
    /// Network: resnet34, mobilenet_v1, cnn or mlp [default: mobilenet_v1]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// First layers of resnet34 and mobilenet_v1: imagenet (stride 2), cifar (stride 1) or auto: cifar for mobilenet_v1 below
    /// 64 pixels, imagenet otherwise [default: auto]
    #[arg(long, value_name = "NAME")]
    stem: Option<String>,
    /// What normalises in resnet34 and mobilenet_v1: batch, group (of 16 channels each), or group:32 (in 32 groups)
    #[arg(long, value_name = "KIND")]
    norm: Option<String>,
    /// Channels, height and width of the images
    #[arg(long, value_name = "CxHxW", default_value = "1x28x28", value_parser = parse_input)]
    input: InputShape,
    /// Number of classes
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    classes: u32,
}

#[derive(clap::Args)]
pub(super) struct SummaryArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// How many blocks, counted from the output, are personal (K_P) [default: 2]
    #[arg(long, value_name = "K")]
    personal_layers: Option<usize>,
    /// Instead: parameters whose names match are personal, such as 'fc.*'
    #[arg(long, value_name = "PATTERN,...", value_delimiter = ',')]
    personal_pattern: Option<Vec<String>>,
    /// List every parameter too
    #[arg(long)]
    parameters: bool,
    /// List how each convolution and linear layer is computed on this machine, and why
    #[arg(long)]
    plan: bool,
    /// For --plan: samples a step [default: the network's]
    #[arg(long, value_name = "COUNT", requires = "plan")]
    batch_size: Option<usize>,
    /// For --plan: fp32 or bf16 [default: fp32]
    #[arg(long, value_name = "NAME", requires = "plan")]
    precision: Option<String>,
}

#[derive(clap::Args)]
pub(super) struct ExportArgs {
    /// Take the weights of a finished run
    #[arg(long, value_name = "DIR", requires = "algorithm", conflicts_with_all = ["model", "stem", "norm", "seed"])]
    run: Option<PathBuf>,
    /// Of this algorithm
    #[arg(long, value_name = "NAME", requires = "run")]
    algorithm: Option<String>,
    /// Of this device; needed where the algorithm keeps personal layers
    #[arg(long, value_name = "NUMBER", requires = "run")]
    device: Option<u64>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Seed of the initial weights [default: 1]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// The file to write; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn parse_input(text: &str) -> Result<InputShape, String> {
    let sides: Option<Vec<usize>> =
        text.split('x').map(|side| side.parse().ok().filter(|&s| s > 0)).collect();
    match sides.as_deref() {
        Some(&[channels, height, width]) => Ok(InputShape { channels, height, width }),
        _ => Err("expected channels, height and width, such as 3x32x32".into()),
    }
}

pub(super) fn main(command: Command) -> Result<(), Error> {
    match command {
        Command::Summary(args) => summary(args),
        Command::Export(args) => export(&args),
        Command::Import(args) => import::main(&args),
    }
}

pub(super) fn build(network: &NetworkArgs, settings: Settings) -> Result<(Config, Architecture), Error> {
    let side = network.input.height.min(network.input.width);
    let settings = Settings {
        model: network.model.clone(),
        stem: network.stem.clone(),
        norm: network.norm.clone(),
        image_size: Some(side),
        ..settings
    };
    let config = Config::resolve(&settings)?;
    let architecture = config.architecture(network.input, network.classes as usize)?;
    Ok((config, architecture))
}

fn summary(args: SummaryArgs) -> Result<(), Error> {
    let settings = Settings {
        personal_layers: args.personal_layers,
        personal_pattern: args.personal_pattern,
        batch_size: args.batch_size,
        precision: args.precision,
        ..Settings::default()
    };
    let (config, architecture) = build(&args.network, settings)?;
    let layout = architecture.layout();
    let cut = experiment::cut(&config, &architecture, &layout)?;
    let side = |spec: &&Spec| cut.personal().position(&spec.name).is_some();
    let InputShape { channels, height, width } = architecture.input;
    let mut text = format!(
        "{}, input {channels}x{height}x{width}, {} classes\n\n",
        architecture.name, architecture.classes
    );
    let blocks = architecture.summary();
    let rows = blocks.iter().enumerate().map(|(i, block)| {
        let specs: Vec<&Spec> =
            layout.specs().iter().filter(|spec| architecture.block_of(&spec.name) == Some(i)).collect();
        let personal = specs.iter().filter(|spec| side(spec)).count();
        let (c, h, w) = block.output;
        vec![
            block.name.clone(),
            format!("{c}x{h}x{w}"),
            grouped(block.trainable as u64),
            grouped(block.buffers as u64),
            (blocks.len() - i).to_string(),
            match personal {
                0 => "base",
                n if n == specs.len() => "personal",
                _ => "both",
            }
            .to_owned(),
        ]
    });
    let columns = [
        ("block", Align::Left),
        ("output", Align::Right),
        ("parameters", Align::Right),
        ("statistics", Align::Right),
        ("K_P", Align::Right),
        ("side", Align::Left),
    ];
    text += &table(&columns, &rows.collect::<Vec<_>>());
    if args.parameters {
        let rows: Vec<Vec<String>> = layout
            .specs()
            .iter()
            .map(|spec| {
                let shape: Vec<String> = spec.shape.iter().map(usize::to_string).collect();
                let kind = if spec.kind == Kind::Buffer { "statistic" } else { "trainable" };
                let side = if side(&spec) { "personal" } else { "base" };
                vec![spec.name.clone(), shape.join("x"), kind.to_owned(), side.to_owned()]
            })
            .collect();
        let columns = ["parameter", "shape", "kind", "side"].map(|title| (title, Align::Left));
        text += &format!("\n{}", table(&columns, &rows));
    }
    if args.plan {
        text += &format!("\n{}", plan(&config, &architecture)?);
    }
    text += &format!("\n{}", traffic(&cut));
    super::print(&text)
}

/// How each layer computes a batch.
fn plan(config: &Config, architecture: &Architecture) -> Result<String, Error> {
    let planned = Network::plan(architecture, config.batch_size, config.precision)?;
    let rows: Vec<Vec<String>> = planned
        .into_iter()
        .map(|layer| vec![layer.name, layer.way.to_string(), layer.why.to_owned()])
        .collect();
    let columns = ["layer", "computed by", "because"].map(|title| (title, Align::Left));
    let set = InstructionSet::current().used_in(config.precision);
    Ok(format!("In batches of {}, in {set}:\n\n{}", config.batch_size, table(&columns, &rows)))
}

/// What a device receives and sends in a round, with and without personalization.
fn traffic(cut: &Split) -> String {
    let trainable = |layout: &fedper_core::params::Layout| {
        layout.specs().iter().filter(|spec| spec.kind == Kind::Trainable).map(Spec::numel).sum::<usize>()
            as u64
    };
    let row = |name: &str, layout: &fedper_core::params::Layout| {
        let size = 4 * layout.numel() as u64;
        vec![name.to_owned(), grouped(trainable(layout)), bytes(size), bytes(size), bytes(2 * size)]
    };
    let rows = [row("fedper (base only)", cut.base()), row("fedavg (everything)", cut.whole())];
    let columns = [
        ("a device, each round", Align::Left),
        ("parameters", Align::Right),
        ("receives", Align::Right),
        ("sends", Align::Right),
        ("together", Align::Right),
    ];
    let whole = cut.whole().numel().max(1) as f64;
    format!(
        "{}\n{:.1} % of the values stay on the device.\n",
        table(&columns, &rows),
        100.0 * cut.personal().numel() as f64 / whole
    )
}

fn export(args: &ExportArgs) -> Result<(), Error> {
    must_be_new(&args.out)?;
    let mut note = "";
    let params = match (&args.run, &args.algorithm) {
        (Some(run), Some(algorithm)) => {
            let network = device_network(run, algorithm, args.device)?;
            if !network.trained {
                note = "The device never trained: its personal layers are those it would begin with\n";
            }
            network.params
        }
        _ => {
            let (config, architecture) =
                build(&args.network, Settings { seed: args.seed, ..Settings::default() })?;
            let mut params = Params::try_zeros(architecture.layout()).map_err(NnError::from)?;
            let random = |name: &str| seed::named(config.seed, Purpose::Init, SERVER, 0, name);
            architecture.init_where(&mut params, |_| true, random);
            params
        }
    };
    // What is done to images before this network sees them, where the run says.
    match args.run.as_deref().and_then(|run| read_summary(run).ok()?.pixels) {
        Some(pixels) => {
            let note = serde_json::to_string(&pixels).expect("plain data");
            let bytes = write_with_note(&params, "pixels", note);
            write_bytes(&args.out, bytes)?;
        }
        None => write_weights(&args.out, &params)?,
    }
    super::print(&format!(
        "{}: {} parameters, {} values\n{note}",
        args.out.display(),
        params.layout().len(),
        grouped(params.layout().numel() as u64)
    ))
}

pub(super) fn must_be_new(out: &Path) -> Result<(), Error> {
    match out.exists() {
        true => Err(Error::Config(format!("{} exists: choose another --out", out.display()))),
        false => Ok(()),
    }
}

pub(super) fn write_weights(out: &Path, params: &Params) -> Result<(), Error> {
    write_bytes(out, write_safetensors(params))
}

fn write_bytes(out: &Path, bytes: Result<Vec<u8>, WeightsError>) -> Result<(), Error> {
    let bytes = bytes.map_err(|error| Error::Foreign { path: out.to_owned(), reason: error.to_string() })?;
    Ok(write_atomically(out, &bytes)?)
}
