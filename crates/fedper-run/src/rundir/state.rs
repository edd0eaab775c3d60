//! What lasts on a server, read back from `weights/`.

use std::path::Path;

use fedper_core::params::{Layout, Params, ParamsError};
use fedper_core::parts::Parts;
use fedper_core::split::Shared;

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
    parts.adopt_state(&stored).map_err(foreign(&path))
}

fn foreign(path: &Path) -> impl FnOnce(ParamsError) -> Error {
    let path = path.to_owned();
    move |error| Error::Foreign { path, reason: error.to_string() }
}
