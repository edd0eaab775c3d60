//! `fedper predict`.

use std::path::PathBuf;

use serde_json::json;

use super::table::{Align, percent, table};
use crate::error::Error;
use crate::failure::Failure;
use crate::predict::Classifier;

/// Classify images with a device's own network
///
/// The network is that of a finished run (--run), or what a device on a network was last tested with (--state): the base under
/// the device's own personal layers. JPEG, PNG and WebP files of any size; they are turned as their EXIF orientation says,
/// resized, and made grey if the run's images are, as a run's own images are.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Take the final weights of this run
    #[arg(long, value_name = "DIR", requires = "device", required_unless_present = "state")]
    run: Option<PathBuf>,
    /// Whose network of the run, by number from 0
    #[arg(long, value_name = "NUMBER", requires = "run")]
    device: Option<u64>,
    /// Instead of a run's: the network in this folder of a `fedper client`, which may be running
    #[arg(long, value_name = "DIR", conflicts_with = "run")]
    state: Option<PathBuf>,
    /// By which algorithm [default: fedper, or the only one there]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<String>,
    /// How many classes to show of each image, the likeliest first
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    top: u64,
    /// Print every class's probability as JSON on standard output, and nothing else there
    #[arg(long)]
    json: bool,
    /// Image files
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  fedper predict --run runs/cifar --device 3 cat.jpg
  fedper predict --run runs/cifar --device 3 --algorithm fedavg --json photos/*.png
  fedper predict --state /var/lib/fedper cat.jpg

A file that is no image is named on standard error, the others are classified all the same, and the exit code is 1.";

pub(super) fn main(args: &Args) -> Result<(), Failure> {
    let algorithm = args.algorithm.as_deref();
    let mut classifier = match (&args.run, args.device, &args.state) {
        (Some(run), Some(device), _) => Classifier::open(run, algorithm, device)?,
        (_, _, Some(state)) => Classifier::deployed(state, algorithm)?,
        _ => unreachable!("the command line asks for one of them"),
    };
    let results: Vec<_> = args.images.iter().map(|path| (path, classifier.classify(path))).collect();
    let classes = classifier.classes();
    if args.json {
        let images: Vec<serde_json::Value> = results
            .iter()
            .map(|(path, result)| match result {
                Ok(probabilities) => {
                    let best = ranking(probabilities)[0];
                    json!({ "file": path.display().to_string(), "label": best, "class": classes[best], "probabilities": probabilities })
                }
                Err(error) => json!({ "file": path.display().to_string(), "error": error.to_string() }),
            })
            .collect();
        let all = json!({
            "run": args.run.as_ref().map(|run| run.display().to_string()),
            "state": args.state.as_ref().map(|state| state.display().to_string()),
            "algorithm": classifier.algorithm(),
            "round": classifier.round(),
            "device": args.device,
            "own": classifier.is_own(),
            "trained": classifier.has_trained(),
            "classes": classes,
            "images": images,
        });
        super::print(&format!("{all:#}\n"))?;
    } else {
        super::print(&text(args, &classifier, &results))?;
    }
    let failed: Vec<&Error> = results.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    for error in &failed {
        super::say(format_args!("fedper: {error}"));
    }
    match failed.len() {
        0 => Ok(()),
        failed => Err(Failure::Images { failed, all: results.len() }),
    }
}

/// Labels, the likeliest first; of equals the lower label.
fn ranking(probabilities: &[f64]) -> Vec<usize> {
    let mut labels: Vec<usize> = (0..probabilities.len()).collect();
    labels.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    labels
}

fn text(args: &Args, classifier: &Classifier, results: &[(&PathBuf, Result<Vec<f64>, Error>)]) -> String {
    let classes = classifier.classes();
    let shown = usize::try_from(args.top).unwrap_or(usize::MAX).min(classes.len());
    let rows: Vec<Vec<String>> = results
        .iter()
        .filter_map(|(path, result)| Some((path, result.as_ref().ok()?)))
        .map(|(path, probabilities)| {
            let mut row = vec![path.display().to_string()];
            for &label in &ranking(probabilities)[..shown] {
                row.extend([classes[label].clone(), percent(probabilities[label])]);
            }
            row
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut columns = vec![("image".to_owned(), Align::Left)];
    for rank in 1..=shown {
        columns.extend([(format!("class {rank}"), Align::Left), (String::new(), Align::Right)]);
    }
    let columns: Vec<(&str, Align)> = columns.iter().map(|(title, align)| (title.as_str(), *align)).collect();
    let algorithm = classifier.algorithm();
    let whose = match (classifier.is_own(), args.device, classifier.round()) {
        (true, Some(device), _) if !classifier.has_trained() => format!(
            "Device {device}'s own network ({algorithm}); it never trained, so its personal layers are those it would \
             begin with"
        ),
        (true, Some(device), _) => format!("Device {device}'s own network ({algorithm})"),
        (true, None, Some(round)) => format!("This device's own network ({algorithm}, round {round})"),
        _ => format!("The network that all devices share ({algorithm} keeps nothing on a device)"),
    };
    format!("{whose}:\n\n{}", table(&columns, &rows))
}
