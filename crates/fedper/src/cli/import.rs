//! `fedper model import`.

use std::path::PathBuf;

use fedper_core::params::Spec;

use super::model::{NetworkArgs, build, write_weights};
use super::table::grouped;
use crate::config::Settings;
use crate::error::Error;
use crate::experiment::read_weights;
use crate::import::{Fit, fit};

pub(super) const EXAMPLES: &str = "\
Examples:
  fedper model import resnet34.safetensors --model resnet34 --input 3x224x224 --classes 5 --out start.safetensors
  fedper run --dataset flickr-aes --model resnet34 --init start.safetensors

A PyTorch file (.pt, .pth) becomes one of safetensors in Python:
  safetensors.torch.save_file(torch.load('resnet34.pth'), 'resnet34.safetensors')";

#[derive(clap::Args)]
pub(super) struct Args {
    /// Weights as safetensors, named as in torchvision (resnet34) or timm (mobilenet_v1)
    file: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    /// The file to write; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn main(args: &Args) -> Result<(), Error> {
    super::model::must_be_new(&args.out)?;
    let (_, architecture) = build(&args.network, Settings::default())?;
    let found = read_weights(&args.file)?;
    let foreign = |reason| Error::Foreign { path: args.file.clone(), reason };
    if let Some(name) = found.first_non_finite() {
        return Err(foreign(format!("parameter `{name}` holds a value that is not finite")));
    }
    let network = architecture.layout();
    let fit = fit(&found, &network).map_err(|error| foreign(error.to_string()))?;
    if fit.taken.layout().is_empty() {
        let name = |specs: &[Spec]| specs.first().map_or("none".into(), |spec| format!("`{}`", spec.name));
        return Err(foreign(format!(
            "no parameter is one of {}'s: the file's first is {}, the network's {}; choose another --model, or rename them",
            architecture.name,
            name(found.layout().specs()),
            name(network.specs())
        )));
    }
    write_weights(&args.out, &fit.taken)?;
    super::print(&describe(&fit, network.len()))?;
    super::print(&format!("Start from it with --init {}\n", args.out.display()))
}

fn describe(fit: &Fit, parameters: usize) -> String {
    let taken = fit.taken.layout();
    let mut text = format!(
        "taken: {} of {parameters} parameters, {} values",
        taken.len(),
        grouped(taken.numel() as u64)
    );
    if !fit.prefix.is_empty() {
        text += &format!(" (without `{}` before their names)", fit.prefix);
    }
    text.push('\n');
    let shape = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    for (spec, found) in &fit.missing {
        let why = match found {
            Some(found) => format!("{} here, {} in the file", shape(&spec.shape), shape(found)),
            None => "not in the file".into(),
        };
        text += &format!("starts as without it: {} ({why})\n", spec.name);
    }
    for name in &fit.unknown {
        text += &format!("left out: {name} (the network has no such parameter)\n");
    }
    text
}
