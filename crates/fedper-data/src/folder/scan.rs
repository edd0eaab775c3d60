//! Which image files a folder holds, and what its structure says about them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::found::{Found, Group, some};
use super::listing::Listing;
use super::splits::{self, Splits};
use crate::{DataError, DeviceFolder};

/// The structures there are.
const EXPECTED: &str = "expected DIR/train/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/*, or a folder for each device, \
                        DIR/DEVICE/CLASS/* or DIR/DEVICE/train/CLASS/* and DIR/DEVICE/test/CLASS/*, with .jpg, .jpeg, .png \
                        or .webp files";

/// The structures there are. [`splits::find`] says which names folders of training and test images may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// `train/CLASS/*`, and `test/CLASS/*` if there is a test split.
    Splits,
    /// `CLASS/*`: one split.
    Classes,
    /// `DEVICE/CLASS/*`: a folder for each device.
    Devices,
    /// `DEVICE/train/CLASS/*` and `DEVICE/test/CLASS/*`: a folder for each device, as devices on a network have it.
    DeviceSplits,
}

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageFile {
    pub(super) path: PathBuf,
    pub(super) label: u16,
}

/// All image files of a folder, in order: those for training, then those for testing.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) classes: Vec<String>,
    pub(super) files: Vec<ImageFile>,
    pub(super) train_len: usize,
    pub(super) devices: Option<Vec<DeviceFolder>>,
    /// What was taken as what.
    pub(super) notes: Vec<String>,
    /// What was left out, a sentence each.
    pub(super) left_out: Vec<String>,
}

/// Finds the structure and the files.
///
/// # Errors
/// If the folder cannot be read or has none of the structures; if a class would be left out.
pub(super) fn scan(dir: &Path) -> Result<Scan, DataError> {
    let refuse = |problem: String| DataError::Folder { path: dir.into(), problem };
    let unknown = |problem: String| refuse(format!("{problem}; {EXPECTED}"));
    let top = Listing::of(dir)?;
    let mut found = Found::new(dir);
    if top.folders.is_empty() {
        return Err(unknown("it holds no class folder with image files".into()));
    }
    let mut taken = Taken::default();
    let mut test_groups = Vec::new();
    let (layout, mut groups) = if let Some(splits) = splits::find(&top)?.map_err(refuse)? {
        found.beside(&top, dir);
        let (train, test) = taken.take(&mut found, "", &splits)?;
        test_groups.extend(test);
        (Layout::Splits, vec![train])
    } else if let Some(class) = first_with_images(&top)? {
        for (name, path) in &top.folders {
            let inner = Listing::of(path)?;
            if !inner.has_images() && !inner.is_empty() {
                return Err(unknown(format!("'{name}' holds no image file, while '{class}' does")));
            }
        }
        (Layout::Classes, vec![found.group("", dir)?])
    } else {
        found.beside(&top, dir);
        let mut groups = Vec::new();
        let mut whole: Option<&str> = None;
        for (device, path) in &top.folders {
            let inner = Listing::of(path)?;
            let in_device = |problem: String| refuse(format!("in '{device}': {problem}"));
            match splits::find(&inner)?.map_err(in_device)? {
                Some(splits) => {
                    found.beside(&inner, path);
                    let (train, test) = taken.take(&mut found, device, &splits)?;
                    groups.push(train);
                    let none = || Group { name: device.clone(), classes: Vec::new() };
                    test_groups.push(test.unwrap_or_else(none));
                }
                None => {
                    whole.get_or_insert(device);
                    groups.push(found.group(device, path)?);
                }
            }
        }
        match whole {
            Some(device) if !test_groups.is_empty() => {
                let with = &test_groups[0].name;
                return Err(unknown(format!(
                    "'{with}' has a folder of training images, and '{device}' has none: let all devices have one"
                )));
            }
            Some(_) => (Layout::Devices, groups),
            None => (Layout::DeviceSplits, groups),
        }
    };
    found.check(groups.iter().chain(&test_groups)).map_err(refuse)?;
    // A train split, or a device, is of no use without samples.
    if let Some(empty) = groups.iter().find(|group| group.classes.is_empty()) {
        let name = match layout {
            Layout::Splits => taken.train.first().cloned().unwrap_or_default(),
            Layout::Classes => return Err(unknown("it holds no class folder with image files".into())),
            Layout::Devices | Layout::DeviceSplits => empty.name.clone(),
        };
        return Err(unknown(format!("'{name}' has no class folder with image files")));
    }
    found.left_out.extend(taken.left_out);
    found.left_out.extend(untrained(&groups, &test_groups));
    let (left_out, said) = found.sentences();
    let mut notes = vec![describe(layout, groups.len(), &taken.train, &taken.test)];
    notes.extend(said);
    let train_groups = groups.len();
    groups.extend(test_groups);
    let mut scan = number(layout, groups, train_groups)
        .ok_or_else(|| refuse("it has more than 65536 classes or 4294967295 files".into()))?;
    (scan.notes, scan.left_out) = (notes, left_out);
    Ok(scan)
}

