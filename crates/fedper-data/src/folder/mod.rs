//! A folder of image files as a dataset.

pub(crate) mod decode;
mod jpeg;
mod one;
mod scan;

use std::path::Path;

use crate::{DataError, Dataset, Images};
use decode::Decoded;
pub use one::read_image;

/// Reads a folder; see [`scan::Layout`] for its structure and [`decode`] for what is done to the images.
///
/// Images are grey (one channel) if all are grey, otherwise all have three channels. Their order, and so every index,
/// is that of the sorted names.
pub(crate) fn load(dir: &Path, image_size: Option<(usize, usize)>) -> Result<Dataset, DataError> {
    let scan::Scan { layout, classes, files, train_len, devices } = scan::scan(dir)?;
    let paths: Vec<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    let images = decode::all(&paths, image_size)?;

    let first = &images[0];
    let (height, width) = (first.height, first.width);
    if let Some(at) = images.iter().position(|image| (image.height, image.width) != (height, width)) {
        return Err(DataError::ImageSizes {
            first: files[0].path.clone(),
            first_size: (height, width),
            other: files[at].path.clone(),
            other_size: (images[at].height, images[at].width),
        });
    }
    let channels = images.iter().map(|image| image.channels).max().unwrap_or(1);
    let mut pixels = Vec::with_capacity(images.len() * height * width * channels);
    for image in images {
        image.append_to(&mut pixels, channels);
    }
    let labels = files.iter().map(|file| file.label).collect();
    Ok(Dataset {
        name: "folder".into(),
        classes,
        images: Images::new([height, width, channels], pixels, labels)?,
        train_len,
        devices,
        left_out: crate::LeftOut::default(),
        note: Some(format!("{} ({layout})", dir.display())),
    })
}

impl Decoded {
    /// Appends the pixels, each grey value three times if `channels` is 3 and the image is grey.
    fn append_to(self, pixels: &mut Vec<u8>, channels: usize) {
        if self.channels == channels {
            pixels.extend(self.pixels);
        } else {
            pixels.extend(self.pixels.into_iter().flat_map(|grey| [grey; 3]));
        }
    }
}
