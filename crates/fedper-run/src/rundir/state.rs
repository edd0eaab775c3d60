//! What lasts on a server and what devices keep, read back from `weights/`.

use std::path::{Path, PathBuf};

use fedper_core::params::{Layout, Params, ParamsError};
use fedper_core::parts::Parts;
use fedper_core::round::DeviceId;
use fedper_core::split::{Kept, Shared};

use super::{BASE, SERVER};
use crate::error::Error;
use crate::experiment::read_weights;

/// What lasts on the server, from an algorithm's folder of final weights.
pub(crate) fn read_state(folder: &Path, parts: &Parts) -> Result<Shared, Error> {
    let path = folder.join(BASE);
    let mut stored = read_weights(&path)?;
    let rest = folder.join(SERVER);
    if parts.server.slots().len() > 1 {
        let rest = read_weights(&rest)?;
        let specs = [stored.layout().specs(), rest.layout().specs()].concat();
        let layout = Layout::new(specs).map_err(foreign(&path))?;
        let values = [stored.values(), rest.values()].concat();
        stored = Params::from_values(layout, values).map_err(foreign(&path))?;
    }
    parts.adopt_state(stored).map_err(foreign(&path))
}

/// Where an algorithm's folder of final weights has what `device` keeps.
pub(super) fn device_file(folder: &Path, device: DeviceId) -> PathBuf {
    folder.join(format!("device-{:05}.safetensors", device.0))
}

/// What `device` keeps, from an algorithm's folder of final weights; `None` if it has never trained, or keeps nothing.
pub(crate) fn read_kept(folder: &Path, parts: &Parts, device: DeviceId) -> Result<Option<Kept>, Error> {
    let path = device_file(folder, device);
    if !path.is_file() {
        return Ok(None);
    }
    parts.adopt_kept(read_weights(&path)?).map(Some).map_err(foreign(&path))
}

fn foreign(path: &Path) -> impl FnOnce(ParamsError) -> Error {
    let path = path.to_owned();
    move |error| Error::Foreign { path, reason: error.to_string() }
}
