//! From image files to pixels.
//!
//! Orientation in EXIF is ignored, transparency is dropped, 16-bit channels lose their lower byte.

use std::fs::File;
use std::io::{Cursor, Read};
use std::num::NonZero;
use std::path::Path;

use image::{ImageReader, Limits};

use super::jpeg;
use crate::DataError;
use crate::error::io;
use crate::resize::Resize;

/// The longest side of a photograph; a header that claims more is not believed.
const LONGEST_SIDE: u32 = 1 << 15;
/// The most memory for decoding one image, in bytes.
const MOST_MEMORY: u64 = 512 << 20;

/// One decoded image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) height: usize,
    pub(super) width: usize,
    /// 1 if the file is grey, else 3.
    pub(super) channels: usize,
    /// `[height][width][channels]`.
    pub(super) pixels: Vec<u8>,
}

/// Decodes all files and resizes the images if a size is given, on all cores; the result does not depend on how many.
///
/// # Errors
/// The first file, in the order of `paths`, that is not an image.
pub(super) fn all(paths: &[&Path], size: Option<(usize, usize)>) -> Result<Vec<Decoded>, DataError> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = paths.len().div_ceil(workers).max(1);
    let parts: Vec<Result<Vec<Decoded>, DataError>> = std::thread::scope(|scope| {
        let run = |part| scope.spawn(move || decode_part(part, size));
        let threads: Vec<_> = paths.chunks(share).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("decoding does not panic")).collect()
    });
    let mut images = Vec::with_capacity(paths.len());
    for part in parts {
        images.extend(part?);
    }
    Ok(images)
}

fn decode_part(paths: &[&Path], size: Option<(usize, usize)>) -> Result<Vec<Decoded>, DataError> {
    let resize = size.map(Resize::new).transpose()?;
    paths
        .iter()
        .map(|path| {
            let image = decode(path)?;
            Ok(match (&resize, size) {
                (Some(resize), Some((height, width))) if (image.height, image.width) != (height, width) => {
                    let pixels = resize.apply(&image.pixels, [image.height, image.width, image.channels]);
                    Decoded { height, width, pixels, ..image }
                }
                _ => image,
            })
        })
        .collect()
}

/// Decodes one file, in colour whatever it is, resized.
///
/// # Errors
/// If it is not an image.
pub(crate) fn rgb(path: &Path, resize: &Resize) -> Result<Vec<u8>, DataError> {
    let Decoded { height, width, channels, pixels } = decode(path)?;
    let pixels = if (height, width) == resize.size() {
        pixels
    } else {
        resize.apply(&pixels, [height, width, channels])
    };
    Ok(if channels == 3 { pixels } else { pixels.into_iter().flat_map(|grey| [grey; 3]).collect() })
}

/// Decodes one file.
///
/// # Errors
/// If it cannot be read or is not an image.
pub(super) fn decode(path: &Path) -> Result<Decoded, DataError> {
    let broken = |problem: String| DataError::Image { path: path.into(), problem };
    let file = File::open(path).map_err(io("open", path))?;
    let mut bytes = Vec::new();
    file.take(MOST_MEMORY).read_to_end(&mut bytes).map_err(io("read", path))?;
    if jpeg::is_jpeg(&bytes) && !jpeg::is_complete(&bytes) {
        return Err(broken("the JPEG file has no end".into()));
    }
    // By content, because a file's name may lie.
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(io("read", path))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST_SIDE), Some(LONGEST_SIDE));
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let image = reader.decode().map_err(|e| broken(e.to_string()))?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    if height * width == 0 {
        return Err(broken("it has no pixel".into()));
    }
    let (channels, pixels) = if image.color().has_color() {
        (3, image.into_rgb8().into_raw())
    } else {
        (1, image.into_luma8().into_raw())
    };
    Ok(Decoded { height, width, channels, pixels })
}
