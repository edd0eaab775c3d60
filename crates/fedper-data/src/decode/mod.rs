//! From image files to pixels.
//!
//! Images are turned as their EXIF orientation says. Transparency is dropped, 16-bit channels lose their lower byte.

pub(crate) mod formats;
mod jpeg;

use std::fs::File;
use std::io::{Cursor, Read};
use std::num::NonZero;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use self::formats::{READ_NAMES, identify, is_convertible};
use crate::DataError;
use crate::error::io;
use crate::resize::Resize;

/// The longest side of a photograph; a header that claims more is not believed.
const LONGEST_SIDE: u32 = 1 << 15;
/// The most memory for decoding one image, in bytes.
const MOST_MEMORY: u64 = 512 << 20;
/// Images that one thread decodes before they are handed on: so many are in memory.
const SHARE: usize = 8;

/// One decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// 1 if the file is grey, else 3.
    pub(crate) channels: usize,
    /// `[height][width][channels]`.
    pub(crate) pixels: Vec<u8>,
}

impl Decoded {
    /// With three channels, whatever it has.
    pub(crate) fn into_rgb(self) -> Self {
        if self.channels == 3 {
            return self;
        }
        let pixels = self.pixels.into_iter().flat_map(|grey| [grey; 3]).collect();
        Self { channels: 3, pixels, ..self }
    }
}

/// Which size images are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// This height and width: they are resized.
    Resize(usize, usize),
    /// This height and width: those that have another size are of no use.
    Exactly(usize, usize),
}

impl Fit {
    /// Height and width.
    pub(crate) fn size(self) -> (usize, usize) {
        match self {
            Self::Resize(height, width) | Self::Exactly(height, width) => (height, width),
        }
    }
}

/// Why a file is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no such file.
    Missing,
    /// It is no image, or a damaged one; with what to do about it.
    Broken(String),
    /// It has this height and width, and must have another.
    Size(usize, usize),
}

/// Calls `decode` with each of `items` on all cores, and `done` with the results, in order, a few at a time: so many are in
/// memory.
///
/// # Errors
/// The first error of `done`.
pub(crate) fn in_chunks<T: Sync, R: Send, E>(
    items: &[T],
    decode: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&[T], Vec<R>) -> Result<(), E>,
) -> Result<(), E> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let run = |part: &[T]| -> Vec<R> { part.iter().map(&decode).collect() };
    for chunk in items.chunks(workers * SHARE) {
        let share = chunk.len().div_ceil(workers);
        let results = std::thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = chunk.chunks(share).map(|part| scope.spawn(move || run(part))).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("decoding does not panic")).collect()
        });
        done(chunk, results)?;
    }
    Ok(())
}

/// Decodes one file and makes it fit.
///
/// # Errors
/// Why it is of no use.
///
/// # Panics
/// If `fit` resizes to what no image can have.
pub(crate) fn fitted(path: &Path, fit: Fit) -> Result<Decoded, Trouble> {
    let image = decode(path).map_err(|error| match error {
        DataError::Image { problem, .. } => Trouble::Broken(problem),
        DataError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Trouble::Missing,
        DataError::Io { operation, source, .. } => {
            Trouble::Broken(format!("cannot {operation} it: {source}"))
        }
        other => Trouble::Broken(other.to_string()),
    })?;
    match fit {
        _ if (image.height, image.width) == fit.size() => Ok(image),
        Fit::Exactly(..) => Err(Trouble::Size(image.height, image.width)),
        Fit::Resize(height, width) => {
            let resize = Resize::new((height, width)).expect("the size was checked");
            let pixels = resize.apply(&image.pixels, [image.height, image.width, image.channels]);
            Ok(Decoded { height, width, pixels, ..image })
        }
    }
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
    if bytes.is_empty() {
        return Err(broken("it is empty; get it again".into()));
    }
    if jpeg::is_jpeg(&bytes) && !jpeg::is_complete(&bytes) {
        return Err(broken("the JPEG file has no end: it was cut short; get it again".into()));
    }
    // By content, because a file's name may lie.
    if let Some(what) = identify(&bytes) {
        let advice = if is_convertible(what) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().replace('\'', r"'\''");
            format!(
                "convert it, for example with ImageMagick: magick '{name}[0]' '{name}.png', and remove this one"
            )
        } else {
            "remove it or get the image itself".into()
        };
        return Err(broken(format!("it is {what}, not {READ_NAMES}, whatever its name; {advice}")));
    }
    let image = decode_bytes(bytes, path)?.map_err(|error| {
        broken(match error {
            image::ImageError::Unsupported(_) => {
                format!("it is no {READ_NAMES} image; remove it or convert it")
            }
            error => format!("{error}; get it again or remove it"),
        })
    })?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    if height * width == 0 {
        return Err(broken("it has no pixel; remove it".into()));
    }
    let (channels, pixels) = if image.color().has_color() {
        (3, image.into_rgb8().into_raw())
    } else {
        (1, image.into_luma8().into_raw())
    };
    Ok(Decoded { height, width, channels, pixels })
}

/// The image in a file's bytes, turned so that up is up.
fn decode_bytes(bytes: Vec<u8>, path: &Path) -> Result<image::ImageResult<DynamicImage>, DataError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(io("read", path))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST_SIDE), Some(LONGEST_SIDE));
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits.clone());
    let decoded = reader.into_decoder().and_then(|mut decoder| {
        // `ImageReader::decode` does the same, and does not tell how the image is turned.
        limits.reserve(decoder.total_bytes())?;
        decoder.set_limits(limits)?;
        // Metadata that cannot be understood are no reason to refuse an image.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    });
    Ok(decoded)
}
