//! Writing a file whole or not at all; appending records, and reading them back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
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

/// Opens a file to append to, cut to the length that is committed.
pub(super) fn open_cut(path: &Path, len: u64) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::file("open", path))?;
    let found = file.metadata().map_err(Error::file("read", path))?.len();
    if found < len {
        return Err(Error::Foreign {
            path: path.to_owned(),
            reason: format!("{found} bytes, but the checkpoint has seen {len}: the file was cut or replaced"),
        });
    }
    file.set_len(len).map_err(Error::file("write", path))?;
    file.seek(SeekFrom::End(0)).map_err(Error::file("write", path))?;
    Ok(file)
}

/// Records as JSON lines.
pub(super) fn lines<T: Serialize>(records: &[T]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record).expect("records are plain data");
        lines.push(b'\n');
    }
    lines
}

/// Appends records as JSON lines and returns the file's new length, once it is on the disk.
pub(super) fn append<T: Serialize>(file: &mut File, path: &Path, records: &[T]) -> Result<u64, Error> {
    file.write_all(&lines(records))
        .and_then(|()| file.sync_data())
        .and_then(|()| file.stream_position())
        .map_err(Error::file("write", path))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}
