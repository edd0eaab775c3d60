//! The command line: what the user types, what is printed, which exit code comes back.

mod bench;
mod bench_scale;
mod client;
mod data;
mod import;
mod interrupt;
mod key;
mod made;
mod methods;
mod model;
mod newcomers;
mod photos;
mod predict;
mod progress;
mod report;
mod reproduce;
mod run;
mod say;
mod seen;
mod server;
mod settings;
mod size;
mod superlink;
mod table;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub(crate) use self::say::say;
use crate::cores;
use crate::error::Error;
use crate::failure::Failure;

/// Personalised federated learning.
///
/// Trains one deep network on many devices: a server averages its base layers, its last layers never leave their device
/// (FedPer, arXiv:1912.00818). Simulates a federation on this machine, or runs one over a network, on the CPU.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  fedper run                                      four methods compared, on embedded images
  fedper run --personal-layers 2 --seed 2         the same with two personal blocks and another seed
  fedper model summary --model resnet34           the blocks of a network, and what the cut sends
  fedper data partition --dirichlet 0.1           who would hold what
  fedper data fetch cifar10                       download and check a dataset
  fedper reproduce all --scale smoke              the paper's figures, on small data, in minutes
  fedper report runs/a runs/b --out compared      several runs side by side
  fedper predict --run runs/a --device 3 cat.jpg  what device 3's own network sees in a photo

Environment: FEDPER_KERNELS=amx|avx512|avx2|portable computes in that instruction set instead of the machine's best;
FEDPER_ENGINE=plain computes every layer in the plainest way, to compare with

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 130 interrupted after a checkpoint";

#[derive(Subcommand)]
enum Command {
    /// Simulate a federation on this machine
    Run(Box<run::Args>),
    /// Run the paper's experiments, by figure
    Reproduce(reproduce::Args),
    /// Draw report.html and its figures from run directories
    Report(report::Args),
    /// List, fetch and inspect datasets and partitions
    #[command(subcommand)]
    Data(data::Command),
    /// List the methods that can be compared, and what can be set of each
    Methods(methods::Args),
    /// Look at networks, export and import weights
    #[command(subcommand)]
    Model(model::Command),
    /// Classify images with a device's own network
    Predict(predict::Args),
    /// Drive a federation on a Flower SuperLink
    Server(Box<server::Args>),
    /// Be a device on a Flower SuperLink
    Client(Box<client::Args>),
    /// Make a device's key, or show the public half of one
    Key(key::Args),
    /// Measure a training step, a round, the server's average, growing federations
    #[command(subcommand)]
    Bench(bench::Command),
}

/// What is said where bf16 does not pay.
const NO_BF16: &str = "This CPU has neither AMX nor AVX512-BF16: bf16 takes longer than fp32 here";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Clap prints its own errors, and exits with 2 for them and 0 for --help.
    let cli = Cli::parse();
    // Asked before anything is computed, so that a wrong name is an error message and not a panic.
    let environment = fedper_nn::InstructionSet::check_environment().map_err(Failure::from);
    let result = environment.and_then(|()| match cli.command {
        Command::Run(args) => run::main(*args),
        Command::Reproduce(args) => reproduce::main(&args),
        Command::Report(args) => report::main(&args),
        Command::Data(command) => Ok(data::main(command)?),
        Command::Methods(args) => Ok(methods::main(&args)?),
        Command::Model(command) => Ok(model::main(command)?),
        Command::Predict(args) => predict::main(&args),
        Command::Server(args) => server::main(*args),
        Command::Client(args) => client::main(*args),
        Command::Key(args) => key::main(&args),
        Command::Bench(command) => bench::main(command),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("fedper: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// How many worker threads: as asked, or one for each core.
fn workers(asked: Option<usize>) -> Result<usize, Error> {
    match asked {
        Some(0) => Err(Error::Config("workers is 0: it must be at least 1".into())),
        Some(workers) => Ok(workers),
        None => Ok(cores::available()),
    }
}

/// Prints to standard output; a reader that has gone away (`fedper … | head`) is no failure.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::file("write", std::path::Path::new("standard output"))(error))
        }
        _ => Ok(()),
    }
}
