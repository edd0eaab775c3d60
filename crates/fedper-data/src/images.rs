//! Images: one byte a channel, one label an image; in memory, or in a file that several samples share.

use std::sync::Arc;

use crate::DataError;
use crate::photos::Stored;
use crate::resize::Resize;

/// Images of one size with their labels.
///
/// Pixels are bytes as `[sample][row][column][channel]`, rows from the top; labels count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Rows of each image.
    pub height: usize,
    /// Columns of each image.
    pub width: usize,
    /// Bytes of each pixel: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    pixels: Pixels,
    labels: Vec<u16>,
}

/// Where the pixels are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pixels {
    Memory(Vec<u8>),
    File(Arc<Stored>),
}

impl Images {
    /// Images from their parts.
    ///
    /// # Shapes
    /// `pixels` is `[labels.len()][height][width][channels]`.
    ///
    /// # Errors
    /// If the number of pixels is not what the shape says, a side is 0, or there are more than `u32::MAX` images.
    pub fn new(
        [height, width, channels]: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u16>,
    ) -> Result<Self, DataError> {
        let expected =
            [height, width, channels, labels.len()].iter().try_fold(1, |n: usize, &side| n.checked_mul(side));
        if [height, width, channels].contains(&0)
            || expected != Some(pixels.len())
            || u32::try_from(labels.len()).is_err()
        {
            return Err(DataError::Shape {
                shape: [labels.len(), height, width, channels],
                expected,
                found: pixels.len(),
            });
        }
        Ok(Self { height, width, channels, pixels: Pixels::Memory(pixels), labels })
    }

    /// Images whose pixels stay in a file, from which each batch reads what it needs.
    ///
    /// # Panics
    /// If there are not as many labels as the file has samples.
    pub(crate) fn stored(stored: Stored, labels: Vec<u16>) -> Self {
        assert_eq!(stored.len(), labels.len(), "a label for each sample");
        let [height, width, channels] = stored.shape();
        Self { height, width, channels, pixels: Pixels::File(Arc::new(stored)), labels }
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Bytes of one image, which is also its number of values in a batch: height × width × channels.
    pub fn sample_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The pixels of one image, `[height][width][channels]`, which must be in memory; [`Images::read`] takes any.
    ///
    /// # Panics
    /// If there is no such image, or the pixels are in a file ([`Images::in_memory`]).
    pub fn pixels(&self, index: usize) -> &[u8] {
        match &self.pixels {
            Pixels::Memory(pixels) => &pixels[index * self.sample_len()..][..self.sample_len()],
            Pixels::File(_) => panic!("these pixels are in a file: read() them"),
        }
    }

    /// The pixels of one image, `[height][width][channels]`: where they are in memory, or read into `buffer`.
    ///
    /// # Errors
    /// If they are in a file that can no longer be read.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn read<'a>(&'a self, index: usize, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], DataError> {
        match &self.pixels {
            Pixels::Memory(_) => Ok(self.pixels(index)),
            Pixels::File(stored) => {
                buffer.resize(self.sample_len(), 0);
                stored.read(index, buffer)?;
                Ok(buffer)
            }
        }
    }

    /// Whether all pixels are in memory.
    pub fn in_memory(&self) -> bool {
        matches!(self.pixels, Pixels::Memory(_))
    }

    /// The label of every image.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// The same images in another order.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        let mut pixels = Vec::with_capacity(order.len() * self.sample_len());
        for &index in order {
            pixels.extend_from_slice(self.pixels(index as usize));
        }
        let labels = order.iter().map(|&index| self.labels[index as usize]).collect();
        Self { pixels: Pixels::Memory(pixels), labels, ..*self }
    }

    /// All of them in another size.
    pub(crate) fn resized(&self, resize: &Resize) -> Result<Self, DataError> {
        let shape = [self.height, self.width, self.channels];
        let pixels = (0..self.len()).flat_map(|i| resize.apply(self.pixels(i), shape)).collect();
        let (height, width) = resize.size();
        Self::new([height, width, self.channels], pixels, self.labels.clone())
    }

    /// Appends images of the same shape.
    ///
    /// # Panics
    /// If the shapes differ, or some are not in memory.
    pub(crate) fn append(&mut self, mut other: Self) {
        assert_eq!(
            (self.height, self.width, self.channels),
            (other.height, other.width, other.channels),
            "only images of one shape go together"
        );
        let (Pixels::Memory(pixels), Pixels::Memory(others)) = (&mut self.pixels, &mut other.pixels) else {
            panic!("only images in memory are appended");
        };
        pixels.append(others);
        self.labels.append(&mut other.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_checked() {
        let images = Images::new([1, 2, 3], (0..12).collect(), vec![4, 5]).unwrap();
        assert_eq!((images.len(), images.sample_len()), (2, 6));
        assert_eq!(images.pixels(1), [6, 7, 8, 9, 10, 11]);
        assert_eq!(images.labels(), [4, 5]);
        assert!(Images::new([1, 2, 3], vec![0; 11], vec![4, 5]).is_err());
        assert!(Images::new([0, 2, 3], vec![], vec![4, 5]).is_err());
        assert!(Images::new([usize::MAX, 2, 3], vec![], vec![]).is_err());
    }

    #[test]
    fn reordering_carries_the_labels_along() {
        let images = Images::new([1, 1, 2], vec![1, 2, 3, 4, 5, 6], vec![0, 1, 2]).unwrap();
        let reordered = images.reordered(&[2, 0]);
        assert_eq!(reordered, Images::new([1, 1, 2], vec![5, 6, 1, 2], vec![2, 0]).unwrap());
    }
}
