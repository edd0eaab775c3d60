//! Folders that are training and test images, by their names.

use std::path::PathBuf;

use super::listing::Listing;
use crate::DataError;

/// What a folder of this name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Train,
    Test,
    Validation,
}

impl Part {
    /// `train`, `Training`, `test_set`, `VAL` and their like.
    fn of(name: &str) -> Option<Self> {
        let letters: String =
            name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let stem = ["set", "split", "data", "images"].iter().find_map(|end| letters.strip_suffix(end));
        match stem.unwrap_or(&letters) {
            "train" | "training" => Some(Self::Train),
            "test" | "testing" => Some(Self::Test),
            "val" | "valid" | "validation" => Some(Self::Validation),
            _ => None,
        }
    }
}

/// A folder's name and path.
pub(super) type Folder = (String, PathBuf);

/// Which of the folders beside each other are what.
#[derive(Debug)]
pub(super) struct Splits {
    pub(super) train: Folder,
    /// The folder called test, or else the one called validation.
    pub(super) test: Option<Folder>,
    /// A folder of validation images where there are test images too.
    pub(super) validation: Option<String>,
    /// Folders that are called neither.
    pub(super) others: Vec<String>,
}

/// Whether `folder` is training and test images, rather than classes or devices. What is wrong is said in words.
///
/// Where there are both, `test` is the test split and `val` is left out: it is there for choosing settings, and an accuracy
/// on images that settings were chosen on says too much.
pub(super) fn find(folder: &Listing) -> Result<Result<Option<Splits>, String>, DataError> {
    let of = |part| -> Vec<Folder> {
        folder.folders.iter().filter(|(name, _)| Part::of(name) == Some(part)).cloned().collect()
    };
    let (mut train, mut test, mut validation) = (of(Part::Train), of(Part::Test), of(Part::Validation));
    if train.is_empty() && test.is_empty() && validation.is_empty() {
        return Ok(Ok(None));
    }
    let mut others = Vec::new();
    let mut classes = false;
    for (name, path) in folder.folders.iter().filter(|(name, _)| Part::of(name).is_none()) {
        others.push(name.clone());
        classes = classes || Listing::of(path)?.has_images();
    }
    for (_, path) in train.iter().chain(&test).chain(&validation) {
        // A class may be called "train": it then holds images as others do.
        if classes && Listing::of(path)?.has_images() {
            return Ok(Ok(None));
        }
    }
    let unclear = |folders: &[Folder]| {
        let names: Vec<String> = folders.iter().map(|(name, _)| format!("'{name}'")).collect();
        Ok(Err(format!("{} could be the same split: keep one of them", names.join(" and "))))
    };
    for same in [&train, &test] {
        if same.len() > 1 {
            return unclear(same);
        }
    }
    if validation.len() > 1 && test.is_empty() {
        return unclear(&validation);
    }
    let Some(train) = train.pop() else {
        let name = &test.iter().chain(&validation).next().expect("there is one of them").0;
        return Ok(Err(format!(
            "'{name}' looks like test images, and no folder beside it is called 'train': rename the \
                               folder of training images to that, or '{name}' to another name if it is a class or a device"
        )));
    };
    let names = |folders: Vec<Folder>| -> Vec<String> { folders.into_iter().map(|(name, _)| name).collect() };
    let test = test.pop();
    Ok(Ok(Some(match test {
        Some(test) => {
            let validation = names(validation).into_iter().reduce(|all, name| format!("{all}' and '{name}"));
            Splits { train, test: Some(test), validation, others }
        }
        None => Splits { train, test: validation.pop(), validation: None, others },
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_give() {
        for (name, part) in [
            ("train", Some(Part::Train)),
            ("Training", Some(Part::Train)),
            ("TRAIN", Some(Part::Train)),
            ("training_set", Some(Part::Train)),
            ("train-data", Some(Part::Train)),
            ("Test", Some(Part::Test)),
            ("Testing", Some(Part::Test)),
            ("val", Some(Part::Validation)),
            ("valid", Some(Part::Validation)),
            ("Validation", Some(Part::Validation)),
            ("trainer", None),
            ("protest", None),
            ("valley", None),
            ("set", None),
        ] {
            assert_eq!(Part::of(name), part, "{name}");
        }
    }
}
