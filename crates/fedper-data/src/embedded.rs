//! The default dataset: Fashion-MNIST's test split, part of the program.

use fedper_core::seed::{self, Purpose, SERVER};

use crate::{DataError, Dataset, Images, catalogue::DatasetInfo, idx};

static IMAGES: &[u8] = include_bytes!("../assets/fashion-mnist/t10k-images-idx3-ubyte.gz");
static LABELS: &[u8] = include_bytes!("../assets/fashion-mnist/t10k-labels-idx1-ubyte.gz");

/// One image in this many is for testing: 5 to 1, as in CIFAR-10.
const ONE_TEST_IN: usize = 6;

/// Reads it and splits it 5 to 1 into train and test.
///
/// The split is the same in every run. It is stratified: class after class, the class's samples are shuffled by
/// `seed::derive(0, Purpose::Dataset, SERVER, 0)` and the first sixth (167 of 1,000) becomes test. Within train and
/// within test the samples keep the order of the files.
pub(crate) fn load(info: &'static DatasetInfo) -> Result<Dataset, DataError> {
    let images = idx::read_images(
        (IMAGES, "the embedded images"),
        (LABELS, "the embedded labels"),
        info.classes.len(),
    )?;
    let (order, train_len) = split(&images, info.classes.len());
    Ok(Dataset {
        name: info.name.into(),
        classes: info.classes.iter().map(|&class| class.into()).collect(),
        images: images.reordered(&order),
        train_len,
        devices: None,
        left_out: crate::LeftOut::default(),
        note: Some("Fashion-MNIST's 10,000 test images, split 5:1 into train and test".into()),
    })
}

/// All train samples, then all test samples; and how many are train samples.
fn split(images: &Images, classes: usize) -> (Vec<u32>, usize) {
    let mut rng = seed::derive(0, Purpose::Dataset, SERVER, 0);
    let mut is_test = vec![false; images.len()];
    for class in 0..classes {
        let mut members: Vec<usize> =
            (0..images.len()).filter(|&i| usize::from(images.labels()[i]) == class).collect();
        seed::shuffle(&mut rng, &mut members);
        let tests = (members.len() + ONE_TEST_IN / 2) / ONE_TEST_IN;
        members[..tests].iter().for_each(|&member| is_test[member] = true);
    }
    let (test, train): (Vec<u32>, Vec<u32>) = (0..images.len() as u32).partition(|&i| is_test[i as usize]);
    let train_len = train.len();
    ([train, test].concat(), train_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::catalogue;

    #[test]
    fn it_is_whole_and_stratified() {
        let dataset = load(&catalogue()[0]).unwrap();
        assert_eq!((dataset.images.len(), dataset.train_len), (10_000, 8_330));
        assert_eq!((dataset.images.height, dataset.images.width, dataset.images.channels), (28, 28, 1));
        for class in 0..10 {
            let count = |labels: &[u16]| labels.iter().filter(|&&label| label == class).count();
            let (train, test) = dataset.images.labels().split_at(dataset.train_len);
            assert_eq!((count(train), count(test)), (833, 167));
        }
    }

    #[test]
    fn the_split_is_fixed_forever() {
        // A change here changes every published run on the default dataset.
        let dataset = load(&catalogue()[0]).unwrap();
        let mut hash = seed::Fnv1a::new();
        (0..dataset.images.len()).for_each(|i| hash.write(dataset.images.pixels(i)));
        dataset.images.labels().iter().for_each(|label| hash.write(&label.to_le_bytes()));
        assert_eq!(format!("{:016x}", hash.finish()), "ae7fe6fb7ad59de9");
    }
}
