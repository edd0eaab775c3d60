//! A dataset of samples that are in memory already.

use sha2::{Digest, Sha256};

use crate::left_out::LeftOut;
use crate::{DataError, Dataset, Images};

impl Dataset {
    /// A dataset of images in memory, all of them to train on: [`Dataset::testing_on_last`] says that some are its test split.
    ///
    /// ```
    /// use fedper_data::Dataset;
    ///
    /// // Four grey images of 2x2 pixels, of two classes.
    /// let data = Dataset::from_memory("squares", &["dark", "light"], [2, 2, 1], vec![0; 16], vec![0, 1, 0, 1])?;
    /// assert_eq!((data.images.len(), data.train_len), (4, 4));
    /// let error = Dataset::from_memory("squares", &["dark"], [2, 2, 1], vec![0; 4], vec![1]).unwrap_err();
    /// assert!(error.to_string().contains("label 1"));
    /// # Ok::<(), fedper_data::DataError>(())
    /// ```
    ///
    /// # Shapes
    /// `pixels` is `[labels.len()][height][width][channels]`, rows from the top; labels count the `classes` from 0.
    ///
    /// # Errors
    /// If the number of pixels is not what shape and labels say, a label has no class, or a class or the dataset has no name of
    /// its own.
    pub fn from_memory(
        name: &str,
        classes: &[impl AsRef<str>],
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u16>,
    ) -> Result<Self, DataError> {
        let wrong = |problem: String| Err(DataError::Samples { problem });
        let classes: Vec<String> = classes.iter().map(|class| class.as_ref().to_owned()).collect();
        if name.trim().is_empty() {
            return wrong("the dataset has no name: give one, for the records of runs".into());
        }
        if labels.is_empty() {
            return wrong(format!("`{name}` has no sample"));
        }
        for (number, class) in classes.iter().enumerate() {
            if class.is_empty() {
                return wrong(format!("class {number} of `{name}` has no name"));
            }
            if classes[..number].contains(class) {
                return wrong(format!(
                    "two classes of `{name}` are named `{class}`: give each a name of its own"
                ));
            }
        }
        if let Some(sample) = labels.iter().position(|&label| usize::from(label) >= classes.len()) {
            return wrong(format!(
                "sample {sample} of `{name}` has label {}, and there are {} classes: labels count them from 0",
                labels[sample],
                classes.len()
            ));
        }
        let images = Images::new(shape, pixels, labels)?;
        Ok(Self {
            name: name.to_owned(),
            classes,
            train_len: images.len(),
            images,
            devices: None,
            note: None,
            left_out: LeftOut::default(),
        })
    }

    /// The same, whose last `count` samples are its own test split: no device trains on them.
    ///
    /// # Errors
    /// If none would be left to train on.
    pub fn testing_on_last(self, count: usize) -> Result<Self, DataError> {
        match self.images.len().checked_sub(count) {
            None | Some(0) => Err(DataError::Samples {
                problem: format!(
                    "the last {count} of the {} samples of `{}` are to be for testing, and none would be left to train on",
                    self.images.len(),
                    self.name
                ),
            }),
            Some(train_len) => Ok(Self { train_len, ..self }),
        }
    }

    /// The SHA-256 of all that training and testing see of it, in hexadecimal digits: shape, pixels, labels, classes, splits.
    ///
    /// # Errors
    /// If its pixels are in a file that cannot be read.
    pub fn sha256(&self) -> Result<String, DataError> {
        let images = &self.images;
        let mut hash = Sha256::new();
        let folders = self.devices.iter().flatten().map(|folder| (&folder.train, &folder.test));
        let about = format!(
            "{:?}",
            (
                [images.len(), images.height, images.width, images.channels, self.train_len],
                &self.classes,
                folders.collect::<Vec<_>>()
            )
        );
        hash.update(about.as_bytes());
        let mut buffer = Vec::new();
        for (index, label) in images.labels().iter().enumerate() {
            hash.update(label.to_le_bytes());
            hash.update(images.read(index, &mut buffer)?);
        }
        Ok(crate::hex(&hash.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(classes: &[&str], pixels: usize, labels: Vec<u16>) -> Result<Dataset, DataError> {
        Dataset::from_memory("mine", classes, [1, 2, 1], vec![7; pixels], labels)
    }

    #[test]
    fn what_is_wrong_with_samples_is_said() {
        for (made, said) in [
            (made(&["a", "b"], 5, vec![0, 1]), "expected 4 bytes, found 5"),
            (made(&["a", "b"], 4, vec![0, 2]), "sample 1 of `mine` has label 2, and there are 2 classes"),
            (made(&["a", "a"], 4, vec![0, 1]), "two classes of `mine` are named `a`"),
            (made(&["a", ""], 4, vec![0, 1]), "class 1 of `mine` has no name"),
            (made(&["a"], 0, vec![]), "has no sample"),
            (Dataset::from_memory(" ", &["a"], [1, 1, 1], vec![0], vec![0]), "has no name"),
            (made(&["a"], 4, vec![0, 0]).unwrap().testing_on_last(2), "none would be left"),
        ] {
            let error = made.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(made(&["a"], 4, vec![0, 0]).unwrap().testing_on_last(1).unwrap().train_len, 1);
    }

    #[test]
    fn the_hash_tells_samples_apart() {
        let hash = |data: Dataset| data.sha256().unwrap();
        let one = || made(&["a", "b"], 4, vec![0, 1]).unwrap();
        assert_eq!(hash(one()), hash(one()));
        let mut others = vec![
            hash(one()),
            hash(made(&["a", "b"], 4, vec![1, 1]).unwrap()),
            hash(made(&["a", "c"], 4, vec![0, 1]).unwrap()),
            hash(one().testing_on_last(1).unwrap()),
            hash(Dataset::from_memory("mine", &["a", "b"], [1, 2, 1], vec![8; 4], vec![0, 1]).unwrap()),
        ];
        others.sort();
        others.dedup();
        assert_eq!(others.len(), 5);
    }
}
