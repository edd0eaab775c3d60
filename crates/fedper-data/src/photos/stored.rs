//! Reading resized photographs from their file.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::DataError;
use crate::error;

/// Samples whose pixels are slots of a file; several samples may be one slot.
#[derive(Debug)]
pub(crate) struct Stored {
    file: File,
    path: PathBuf,
    height: usize,
    width: usize,
    /// The slot of each sample.
    slots: Vec<u32>,
}

impl Stored {
    pub(super) fn new(file: File, path: PathBuf, (height, width): (usize, usize), slots: Vec<u32>) -> Self {
        Self { file, path, height, width, slots }
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Height and width of every one.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Reads the pixels of a sample, `[height][width][3]`, into `into`, which has that length. Any number of threads
    /// may read at the same time.
    ///
    /// # Errors
    /// If the file can no longer be read, or was cut.
    ///
    /// # Panics
    /// If there is no such sample.
    pub(crate) fn read(&self, sample: usize, into: &mut [u8]) -> Result<(), DataError> {
        let at = u64::from(self.slots[sample]) * into.len() as u64;
        read_at(&self.file, into, at).map_err(error::io("read resized photos from", &self.path))
    }
}

/// Two are the same samples if they are the same slots of the same file.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.size(), &self.slots) == (&other.path, other.size(), &other.slots)
    }
}

impl Eq for Stored {}

/// Fills `into` from position `at` of the file, whatever other threads read.
#[cfg(unix)]
pub(super) fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

/// Fills `into` from position `at` of the file, whatever other threads read.
#[cfg(windows)]
pub(super) fn read_at(file: &File, mut into: &mut [u8], mut at: u64) -> io::Result<()> {
    while !into.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, into, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        into = &mut into[read..];
        at += read as u64;
    }
    Ok(())
}
