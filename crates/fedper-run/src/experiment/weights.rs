//! Parameters in files, to begin with.

use std::path::Path;
use std::sync::Arc;

use fedper_core::params::{Layout, Params};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Reads the parameters in a safetensors file.
///
/// # Errors
/// If it cannot be read or is no such file.
pub fn read_weights(path: &Path) -> Result<Params, Error> {
    Ok(read_hashed_weights(path)?.0)
}

/// The same with the file's SHA-256, in hexadecimal digits.
pub(crate) fn read_hashed_weights(path: &Path) -> Result<(Params, String), Error> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    let foreign = |reason| Error::Foreign { path: path.to_owned(), reason };
    // A zip archive or a bare pickle.
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Err(foreign(
            "a PyTorch file, which is a program; make it one of data in Python: \
             safetensors.torch.save_file(torch.load(FILE), 'weights.safetensors')"
                .into(),
        ));
    }
    let params = fedper_nn::weights::read_safetensors(&bytes).map_err(|error| foreign(error.to_string()))?;
    let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((params, hash))
}

pub(super) fn check_init(init: &Params, layout: &Arc<Layout>, path: &Path) -> Result<(), Error> {
    let mut trial = Params::zeros(layout.clone());
    for (spec, values) in init.iter() {
        trial.set(&spec.name, &spec.shape, values).map_err(|error| {
            Error::Config(format!(
                "{}: {error}; take what fits with `fedper model import`, or choose the model and data it was made for",
                path.display()
            ))
        })?;
    }
    match init.first_non_finite() {
        Some(name) => Err(Error::Foreign {
            path: path.to_owned(),
            reason: format!("parameter `{name}` holds a value that is not finite"),
        }),
        None => Ok(()),
    }
}
