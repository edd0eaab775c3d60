//! The file of resized photographs, and bringing photos into it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::index::{self, Entry, Stamp};
use super::stored::{Slot, Stored, read_at};
use crate::decode::{self, Decoded, Fit, Trouble};
use crate::resize::Resize;
use crate::{DataError, cache_dir};

/// What a photo became: its stamp before it was decoded, and its pixels.
type Photo = Result<(Stamp, Decoded), Trouble>;

/// Resized photos of one folder, in a folder of the cache named after that folder and the size.
pub(crate) struct PhotoCache {
    photos: PathBuf,
    fit: Fit,
    index_path: PathBuf,
    pixels_path: PathBuf,
    index: File,
    pixels: File,
    /// If not, all photos must be in it already.
    writable: bool,
    /// How much of the index `entries` knows.
    known: u64,
    entries: HashMap<String, Entry>,
}

impl PhotoCache {
    /// Opens the cache of the photos in the folder `photos`, made to `fit`, in `root`, or where downloads are kept if `root`
    /// is `None`.
    ///
    /// # Errors
    /// If it cannot be read, or not be made; if photos cannot have that size.
    pub(crate) fn open(root: Option<&Path>, photos: &Path, fit: Fit) -> Result<Self, DataError> {
        if let Fit::Resize(height, width) = fit {
            Resize::new((height, width))?;
        }
        let root = root.map(PathBuf::from).or_else(cache_dir).ok_or(DataError::NoCache)?;
        let photos = fs::canonicalize(photos).map_err(crate::error::io("open", photos))?;
        let header = index::header(fit, &photos);
        let folder = root.join("pixels").join(format!("{:016x}", index::hash(header.as_bytes())));
        let made = fs::create_dir_all(&folder);
        let (index_path, pixels_path) = (folder.join("index.tsv"), folder.join("pixels.bin"));
        let open = |path: &Path, write: bool| {
            OpenOptions::new().read(true).write(write).create(write).truncate(false).open(path)
        };
        let both = |write: bool| Ok::<_, io::Error>((open(&index_path, write)?, open(&pixels_path, write)?));
        let (index, pixels, writable) = match made.and_then(|()| both(true)) {
            Ok((index, pixels)) => (index, pixels, true),
            // Whoever may not write may still read what another left.
            Err(refused) => match both(false) {
                Ok((index, pixels)) => (index, pixels, false),
                Err(_) => return Err(refuse(&folder, refused)),
            },
        };
        let entries = HashMap::new();
        let mut cache =
            Self { photos, fit, index_path, pixels_path, index, pixels, writable, known: 0, entries };
        cache.begin(&header)?;
        Ok(cache)
    }

    /// Reads the index, or makes it.
    fn begin(&mut self, header: &str) -> Result<(), DataError> {
        let header = format!("{header}\n");
        let mut found = vec![0; header.len()];
        if read_at(&self.index, &mut found, 0).is_err() && self.writable {
            // Empty, or its making was interrupted: nobody has used it yet, unless someone else is just making it.
            self.index.lock().map_err(self.refused())?;
            let len = self.index.metadata().map_err(self.refused())?.len();
            if len < header.len() as u64 {
                let made = self.index.set_len(0).and_then(|()| {
                    self.index.rewind()?;
                    self.index.write_all(header.as_bytes())?;
                    self.index.sync_data()
                });
                made.map_err(self.refused())?;
            }
            self.index.unlock().map_err(self.refused())?;
        }
        read_at(&self.index, &mut found, 0).map_err(self.refused())?;
        if found != header.as_bytes() {
            return Err(DataError::Format {
                file: self.index_path.display().to_string(),
                format: "an index of resized photos",
                expected: format!("'{}' in the first line", header.trim_end()),
                found: "something else".into(),
            });
        }
        self.known = header.len() as u64;
        self.catch_up()?;
        Ok(())
    }

    /// Reads what was appended to the index, and says where its whole lines end.
    fn catch_up(&mut self) -> Result<u64, DataError> {
        let mut text = Vec::new();
        let read = self.index.seek(SeekFrom::Start(self.known));
        read.and_then(|_| self.index.read_to_end(&mut text)).map_err(self.refused())?;
        self.known += index::read(&text, &mut self.entries) as u64;
        Ok(self.known)
    }

