//! `fedper bench scale`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::{Align, bytes, grouped, table};
use crate::bench::scale::{self, Figures, Options};
use crate::error::Error;
use crate::failure::Failure;

/// What a round costs as the federation grows: start-up, seconds a round, memory
///
/// Runs a federation of each size, each in a process of its own, on the embedded images: `cnn` with its classifier
/// personal, FedPer, checkpoints and all. The federations take turns round by round; a first round of each is not counted.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many devices
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1000,10000,100000")]
    devices: Vec<u64>,
    /// How many of them train in a round; as many are evaluated
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    participants: u64,
    /// Training images of each device, drawn with replacement
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    samples_per_client: usize,
    /// Rounds to measure
    #[arg(long, value_name = "COUNT", default_value_t = 9)]
    rounds: u32,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "COUNT")]
    workers: Option<usize>,
    /// Memory for devices' personal layers [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    personal_memory: Option<String>,
    /// Keep the run directories in this folder [default: the system's temporary folder, and remove them]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Be the process that is measured, and write the run into this folder
    #[arg(long, value_name = "DIR", hide = true)]
    serve: Option<PathBuf>,
}

pub(super) fn main(args: &Args) -> Result<(), Failure> {
    let wrong = |message: String| Err(Error::Config(message).into());
    if args.participants == 0
        || args.samples_per_client == 0
        || args.rounds == 0
        || args.devices.is_empty()
        || args.devices.contains(&0)
    {
        return wrong("devices, participants, samples-per-client and rounds must be at least 1".into());
    }
    if let Some(few) = args.devices.iter().find(|&&devices| devices < args.participants) {
        return wrong(format!("{} participants of {few} devices: lower --participants", args.participants));
    }
    let workers = super::workers(args.workers)?;
    let personal_memory = super::size::memory(args.personal_memory.as_deref())?;
    let options = |devices: u64, dir: PathBuf| Options {
        devices,
        participants: args.participants,
        samples: args.samples_per_client,
        rounds: args.rounds,
        workers,
        personal_memory,
        dir,
    };
    if let Some(dir) = &args.serve {
        return scale::serve(&options(args.devices[0], dir.clone()));
    }
    let name = format!("fedper-bench-scale-{}", std::process::id());
    let folder = args.out.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    // A size may be given twice, to see how much of a difference is noise.
    let dir = |place: usize| match args.devices[..place].iter().filter(|&&n| n == args.devices[place]).count()
    {
        0 => folder.join(args.devices[place].to_string()),
        before => folder.join(format!("{}-{}", args.devices[place], before + 1)),
    };
    let federations: Vec<Options> =
        (0..args.devices.len()).map(|place| options(args.devices[place], dir(place))).collect();
    let program = std::env::current_exe().map_err(Error::file("find", Path::new("this program")))?;
    let mut told = |what: &str| {
        if !args.json {
            super::say(format_args!("{what}"));
        }
    };
    let figures = scale::measure(&federations, |options| process(&program, options), &mut told);
    if args.out.is_none() {
        // What is left in a temporary folder is the system's to clear.
        let _ = std::fs::remove_dir_all(&folder);
    }
    let figures = figures?;
    if args.json {
        let json = serde_json::json!({ "workers": workers, "scale": figures });
        super::print(&format!("{}\n", serde_json::to_string_pretty(&json).expect("plain data")))?;
        return Ok(());
    }
    Ok(super::print(&printed(&figures, args, workers))?)
}

/// The process that is measured.
fn process(program: &Path, options: &Options) -> Command {
    let mut command = Command::new(program);
    let numbers = [
        ("--devices", options.devices),
        ("--participants", options.participants),
        ("--samples-per-client", options.samples as u64),
        ("--rounds", options.rounds.into()),
        ("--workers", options.workers as u64),
        ("--personal-memory", options.personal_memory),
    ];
    command.args(["bench", "scale", "--serve"]).arg(&options.dir);
    command.args(numbers.iter().flat_map(|(flag, number)| [(*flag).to_owned(), number.to_string()]));
    command
}

fn printed(figures: &[Figures], args: &Args, workers: usize) -> String {
    let columns = [
        ("devices", Align::Right),
        ("start-up", Align::Right),
        ("a round", Align::Right),
        ("to the first", Align::Right),
        ("images/s", Align::Right),
        ("peak memory", Align::Right),
        ("run directory", Align::Right),
    ];
    let row = |f: &Figures| {
        vec![
            grouped(f.devices),
            format!("{:.2} s", f.startup_seconds),
            format!("{:.3} s", f.seconds),
            format!("{:+.1} %", 100.0 * (f.seconds / figures[0].seconds - 1.0)),
            format!("{:.0}", f.images_per_second),
            f.peak_rss_bytes.map_or_else(|| "-".to_owned(), bytes),
            bytes(f.run_dir_bytes),
        ]
    };
    format!(
        "{} participants a round, {} images each, median of {} rounds, {workers} worker{}:\n\n{}",
        args.participants,
        args.samples_per_client,
        args.rounds,
        if workers == 1 { "" } else { "s" },
        table(&columns, &figures.iter().map(row).collect::<Vec<_>>())
    )
}
