//! `fedper data`.

use std::path::PathBuf;

use fedper_data::ClassTable;
use fedper_records::{ClassCounts, DeviceCounts, write_atomically};
use indicatif::{ProgressBar, ProgressStyle};

use super::settings::SettingsArgs;
use super::table::{Align, table};
use super::{made, photos};
use crate::config::{Settings, read_settings};
use crate::error::Error;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// The datasets there are, and where their files are looked for
    List,
    /// Download a dataset's official files, check and unpack them
    Fetch {
        /// One of `fedper data list`
        name: String,
    },
    /// Print who would hold what, for the same flags as `fedper run`
    #[command(after_help = PARTITION_EXAMPLES)]
    Partition(Box<PartitionArgs>),
    /// Make a set in the form of a dataset that cannot be downloaded here, for trying things out
    #[command(subcommand)]
    Make(made::Command),
}

const PARTITION_EXAMPLES: &str = "\
Examples:
  fedper data partition --clients 20 --classes-per-client 2
  fedper data partition --dataset fashion-mnist --dirichlet 0.1 --test-fraction 0.25 --svg partition.svg";

#[derive(clap::Args)]
pub(super) struct PartitionArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Take the configuration from this TOML file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    config: Option<PathBuf>,
    /// Draw it into this SVG file too
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    svg: Option<PathBuf>,
}

pub(super) fn main(command: Command) -> Result<(), Error> {
    match command {
        Command::List => list(),
        Command::Fetch { name } => fetch(&name),
        Command::Partition(args) => partition(*args),
        Command::Make(command) => made::main(&command),
    }
}

fn list() -> Result<(), Error> {
    let mut text = String::new();
    for info in fedper_data::catalogue() {
        let fetched = if info.archives.is_empty() { "" } else { "; `fedper data fetch` downloads it" };
        text +=
            &format!("{}\n    {}\n    where: {}{fetched}\n", info.name, info.description, info.looked_for);
    }
    super::print(&text)
}

fn fetch(name: &str) -> Result<(), Error> {
    let bar = ProgressBar::new(0);
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template").progress_chars("━╸ "));
    let folder = fedper_data::fetch(name, &mut |progress| {
        if bar.message() != progress.file {
            bar.set_message(progress.file.to_owned());
            bar.reset();
        }
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    super::print(&format!("{name} is in {}\n", folder?.display()))
}

fn partition(args: PartitionArgs) -> Result<(), Error> {
    let settings = match &args.config {
        Some(file) => args.settings.0.over(read_settings(file)?),
        None => args.settings.0.over(Settings::default()),
    };
    let experiment = photos::prepare(&settings, false)?;
    let classes = ClassTable::new(&experiment.dataset, &experiment.partition);
    if let Some(path) = &args.svg {
        let counts = counts(&experiment.dataset.name, &classes);
        write_atomically(path, fedper_report::partition_svg(&counts).as_bytes())?;
    }
    super::print(&(picture(&classes) + &photos::inspection(&experiment)))
}

/// As a run directory has them.
fn counts(dataset: &str, table: &ClassTable) -> ClassCounts {
    let devices = table.train.iter().zip(0..);
    ClassCounts {
        dataset: dataset.to_owned(),
        classes: table.classes.clone(),
        devices: devices
            .map(|(counts, device)| DeviceCounts { device, train_classes: counts.clone() })
            .collect(),
    }
}

/// How many devices the terminal gets to see.
const SHOWN: usize = 50;

/// A row a device: its counts of training samples by class, and the same as shades.
fn picture(classes: &ClassTable) -> String {
    let largest = classes.train.iter().flatten().copied().max().unwrap_or(0).max(1);
    let shade = |count: u32| match count {
        0 => '·',
        _ => ['░', '▒', '▓', '█'][((4 * (count - 1)) / largest) as usize],
    };
    let mut columns = vec![("device".to_owned(), Align::Right)];
    columns.extend((0..classes.classes.len()).map(|class| (class.to_string(), Align::Right)));
    columns.extend([
        ("train".to_owned(), Align::Right),
        ("test".to_owned(), Align::Right),
        (String::new(), Align::Left),
    ]);
    let columns: Vec<(&str, Align)> = columns.iter().map(|(title, align)| (title.as_str(), *align)).collect();
    let rows: Vec<Vec<String>> = classes
        .train
        .iter()
        .zip(&classes.test)
        .enumerate()
        .take(SHOWN)
        .map(|(device, (train, test))| {
            let mut row = vec![device.to_string()];
            row.extend(train.iter().map(|&count| if count == 0 { String::new() } else { count.to_string() }));
            row.push(train.iter().sum::<u32>().to_string());
            row.push(test.iter().sum::<u32>().to_string());
            row.push(train.iter().map(|&count| shade(count)).collect());
            row
        })
        .collect();
    let mut text = "Training samples of each device by class:\n\n".to_owned();
    text += &table(&columns, &rows);
    if classes.train.len() > SHOWN {
        text += &format!("... and {} more devices\n", classes.train.len() - SHOWN);
    }
    text += "\n";
    for (label, name) in classes.classes.iter().enumerate() {
        text += &format!("{label:>6}  {name}\n");
    }
    text
}