    /// Brings photos, by their paths in the folder, into the cache, and says for each in which slot it is or why it is
    /// in none. `decoded` is called with how many more are done. What is stale or damaged is decoded afresh.
    ///
    /// # Errors
    /// If the cache cannot be written or read.
    pub(crate) fn bring<P: AsRef<Path> + Sync>(
        &mut self,
        names: &[P],
        decoded: &mut dyn FnMut(usize),
    ) -> Result<Vec<Result<Slot, Trouble>>, DataError> {
        let mut slots: Vec<Option<Result<Slot, Trouble>>> =
            names.iter().map(|name| self.look_up(name.as_ref())).collect();
        let missing = |slots: &[Option<Result<Slot, Trouble>>]| -> Vec<usize> {
            (0..slots.len()).filter(|&at| slots[at].is_none()).collect()
        };
        decoded(names.len() - missing(&slots).len());
        if !missing(&slots).is_empty() {
            if !self.writable {
                return Err(self.refused()(io::ErrorKind::ReadOnlyFilesystem.into()));
            }
            // Held until all are there; the system gives it back if the process ends.
            self.index.lock().map_err(self.refused())?;
            // Another process may have decoded them since.
            let end = self.catch_up()?;
            self.index.set_len(end).map_err(self.refused())?;
            for at in missing(&slots) {
                slots[at] = self.look_up(names[at].as_ref());
                decoded(usize::from(slots[at].is_some()));
            }
            let (photos, fit) = (self.photos.clone(), self.fit);
            let name = |at: &usize| names[*at].as_ref();
            decode::in_chunks(
                &missing(&slots),
                |at| photo(&photos.join(name(at)), fit),
                |chunk, images| {
                    let chunk_names: Vec<&Path> = chunk.iter().map(name).collect();
                    for (&at, slot) in chunk.iter().zip(self.append(&chunk_names, images)?) {
                        slots[at] = Some(slot);
                    }
                    decoded(chunk.len());
                    Ok::<(), DataError>(())
                },
            )?;
            self.index.unlock().map_err(self.refused())?;
        }
        Ok(slots.into_iter().map(|slot| slot.expect("each was looked up or decoded")).collect())
    }

    /// The slot of a photo whose pixels are there, whole and those of the file as it is now.
    fn look_up(&self, name: &Path) -> Option<Result<Slot, Trouble>> {
        let entry = *self.entries.get(&*index::name(name))?;
        let stamp = fs::metadata(self.photos.join(name)).ok().map(|metadata| Stamp::of(&metadata));
        if stamp != Some(entry.stamp) {
            return None;
        }
        let len = self.slot_len();
        let mut pixels = vec![0; if entry.slot.grey { len / 3 } else { len }];
        read_at(&self.pixels, &mut pixels, u64::from(entry.slot.number) * len as u64).ok()?;
        (index::hash(&pixels) == entry.hash).then_some(Ok(entry.slot))
    }

    /// Appends decoded photos: first the pixels, and once they are on the disk, the index. The lock is held.
    fn append(
        &mut self,
        names: &[&Path],
        images: Vec<Photo>,
    ) -> Result<Vec<Result<Slot, Trouble>>, DataError> {
        let slot_len = self.slot_len() as u64;
        // Behind everything that was ever written, so that nothing anybody reads is touched.
        let start = self.pixels.metadata().map_err(self.refused())?.len().next_multiple_of(slot_len);
        let mut lines = String::new();
        let mut slots = Vec::with_capacity(images.len());
        let mut write = || {
            let mut next = start;
            for (image, name) in images.iter().zip(names) {
                slots.push(match image {
                    Err(trouble) => Err(trouble.clone()),
                    Ok((stamp, Decoded { channels, pixels, .. })) => {
                        let number = u32::try_from(next / slot_len).map_err(io::Error::other)?;
                        let slot = Slot { number, grey: *channels == 1 };
                        // What a grey photo leaves of its slot is a hole, if the file system has such.
                        self.pixels.seek(SeekFrom::Start(next))?;
                        self.pixels.write_all(pixels)?;
                        let entry = Entry { slot, stamp: *stamp, hash: index::hash(pixels) };
                        lines += &index::line(&index::name(name), &entry);
                        next += slot_len;
                        Ok(slot)
                    }
                });
            }
            self.pixels.sync_data()?;
            self.index.seek(SeekFrom::Start(self.known))?;
            self.index.write_all(lines.as_bytes())
        };
        if let Err(error) = write() {
            // Gives back what a full disk took; there is nobody to tell if that fails too.
            let _ = self.pixels.set_len(start).and_then(|()| self.index.set_len(self.known));
            return Err(self.refused()(error));
        }
        self.catch_up()?;
        Ok(slots)
    }

    /// Samples from this cache, by their slots. With one channel, all of them must be grey.
    pub(crate) fn into_stored(self, slots: Vec<Slot>, channels: usize) -> Stored {
        let (height, width) = self.fit.size();
        assert!(channels == 3 || slots.iter().all(|slot| slot.grey), "colour does not fit in one channel");
        Stored::new(self.pixels, self.pixels_path, [height, width, channels], slots)
    }

    /// Bytes of one slot.
    fn slot_len(&self) -> usize {
        let (height, width) = self.fit.size();
        height * width * 3
    }

    fn refused(&self) -> impl FnOnce(io::Error) -> DataError + use<> {
        let folder = self.index_path.parent().unwrap_or(Path::new("")).to_owned();
        move |source| refuse(&folder, source)
    }
}

fn refuse(folder: &Path, source: io::Error) -> DataError {
    DataError::PhotoCache { folder: folder.into(), source }
}

fn photo(path: &Path, fit: Fit) -> Photo {
    // Before decoding: a photo that changes meanwhile is stale.
    let stamp = match fs::metadata(path) {
        Ok(metadata) => Stamp::of(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Trouble::Missing),
        Err(error) => return Err(Trouble::Broken(error.to_string())),
    };
    Ok((stamp, decode::fitted(path, fit)?))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
