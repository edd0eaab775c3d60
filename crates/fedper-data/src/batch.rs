//! From samples to normalised batches, without allocating once warm.

use fedper_core::seed::{self, Random};

use crate::{DataError, Images};

/// Pixels of padding on each side that a random crop may reach into.
const PADDING: i64 = 4;

/// The value of each byte in a batch: (x/255 - 0.5) / 0.5, from -1 to 1, in single precision and in this order of
/// operations, as torchvision's `ToTensor` and `Normalize(0.5, 0.5)` compute it.
const NORMALISED: [f32; 256] = {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as f32 / 255.0 - 0.5) / 0.5;
        byte += 1;
    }
    table
};

/// The value of a byte in a batch, from -1 to 1.
pub fn normalise(byte: u8) -> f32 {
    NORMALISED[usize::from(byte)]
}

/// Deals samples in batches, epoch after epoch, device after device: one a worker, reused.
///
/// ```
/// use fedper_core::seed::{self, Purpose};
/// use fedper_data::{Batcher, Images};
///
/// let images = Images::new([2, 2, 1], (0..20).collect(), vec![0, 1, 2, 3, 4])?;
/// let mut batcher = Batcher::new(2, false);
/// let (mut pixels, mut labels) = (vec![0.0; 2 * images.sample_len()], vec![0; 2]);
/// let mut order = seed::derive(1, Purpose::Shuffle, 0, 1);
/// for _epoch in 0..3 {
///     batcher.start(&[0, 2, 4], Some(&mut order));
///     while let Some(count) = batcher.fill(&images, None, &mut pixels, &mut labels)? {
///         let (_x, _y) = (&pixels[..count * images.sample_len()], &labels[..count]);
///     }
/// }
/// # Ok::<(), fedper_data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batcher {
    batch_size: usize,
    drop_last: bool,
    /// A last batch of fewer joins the one before it.
    fewest: usize,
    order: Vec<u32>,
    next: usize,
    /// One image on its way from a file into the batch.
    buffer: Vec<u8>,
}

impl Batcher {
    /// Batches of `batch_size` samples. The last batch of an epoch has what is left, or is skipped with `drop_last`
    /// unless it is full or the only one.
    ///
    /// # Panics
    /// If `batch_size` is 0.
    pub fn new(batch_size: usize, drop_last: bool) -> Self {
        assert!(batch_size > 0, "a batch has at least one sample");
        Self { batch_size, drop_last, fewest: 1, order: Vec::new(), next: 0, buffer: Vec::new() }
    }

    /// The same, but a last batch of fewer than `fewest` samples joins the one before it: batch norm cannot train on one.
    #[must_use]
    pub fn joining(self, fewest: usize) -> Self {
        Self { fewest, ..self }
    }

    /// The largest batch that there can be.
    pub fn largest(&self) -> usize {
        self.batch_size + self.fewest - 1
    }

    /// How many batches an epoch over `samples` samples has.
    pub fn batches(&self, samples: usize) -> usize {
        let (full, rest) = (samples / self.batch_size, samples % self.batch_size);
        match full {
            0 => usize::from(rest > 0),
            _ if self.drop_last || rest < self.fewest => full,
            _ => full + 1,
        }
    }

    /// How many of `left` samples the next batch takes.
    fn next_batch(&self, left: usize) -> usize {
        match left.checked_sub(self.batch_size) {
            None if self.drop_last && self.next > 0 => 0,
            None => left,
            Some(rest) if rest > 0 && rest < self.fewest && !self.drop_last => left,
            Some(_) => self.batch_size,
        }
    }

    /// Begins an epoch over `samples` (indices into the images), in their order or shuffled.
    pub fn start(&mut self, samples: &[u32], shuffle: Option<&mut Random>) {
        self.order.clear();
        self.order.extend_from_slice(samples);
        self.next = 0;
        if let Some(rng) = shuffle {
            seed::shuffle(rng, &mut self.order);
        }
    }