/// The first folder that holds image files, of whatever format.
fn first_with_images(listing: &Listing) -> Result<Option<String>, DataError> {
    for (name, path) in &listing.folders {
        if Listing::of(path)?.has_images() {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}

/// Which folders were taken for training and testing, and which were not taken.
#[derive(Default)]
struct Taken {
    train: BTreeSet<String>,
    test: BTreeSet<String>,
    left_out: Vec<String>,
}

impl Taken {
    /// The training images and the test images of the dataset or of a device.
    fn take(
        &mut self,
        found: &mut Found<'_>,
        device: &str,
        splits: &Splits,
    ) -> Result<(Group, Option<Group>), DataError> {
        let whose = if device.is_empty() { String::new() } else { format!("{device}/") };
        let (name, path) = &splits.train;
        let train = found.group(device, path)?;
        self.train.insert(name.clone());
        let test = splits.test.as_ref().map(|(name, path)| {
            self.test.insert(name.clone());
            found.group(device, path)
        });
        if let (Some(validation), Some((test, _))) = (&splits.validation, &splits.test) {
            self.left_out
                .push(format!("'{whose}{validation}' left out: devices are tested on '{whose}{test}'"));
        }
        for other in &splits.others {
            self.left_out.push(format!("'{whose}{other}' left out: it is called neither train nor test"));
        }
        Ok((train, test.transpose()?))
    }
}

/// What was taken as what, in words.
fn describe(layout: Layout, groups: usize, train: &BTreeSet<String>, test: &BTreeSet<String>) -> String {
    let names = |names: &BTreeSet<String>| {
        names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" and ")
    };
    let parts = match test.is_empty() {
        true => format!("trained on {}, no test images of its own", names(train)),
        false => format!("trained on {}, tested on {}", names(train), names(test)),
    };
    match layout {
        Layout::Splits => parts,
        Layout::Classes => "a folder for each class".into(),
        Layout::Devices => format!("a folder for each of {groups} devices"),
        Layout::DeviceSplits => format!("a folder for each of {groups} devices, {parts}"),
    }
}

/// Classes with test images and without training images, which a device is then not tested on.
fn untrained(train: &[Group], test: &[Group]) -> Option<String> {
    let mut classes = Vec::new();
    for (train, test) in train.iter().zip(test) {
        let whose = if test.name.is_empty() { String::new() } else { format!(" of '{}'", test.name) };
        let unknown =
            test.classes.iter().filter(|(class, _)| train.classes.iter().all(|(known, _)| known != class));
        classes.extend(unknown.map(|(class, files)| format!("'{class}'{whose} ({})", files.len())));
    }
    (!classes.is_empty()).then(|| {
        let classes = some(&classes, ", ", "classes");
        format!("test images of a class without training images left out, unless --test-fraction is given: {classes}")
    })
}

/// Numbers the classes by name over all groups and puts the files in one row; the first `train` groups are for training.
/// `None` if there are too many of either.
fn number(layout: Layout, groups: Vec<Group>, train: usize) -> Option<Scan> {
    let mut labels: BTreeMap<String, u16> =
        groups.iter().flat_map(|group| &group.classes).map(|(class, _)| (class.clone(), 0)).collect();
    for (i, label) in labels.values_mut().enumerate() {
        *label = u16::try_from(i).ok()?;
    }
    let (mut files, mut ends) = (Vec::new(), vec![0]);
    let mut names = Vec::new();
    for group in groups {
        for (class, paths) in group.classes {
            let label = labels[&class];
            files.extend(paths.into_iter().map(|path| ImageFile { path, label }));
        }
        ends.push(u32::try_from(files.len()).ok()?);
        names.push(group.name);
    }
    let range = |group: usize| ends[group]..ends[group + 1];
    let devices = match layout {
        Layout::Splits | Layout::Classes => None,
        Layout::Devices | Layout::DeviceSplits => Some(
            (0..train)
                .map(|device| DeviceFolder {
                    name: names[device].clone(),
                    train: range(device),
                    test: if layout == Layout::Devices { 0..0 } else { range(train + device) },
                })
                .collect(),
        ),
    };
    let (train_len, classes) = (ends[train] as usize, labels.into_keys().collect());
    Some(Scan { classes, files, train_len, devices, notes: Vec::new(), left_out: Vec::new() })
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
