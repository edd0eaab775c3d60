//! Writing a file whole or not at all, and reading records back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Error;

/// Writes a file so that its old content, or none, stays if anything goes wrong: to a temporary neighbour, then by
/// renaming it.
///
/// # Errors
/// [`Error::File`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace(path, bytes).map_err(Error::file("write", path))
}

/// [`write_atomically`] with the system's own error.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What was left half-written is of no use to anybody; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Every line of a `.jsonl` file.
///
/// # Errors
/// [`Error::File`], or [`Error::Foreign`] with the line that is no such record.
pub(super) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|error| Error::Foreign {
                path: path.to_owned(),
                reason: format!("line {}: {error}", i + 1),
            })
        })
        .collect()
}