    /// Fills the next batch and says how many samples it has, or `None` when the epoch is over.
    ///
    /// With `augment`, each image is cropped at random out of itself with 4 black pixels of padding on each side and,
    /// every second time, mirrored left to right; in this order, three draws an image (row, column, mirror), as
    /// torchvision's `RandomCrop(size, padding=4)` and `RandomHorizontalFlip()` do.
    ///
    /// # Shapes
    /// `pixels` is `[largest][height][width][channels]`, `labels` is `[largest]` (see [`Batcher::largest`]); either may be
    /// longer. Of both only the first samples are written, as many as are returned.
    ///
    /// # Errors
    /// If the images are in a file that can no longer be read.
    ///
    /// # Panics
    /// If a buffer is too short or a sample is not in `images`.
    pub fn fill(
        &mut self,
        images: &Images,
        mut augment: Option<&mut Random>,
        pixels: &mut [f32],
        labels: &mut [u32],
    ) -> Result<Option<usize>, DataError> {
        let count = self.next_batch(self.order.len() - self.next);
        if count == 0 {
            return Ok(None);
        }
        let batch = &self.order[self.next..][..count];
        let pixels = pixels[..count * images.sample_len()].chunks_exact_mut(images.sample_len());
        for ((&sample, into), label) in batch.iter().zip(pixels).zip(&mut labels[..count]) {
            let from = images.read(sample as usize, &mut self.buffer)?;
            match augment.as_deref_mut() {
                None => into.iter_mut().zip(from).for_each(|(value, &byte)| *value = normalise(byte)),
                Some(rng) => {
                    let mut offset = || seed::below(rng, 2 * PADDING as u64 + 1) as i64 - PADDING;
                    let (down, right) = (offset(), offset());
                    let mirror = seed::below(rng, 2) == 1;
                    crop(from, [images.height, images.width, images.channels], down, right, mirror, into);
                }
            }
            *label = images.labels()[sample as usize].into();
        }
        self.next += count;
        Ok(Some(count))
    }
}

