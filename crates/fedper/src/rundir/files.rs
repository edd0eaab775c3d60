//! Writing a file whole or not at all, and reading records back.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

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
    replace_with(path, |out| out.write_all(bytes))
}

/// [`replace`] for what is too large to have in memory: `write` gets a buffered writer.
pub(super) fn replace_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = temporary(path).ok_or(io::ErrorKind::InvalidInput)?;
    let written = File::create(&temporary)
        .and_then(|file| {
            let mut out = BufWriter::with_capacity(1 << 16, file);
            write(&mut out)?;
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What was left half-written is of no use to anybody; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Where a file is while [`replace_with`] writes it. A process that is killed there leaves it behind.
pub(super) fn temporary(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".tmp");
    Some(path.with_file_name(name))
}

/// Hands every line of a `.jsonl` file to `each`.
///
/// # Errors
/// [`Error::File`], or [`Error::Foreign`] with the line that is no such record.
pub(super) fn for_each_line<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T)) -> Result<(), Error> {
    let file = File::open(path).map_err(Error::file("read", path))?;
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::file("read", path))?;
        each(serde_json::from_str(&line).map_err(|error| Error::Foreign {
            path: path.to_owned(),
            reason: format!("line {}: {error}", i + 1),
        })?);
    }
    Ok(())
}
