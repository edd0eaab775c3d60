//! Reading resized photographs from their file.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::DataError;
use crate::error;

/// A place in the file of pixels, large enough for a colour image of the file's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Which one, from 0.
    pub(crate) number: u32,
    /// Whether the image is grey: it then has one byte a pixel, and the rest of the slot is not used.
    pub(crate) grey: bool,
}

/// Samples whose pixels are slots of a file; several samples may be one slot.
#[derive(Debug)]
pub(crate) struct Stored {
    file: File,
    path: PathBuf,
    height: usize,
    width: usize,
    /// 1 if all samples are grey and are to stay so, else 3.
    channels: usize,
    /// The slot of each sample.
    slots: Vec<Slot>,
}

impl Stored {
    pub(super) fn new(
        file: File,
        path: PathBuf,
        [height, width, channels]: [usize; 3],
        slots: Vec<Slot>,
    ) -> Self {
        Self { file, path, height, width, channels, slots }
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Height, width and channels of every one.
    pub(crate) fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }

    /// Reads the pixels of a sample, `[height][width][channels]`, into `into`, which has that length. Any number of threads
    /// may read at the same time.
    ///
    /// # Errors
    /// If the file can no longer be read, or was cut.
    ///
    /// # Panics
    /// If there is no such sample.
    pub(crate) fn read(&self, sample: usize, into: &mut [u8]) -> Result<(), DataError> {
        let Slot { number, grey } = self.slots[sample];
        let values = self.height * self.width;
        let at = u64::from(number) * 3 * values as u64;
        let bytes = if grey { &mut into[..values] } else { &mut *into };
        read_at(&self.file, bytes, at).map_err(error::io("read resized photos from", &self.path))?;
        if grey && self.channels == 3 {
            // From the end, so that no value is written over before it is read.
            for value in (0..values).rev() {
                let grey = into[value];
                into[3 * value..][..3].fill(grey);
            }
        }
        Ok(())
    }
}

/// Two are the same samples if they are the same slots of the same file.
impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.shape(), &self.slots) == (&other.path, other.shape(), &other.slots)
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