/// Writes the window of `from` that begins `down` rows and `right` columns from its corner, black where it lies
/// outside, mirrored left to right if asked.
fn crop(
    from: &[u8],
    [height, width, channels]: [usize; 3],
    down: i64,
    right: i64,
    mirror: bool,
    into: &mut [f32],
) {
    let inside = |at: i64, len: usize| usize::try_from(at).ok().filter(|&at| at < len);
    for (y, row) in into.chunks_exact_mut(width * channels).enumerate() {
        let from_row =
            inside(y as i64 + down, height).map(|y| &from[y * width * channels..][..width * channels]);
        for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
            let x = if mirror { width - 1 - x } else { x };
            match from_row.zip(inside(x as i64 + right, width)) {
                Some((from, x)) => {
                    let from = &from[x * channels..][..channels];
                    pixel.iter_mut().zip(from).for_each(|(value, &byte)| *value = normalise(byte));
                }
                None => pixel.fill(normalise(0)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedper_core::seed::Purpose;

    fn images() -> Images {
        Images::new([2, 3, 1], (0..30).map(|i| i * 8).collect(), vec![5, 6, 7, 8, 9]).unwrap()
    }

    fn epoch(batcher: &mut Batcher, images: &Images) -> Vec<(Vec<f32>, Vec<u32>)> {
        epoch_of(batcher, images, 2)
    }

    fn epoch_of(batcher: &mut Batcher, images: &Images, largest: usize) -> Vec<(Vec<f32>, Vec<u32>)> {
        let (mut pixels, mut labels) = (vec![9.0; largest * 6], vec![9; largest]);
        std::iter::from_fn(|| {
            let count = batcher.fill(images, None, &mut pixels, &mut labels).unwrap()?;
            Some((pixels[..count * 6].to_vec(), labels[..count].to_vec()))
        })
        .collect()
    }

    #[test]
    fn values_are_torchvision_s() {
        // >>> (torch.tensor([0, 1, 100, 127, 128, 255]).float() / 255 - 0.5) / 0.5
        assert_eq!([0, 255].map(normalise), [-1.0, 1.0]);
        for byte in 0..=255u8 {
            assert_eq!(normalise(byte).to_bits(), ((f32::from(byte) / 255.0 - 0.5) / 0.5).to_bits());
        }
    }

    #[test]
    fn an_epoch_covers_the_samples_in_order() {
        let (images, mut batcher) = (images(), Batcher::new(2, false));
        batcher.start(&[4, 0, 3], None);
        let batches = epoch(&mut batcher, &images);
        assert_eq!(batches.len(), batcher.batches(3));
        assert_eq!(batches[0].1, [9, 5]);
        assert_eq!(batches[1].1, [8]);
        assert_eq!(batches[1].0, images.pixels(3).iter().map(|&byte| normalise(byte)).collect::<Vec<_>>());
        assert!(epoch(&mut batcher, &images).is_empty(), "the epoch is over");
    }

    #[test]
    fn the_last_batch_can_be_dropped() {
        let (images, mut batcher) = (images(), Batcher::new(2, true));
        batcher.start(&[4, 0, 3], None);
        assert_eq!(epoch(&mut batcher, &images).len(), 1);
        assert_eq!((batcher.batches(3), batcher.batches(4), batcher.batches(0)), (1, 2, 0));
    }

    #[test]
    fn whoever_has_less_than_a_batch_trains_on_all_of_it() {
        let (images, mut batcher) = (images(), Batcher::new(4, true));
        batcher.start(&[4, 0, 3], None);
        assert_eq!(epoch_of(&mut batcher, &images, 4).concat_labels(), [9, 5, 8]);
        assert_eq!(batcher.batches(3), 1);
    }

    #[test]
    fn a_last_batch_that_is_too_small_joins_the_one_before() {
        let images = images();
        for (drop_last, samples, sizes) in [
            (false, 1, vec![1]),
            (false, 3, vec![3]),
            (false, 4, vec![2, 2]),
            (false, 5, vec![2, 3]),
            (true, 5, vec![2, 2]),
            (true, 1, vec![1]),
        ] {
            let mut batcher = Batcher::new(2, drop_last).joining(2);
            assert_eq!(batcher.largest(), 3);
            batcher.start(&[0, 1, 2, 3, 4][..samples], None);
            let batches = epoch_of(&mut batcher, &images, 3);
            assert_eq!(batches.iter().map(|(_, labels)| labels.len()).collect::<Vec<_>>(), sizes);
            assert_eq!(batcher.batches(samples), sizes.len(), "{samples} samples");
        }
    }

    #[test]
    fn shuffling_is_seeded_and_differs_between_epochs() {
        let images = images();
        let orders = |seed| {
            let (mut rng, mut batcher) = (seed::derive(seed, Purpose::Shuffle, 0, 1), Batcher::new(2, false));
            (0..4)
                .map(|_| {
                    batcher.start(&[0, 1, 2, 3, 4], Some(&mut rng));
                    epoch(&mut batcher, &images).concat_labels()
                })
                .collect::<Vec<_>>()
        };
        let first = orders(1);
        assert_eq!(first, orders(1));
        assert_ne!(first, orders(2));
        assert_ne!(first[0], first[1]);
        for mut order in first {
            order.sort_unstable();
            assert_eq!(order, [5, 6, 7, 8, 9]);
        }
    }

    trait ConcatLabels {
        fn concat_labels(self) -> Vec<u32>;
    }

    impl ConcatLabels for Vec<(Vec<f32>, Vec<u32>)> {
        fn concat_labels(self) -> Vec<u32> {
            self.into_iter().flat_map(|(_, labels)| labels).collect()
        }
    }

    #[test]
    fn crops_and_mirrors_by_hand() {
        // One row of two pixels of two channels.
        let from = [10, 11, 20, 21];
        let black = [0, 0];
        for (down, right, mirror, expected) in [
            (0, 0, false, [[10, 11], [20, 21]]),
            (0, 0, true, [[20, 21], [10, 11]]),
            (0, 1, false, [[20, 21], black]),
            (0, -1, false, [black, [10, 11]]),
            (0, 1, true, [black, [20, 21]]),
            (1, 0, false, [black, black]),
            (-1, 0, false, [black, black]),
        ] {
            let mut into = [9.0; 4];
            crop(&from, [1, 2, 2], down, right, mirror, &mut into);
            assert_eq!(into, expected.concat()[..].iter().map(|&b| normalise(b)).collect::<Vec<_>>()[..]);
        }
    }

    #[test]
    fn augmentation_reaches_every_crop_and_both_mirrors() {
        // A single white pixel in the middle tells where the window was.
        let mut bytes = vec![0; 9 * 10];
        bytes[4 * 10 + 4] = 255;
        let images = Images::new([9, 10, 1], bytes, vec![0]).unwrap();
        let mut rng = seed::derive(3, Purpose::Augment, 0, 1);
        let (mut pixels, mut labels, mut batcher) = (vec![0.0; 90], [0], Batcher::new(1, false));
        let mut places = std::collections::BTreeMap::new();
        for _ in 0..9 * 9 * 2 * 40 {
            batcher.start(&[0], None);
            batcher.fill(&images, Some(&mut rng), &mut pixels, &mut labels).unwrap().unwrap();
            let at = pixels.iter().position(|&value| value == 1.0).expect("a shift of 4 keeps the middle");
            *places.entry((at / 10, at % 10)).or_insert(0) += 1;
        }
        // 9 rows; columns 0..=8 unmirrored and 1..=9 mirrored: the outer columns come half as often.
        assert_eq!(places.len(), 90);
        for ((_, column), count) in places {
            let expected = if column == 0 || column == 9 { 40 } else { 80 };
            assert!((expected / 3..expected * 2).contains(&count), "column {column}: {count}");
        }
    }
}
