//! `fedper key`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use fedper_flower::identity::Identity;

use crate::error::Error;
use crate::failure::Failure;

/// Make a device's key, or show the public half of one
///
/// Prints the public key in the format that `flwr supernode register` takes.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The private key, a PEM file; it is made if it is not there
    file: PathBuf,
}

pub(super) fn main(args: &Args) -> Result<(), Failure> {
    let path = &args.file;
    let identity = if path.exists() {
        Identity::from_pem(&std::fs::read_to_string(path).map_err(Error::file("read", path))?)?
    } else {
        let identity = Identity::generate()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // For nobody else's eyes.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(Error::file("create", path))?;
        file.write_all(identity.to_pem()?.as_bytes()).map_err(Error::file("write", path))?;
        identity
    };
    Ok(super::print(&format!("{}\n", identity.public_openssh()))?)
}
