//! The pixels of a folder's images: in memory where they are few, in the cache's file where they are many.
//!
//! Either way a few images at a time are decoded, on all cores.

use std::path::Path;

use super::scan::ImageFile;
use crate::decode::{Decoded, Fit, Trouble, decode, fitted, in_chunks};
use crate::photos::{PhotoCache, Slot};
use crate::resize::Resize;
use crate::{DataError, Images, LoadOptions};

/// The most bytes of pixels that are kept in memory unless told otherwise.
const IN_MEMORY: u64 = 64 << 20;

/// How many images are looked at before all are decoded.
const LOOKED_AT: usize = 32;

/// One image.
pub(super) enum Kept {
    Pixels(Decoded),
    Slot(Slot),
}

/// What was read.
pub(super) struct Read {
    size: (usize, usize),
    /// In the order of the files; `None` for broken ones.
    pub(super) images: Vec<Option<Kept>>,
    /// Which files are broken, and why.
    pub(super) broken: Vec<(usize, String)>,
    /// Where slots are.
    cache: Option<PhotoCache>,
}

/// Reads all files.
///
/// # Errors
/// If sizes differ and none was asked for; if none can be had; if the cache cannot be used.
pub(super) fn all(
    dir: &Path,
    files: &[ImageFile],
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Read, DataError> {
    let fit = match options.image_size {
        Some(size) => {
            Resize::new(size)?;
            Fit::Resize(size.0, size.1)
        }
        None => common_size(files)?.map_or(Fit::Exactly(1, 1), |(height, width)| Fit::Exactly(height, width)),
    };
    let (height, width) = fit.size();
    let bytes = files.len() as u64 * 3 * height as u64 * width as u64;
    let mut done = 0;
    let mut decoded = |more: usize| {
        done += more;
        progress(done, files.len());
    };
    let mut cache = None;
    let results: Vec<Result<Kept, Trouble>> = if bytes <= options.memory.unwrap_or(IN_MEMORY) {
        let mut results = Vec::with_capacity(files.len());
        in_chunks(
            files,
            |file| fitted(&file.path, fit).map(Kept::Pixels),
            |_, images| {
                decoded(images.len());
                results.extend(images);
                Ok::<(), DataError>(())
            },
        )?;
        results
    } else {
        let cache = cache.insert(PhotoCache::open(options.cache.as_deref(), dir, fit)?);
        let names: Vec<&Path> =
            files.iter().map(|file| file.path.strip_prefix(dir).unwrap_or(&file.path)).collect();
        cache.bring(&names, &mut decoded)?.into_iter().map(|slot| slot.map(Kept::Slot)).collect()
    };
    sort_out(files, fit, results, cache, options.skip_broken)
}

/// Height and width of the first image that is one. Where images differ in size, most do: some of them are looked at, from
/// all over the folder, so that whoever forgot to ask for a size need not wait for all.
fn common_size(files: &[ImageFile]) -> Result<Option<(usize, usize)>, DataError> {
    let mut first: Option<(&ImageFile, (usize, usize))> = None;
    for file in files.iter().step_by(files.len().div_ceil(LOOKED_AT).max(1)) {
        let Ok(Decoded { height, width, .. }) = decode(&file.path) else { continue };
        let (first, first_size) = *first.get_or_insert((file, (height, width)));
        if first_size != (height, width) {
            return Err(DataError::ImageSizes {
                first: first.path.clone(),
                first_size,
                other: file.path.clone(),
                other_size: (height, width),
            });
        }
    }
    // All of those may be broken.
    let size = match first {
        Some((_, size)) => Some(size),
        None => {
            files.iter().find_map(|file| decode(&file.path).ok()).map(|image| (image.height, image.width))
        }
    };
    Ok(size)
}

fn sort_out(
    files: &[ImageFile],
    fit: Fit,
    results: Vec<Result<Kept, Trouble>>,
    cache: Option<PhotoCache>,
    skip_broken: bool,
) -> Result<Read, DataError> {
    let (mut images, mut broken) = (Vec::with_capacity(results.len()), Vec::new());
    let mut other = None;
    for (at, result) in results.into_iter().enumerate() {
        images.push(match result {
            Ok(image) => Some(image),
            Err(trouble) => {
                match trouble {
                    Trouble::Size(height, width) => {
                        other.get_or_insert((at, (height, width)));
                    }
                    Trouble::Missing => {
                        broken.push((at, "there is no such file; remove the link to it".into()))
                    }
                    Trouble::Broken(why) => broken.push((at, why)),
                }
                None
            }
        });
    }
    match other {
        // That some are broken, and which, is said first.
        Some((other, other_size)) if broken.is_empty() || skip_broken => Err(DataError::ImageSizes {
            first: files[images.iter().position(Option::is_some).unwrap_or(0)].path.clone(),
            first_size: fit.size(),
            other: files[other].path.clone(),
            other_size,
        }),
        _ => Ok(Read { size: fit.size(), images, broken, cache }),
    }
}

impl Read {
    /// The images that are not broken, with their labels.
    pub(super) fn take(&mut self, labels: Vec<u16>) -> Result<Images, DataError> {
        let (height, width) = self.size;
        let images: Vec<Kept> = std::mem::take(&mut self.images).into_iter().flatten().collect();
        let grey = images.iter().all(|image| match image {
            Kept::Pixels(image) => image.channels == 1,
            Kept::Slot(slot) => slot.grey,
        });
        let channels = if grey { 1 } else { 3 };
        let mut slots = Vec::new();
        let mut pixels = Vec::new();
        for image in images {
            match image {
                Kept::Slot(slot) => slots.push(slot),
                Kept::Pixels(image) if grey => pixels.extend(image.pixels),
                Kept::Pixels(image) => pixels.extend(image.into_rgb().pixels),
            }
        }
        match self.cache.take() {
            Some(cache) => Ok(Images::stored(cache.into_stored(slots, channels), labels)),
            None => Images::new([height, width, channels], pixels, labels),
        }
    }
}
