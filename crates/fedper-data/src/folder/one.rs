//! One image file for a network that was trained on a dataset.

use std::path::Path;

use image::{DynamicImage, RgbImage};

use crate::DataError;
use crate::decode::{self, Decoded};
use crate::resize::Resize;

/// Reads a JPEG, PNG or WebP file of any size and makes of it what a dataset of images of this shape would hold: decoded and
/// resized as a folder's images are, grey made of colour (luma) or repeated for three channels.
///
/// # Shapes
/// `[height, width, channels]` with 1 or 3 channels; the result is `[height][width][channels]`.
///
/// # Errors
/// If the file cannot be read or is not an image, with its name; if no image can have that shape.
pub fn read_image(path: &Path, [height, width, channels]: [usize; 3]) -> Result<Vec<u8>, DataError> {
    let mut image = decode::decode(path)?;
    if channels == 1 && image.channels == 3 {
        image = grey(image);
    }
    if (image.height, image.width) != (height, width) {
        let pixels =
            Resize::new((height, width))?.apply(&image.pixels, [image.height, image.width, image.channels]);
        image = Decoded { height, width, pixels, ..image };
    }
    Ok(if channels == 3 { image.into_rgb() } else { image }.pixels)
}

fn grey(image: Decoded) -> Decoded {
    let side = |side: usize| u32::try_from(side).expect("a decoded image has 32-bit sides");
    let colour = RgbImage::from_raw(side(image.width), side(image.height), image.pixels)
        .expect("a decoded image has the pixels of its shape");
    let pixels = DynamicImage::ImageRgb8(colour).into_luma8().into_raw();
    Decoded { channels: 1, pixels, ..image }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb};

    use super::*;

    #[test]
    fn any_file_becomes_the_shape_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (grey, colour) = (dir.path().join("grey.png"), dir.path().join("colour.png"));
        GrayImage::from_fn(2, 3, |x, y| Luma([(10 * y + x) as u8])).save(&grey).unwrap();
        RgbImage::from_fn(4, 4, |_, _| Rgb([200, 100, 50])).save(&colour).unwrap();
        assert_eq!(read_image(&grey, [3, 2, 1]).unwrap(), [0, 1, 10, 11, 20, 21]);
        assert_eq!(read_image(&grey, [3, 2, 3]).unwrap()[3..9], [1, 1, 1, 10, 10, 10]);
        assert_eq!(read_image(&colour, [1, 2, 3]).unwrap(), [200, 100, 50, 200, 100, 50]);
        // Rec. 709: 0.2126 * 200 + 0.7152 * 100 + 0.0722 * 50 = 117.65
        assert!(read_image(&colour, [2, 2, 1]).unwrap().iter().all(|v| (117..=118).contains(v)));
        assert!(read_image(&grey, [0, 2, 1]).unwrap_err().to_string().contains("resize"));
        let text = dir.path().join("text.png");
        std::fs::write(&text, "no image").unwrap();
        for path in [text, dir.path().join("missing.png")] {
            let message = read_image(&path, [2, 2, 1]).unwrap_err().to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }
    }
}
