//! Writing a file whole or not at all, and reading records back.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::Error;

/// Writes a file so that its old content, or none, stays if anything goes wrong: to a temporary neighbour, then by
/// renaming it.
///
/// # Errors
/// [`Error::File`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().expect("a file has a name").to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        })
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // What was left half-written is of no use to anybody.
        let _ = fs::remove_file(&temporary);
        Error::file("write", path)(error)
    })
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
