//! Writing a file whole or not at all; appending records, and reading them back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::RecordError;

/// Writes a file so that its old content, or none, stays if anything goes wrong: to a temporary neighbour, then by
/// renaming it.
///
/// # Errors
/// [`RecordError::File`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    replace(path, bytes).map_err(RecordError::file("write", path))
}

/// [`write_atomically`] with the system's own error.
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(path, |out| out.write_all(bytes))
}

/// [`replace`] for what is too large to have in memory: `write` gets a buffered writer.
///
/// # Errors
/// What the system says, or `write`.
pub fn replace_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
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
pub fn temporary(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".tmp");
    Some(path.with_file_name(name))
}

/// Hands every line of a `.jsonl` file to `each`.
///
/// # Errors
/// [`RecordError::File`], or [`RecordError::Foreign`] with the line that is no such record.
pub fn for_each_line<T: DeserializeOwned>(path: &Path, mut each: impl FnMut(T)) -> Result<(), RecordError> {
    let file = File::open(path).map_err(RecordError::file("read", path))?;
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(RecordError::file("read", path))?;
        each(serde_json::from_str(&line).map_err(|error| RecordError::Foreign {
            path: path.to_owned(),
            reason: format!("line {}: {error}", i + 1),
        })?);
    }
    Ok(())
}

/// Opens a file to append to, cut to the length that is committed.
///
/// # Errors
/// [`RecordError::File`], or [`RecordError::Foreign`] if the file is shorter than that.
pub fn open_cut(path: &Path, len: u64) -> Result<File, RecordError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(RecordError::file("open", path))?;
    let found = file.metadata().map_err(RecordError::file("read", path))?.len();
    if found < len {
        return Err(RecordError::Foreign {
            path: path.to_owned(),
            reason: format!("{found} bytes, but the checkpoint has seen {len}: the file was cut or replaced"),
        });
    }
    file.set_len(len).map_err(RecordError::file("write", path))?;
    file.seek(SeekFrom::End(0)).map_err(RecordError::file("write", path))?;
    Ok(file)
}

/// Records as JSON lines.
///
/// # Panics
/// If a record is not plain data, such as a map whose keys are no strings.
pub fn lines<T: Serialize>(records: &[T]) -> Vec<u8> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record).expect("records are plain data");
        lines.push(b'\n');
    }
    lines
}

/// Appends records as JSON lines and returns the file's new length, once it is on the disk.
///
/// # Errors
/// [`RecordError::File`].
pub fn append<T: Serialize>(file: &mut File, path: &Path, records: &[T]) -> Result<u64, RecordError> {
    file.write_all(&lines(records))
        .and_then(|()| file.sync_data())
        .and_then(|()| file.stream_position())
        .map_err(RecordError::file("write", path))
}

/// Removes a file, if it is there.
///
/// # Errors
/// [`RecordError::File`].
pub fn remove(path: &Path) -> Result<(), RecordError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RecordError::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomically(&path, b"old").unwrap();
        // A folder in the file's place cannot be replaced by a file.
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        assert!(write_atomically(&folder, b"new").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left lying about");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn what_is_appended_is_read_back_and_what_was_not_committed_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("numbers.jsonl");
        let mut file = open_cut(&path, 0).unwrap();
        let committed = append(&mut file, &path, &[1, 2]).unwrap();
        append(&mut file, &path, &[3]).unwrap();
        let mut file = open_cut(&path, committed).unwrap();
        append(&mut file, &path, &[4]).unwrap();
        let read = || {
            let mut found = Vec::new();
            for_each_line(&path, |number: u32| found.push(number)).map(|()| found)
        };
        assert_eq!(read().unwrap(), [1, 2, 4]);
        let shorter = open_cut(&path, 100).unwrap_err().to_string();
        assert!(shorter.contains("6 bytes") && shorter.contains("seen 100"), "{shorter}");
        fs::write(&path, "1\nhalf a rec").unwrap();
        assert!(read().unwrap_err().to_string().contains("line 2: "));
    }
}
