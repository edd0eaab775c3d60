//! Reading a device's network back from `weights/`.

use std::fs;
use std::path::Path;

use fedper_core::params::{Layout, Params, ParamsError};

use super::RunDir;
use crate::config::Config;
use crate::error::Error;
use crate::experiment::read_weights;

/// The network that `algorithm` has given `device` at the end of the run in `run`, and whether a part of it is the
/// device's own: the base and what the device keeps, or the base alone where no device keeps anything.
///
/// # Errors
/// [`Error::Config`] if the run has no such algorithm, device or final weights, or the device is not named and matters.
pub fn device_network(run: &Path, algorithm: &str, device: Option<u64>) -> Result<(Params, bool), Error> {
    let config = Config::resolve(&RunDir::settings(run)?)?;
    let wrong = |message: String| Err(Error::Config(message));
    if !config.algorithm.iter().any(|name| name == algorithm) {
        return wrong(format!("{} has run {}, not {algorithm}", run.display(), config.algorithm.join(", ")));
    }
    if let Some(device) = device.filter(|&device| device >= config.clients) {
        return wrong(format!(
            "there is no device {device}: {} has {}, from 0 to {}",
            run.display(),
            config.clients,
            config.clients - 1
        ));
    }
    let folder = run.join("weights").join(algorithm);
    let base = folder.join("base.safetensors");
    if !base.is_file() {
        return wrong(format!(
            "{} holds no final weights of {algorithm}: let the run end with fedper run --resume {0}",
            run.display()
        ));
    }
    let mut parts = vec![read_weights(&base)?];
    // Where everything is averaged, no device has anything of its own.
    let own = has_personal(&folder)?;
    match device {
        Some(device) if own => {
            let path = folder.join(format!("device-{device:05}.safetensors"));
            if !path.is_file() {
                return wrong(format!(
                    "device {device} has no personal layers of {algorithm}: it never trained in {}",
                    run.display()
                ));
            }
            parts.push(read_weights(&path)?);
        }
        None if own => return wrong(format!("{algorithm} keeps personal layers: say whose with --device")),
        _ => {}
    }
    let specs = parts.iter().flat_map(|part| part.layout().specs().to_vec()).collect();
    let values = parts.iter().flat_map(|part| part.values().to_vec()).collect();
    let foreign = |error: ParamsError| Error::Foreign { path: folder.clone(), reason: error.to_string() };
    let layout = Layout::new(specs).map_err(foreign)?;
    Ok((Params::from_values(layout, values).map_err(foreign)?, own))
}

fn has_personal(folder: &Path) -> Result<bool, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file("read", folder))?;
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("device-")))
}
