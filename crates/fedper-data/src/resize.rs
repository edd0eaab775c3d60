//! Resizing images.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma, Pixel, Rgb};

use crate::DataError;

/// The longest side that images are resized to: beyond it, a typing mistake is likelier than a plan.
const LONGEST: usize = 4096;

/// Resizes images one by one. Bilinear with support scaled to the reduction, as Pillow and torchvision (`antialias`) do;
/// the image is stretched to the new size, whatever its proportions.
pub(crate) struct Resize {
    height: usize,
    width: usize,
}

impl Resize {
    /// # Errors
    /// If a side is 0 or absurd.
    pub(crate) fn new((height, width): (usize, usize)) -> Result<Self, DataError> {
        if ![height, width].iter().all(|side| (1..=LONGEST).contains(side)) {
            return Err(DataError::ImageSize { height, width, longest: LONGEST });
        }
        Ok(Self { height, width })
    }

    /// Height and width of what comes out.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Resizes `pixels`, `[height][width][channels]` with 1 or 3 channels.
    ///
    /// # Panics
    /// If `pixels` does not have that shape.
    pub(crate) fn apply(&self, pixels: &[u8], [height, width, channels]: [usize; 3]) -> Vec<u8> {
        if channels == 1 {
            self.apply_typed::<Luma<u8>>(pixels, height, width)
        } else {
            self.apply_typed::<Rgb<u8>>(pixels, height, width)
        }
    }

    fn apply_typed<P: Pixel<Subpixel = u8> + 'static>(
        &self,
        pixels: &[u8],
        height: usize,
        width: usize,
    ) -> Vec<u8> {
        let side = |side: usize| u32::try_from(side).expect("a decoded image has 32-bit sides");
        let from = ImageBuffer::<P, _>::from_raw(side(width), side(height), pixels)
            .expect("the shape is the pixels'");
        imageops::resize(&from, side(self.width), side(self.height), FilterType::Triangle).into_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Images;

    #[test]
    fn halving_averages_and_keeps_the_orientation() {
        // Dark left, light right, and a light lower right corner.
        let rows = [[0, 0, 100, 100], [0, 0, 100, 100], [0, 0, 200, 200], [0, 0, 200, 200]];
        let images = Images::new([4, 4, 1], rows.concat(), vec![3]).unwrap();
        let half = images.resized(&Resize::new((2, 2)).unwrap()).unwrap();
        assert_eq!((half.height, half.width, half.labels()), (2, 2, &[3][..]));
        let [a, b, c, d] = half.pixels(0) else { panic!("4 pixels") };
        assert!(a < b && c < d && b < d, "{:?}", half.pixels(0));
    }

    #[test]
    fn channels_stay_apart_and_sides_are_not_swapped() {
        let rgb = Images::new([2, 4, 3], [7, 8, 9].repeat(8), vec![0]).unwrap();
        let resized = rgb.resized(&Resize::new((3, 5)).unwrap()).unwrap();
        assert_eq!([resized.height, resized.width], [3, 5]);
        assert_eq!(resized.pixels(0), [7, 8, 9].repeat(15));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for size in [(0, 3), (3, 0), (4097, 3), (3, usize::MAX)] {
            let message = Resize::new(size).err().unwrap().to_string();
            assert!(message.contains("--image-size"), "{message}");
        }
    }
}
