//! Which image files a folder holds, and what its structure says about them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::io;
use crate::{DataError, DeviceFolder};

/// The three structures there are. Names that begin with a dot, and files that are not `.jpg`, `.jpeg` or `.png` (in
/// any case), are passed over everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `train/CLASS/*`, and `test/CLASS/*` if there is a test split. Other folders beside `train` are passed over.
    Splits,
    /// `CLASS/*`: one split.
    Classes,
    /// `DEVICE/CLASS/*`: a folder for each device.
    Devices,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Splits => "train and test folders",
            Self::Classes => "a folder for each class",
            Self::Devices => "a folder for each device",
        })
    }
}

/// One image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImageFile {
    pub(super) path: PathBuf,
    pub(super) label: u16,
}

/// All image files of a folder, in order.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) layout: Layout,
    pub(super) classes: Vec<String>,
    pub(super) files: Vec<ImageFile>,
    pub(super) train_len: usize,
    pub(super) devices: Option<Vec<DeviceFolder>>,
}

/// Classes with their files; a group is a split or a device.
struct Group {
    name: String,
    classes: Vec<(String, Vec<PathBuf>)>,
}

/// Finds the structure and the files.
///
/// # Errors
/// If the folder cannot be read or has none of the structures.
pub(super) fn scan(dir: &Path) -> Result<Scan, DataError> {
    let refuse = |problem: String| DataError::Folder { path: dir.into(), problem };
    let top = Listing::of(dir)?;
    let (layout, groups) = if top.folders.iter().any(|(name, _)| name == "train") {
        let mut groups = Vec::new();
        for split in ["train", "test"] {
            if let Some((name, path)) = top.folders.iter().find(|(name, _)| name == split) {
                groups.push(Group::of(name, path)?);
            }
        }
        (Layout::Splits, groups)
    } else {
        let whole = Group::of("", dir)?;
        if whole.classes.is_empty() {
            let groups: Result<Vec<_>, _> =
                top.folders.iter().map(|(name, path)| Group::of(name, path)).collect();
            (Layout::Devices, groups?)
        } else if let Some((name, _)) =
            top.folders.iter().find(|(name, _)| whole.classes.iter().all(|(class, _)| class != name))
        {
            return Err(refuse(format!("'{name}' holds no image file, while '{}' does", whole.classes[0].0)));
        } else {
            (Layout::Classes, vec![whole])
        }
    };
    // The first group is the train split, or a device: without samples neither is of use.
    let empty = groups.iter().position(|group| group.classes.is_empty());
    match empty {
        Some(at) if !(layout == Layout::Splits && at == 1) => {
            return Err(refuse(format!("'{}' has no class folder with image files", groups[at].name)));
        }
        _ if groups.is_empty() => return Err(refuse("it holds no class folder with image files".into())),
        _ => {}
    }
    number(layout, groups).ok_or_else(|| refuse("it has more than 65536 classes or 4294967295 files".into()))
}

/// Numbers the classes by name over all groups and puts the files in one row; `None` if there are too many of either.
fn number(layout: Layout, groups: Vec<Group>) -> Option<Scan> {
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
    let devices = (layout == Layout::Devices).then(|| {
        let ranges = ends.windows(2).map(|pair| pair[0]..pair[1]);
        names.into_iter().zip(ranges).map(|(name, samples)| DeviceFolder { name, samples }).collect()
    });
    let train_len = if layout == Layout::Splits { ends[1] as usize } else { files.len() };
    Some(Scan { layout, classes: labels.into_keys().collect(), files, train_len, devices })
}

impl Group {
    /// The class folders of `path` that hold image files, sorted.
    fn of(name: &str, path: &Path) -> Result<Self, DataError> {
        let mut classes = Vec::new();
        for (class, path) in Listing::of(path)?.folders {
            let images = Listing::of(&path)?.images;
            if !images.is_empty() {
                classes.push((class, images));
            }
        }
        Ok(Self { name: name.into(), classes })
    }
}

/// What one folder holds, sorted by name.
struct Listing {
    folders: Vec<(String, PathBuf)>,
    images: Vec<PathBuf>,
}

impl Listing {
    fn of(path: &Path) -> Result<Self, DataError> {
        let mut entries = Vec::new();
        for entry in path.read_dir().map_err(io("list the folder", path))? {
            entries.push(entry.map_err(io("list the folder", path))?.path());
        }
        entries.sort();
        let mut listing = Self { folders: Vec::new(), images: Vec::new() };
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if name.starts_with('.') {
                continue;
            } else if path.is_dir() {
                listing.folders.push((name, path));
            } else if matches!(extension.as_str(), "jpg" | "jpeg" | "png") {
                listing.images.push(path);
            }
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    fn scanned(files: &[&str]) -> (Scan, Vec<(String, u16)>) {
        let dir = tree(files);
        let scan = scan(dir.path()).unwrap();
        let relative = |file: &ImageFile| file.path.strip_prefix(dir.path()).unwrap().display().to_string();
        let files = scan.files.iter().map(|file| (relative(file), file.label)).collect();
        (scan, files)
    }

    fn owned(files: &[(&str, u16)]) -> Vec<(String, u16)> {
        files.iter().map(|&(path, label)| (path.into(), label)).collect()
    }

    #[test]
    fn train_and_test_folders() {
        let (scan, files) = scanned(&[
            "train/dog/2.JPG",
            "train/dog/10.png",
            "train/cat/1.jpeg",
            "test/ant/1.png",
            "test/dog/.hidden.png",
            "test/dog/3.png",
            "train/dog/notes.txt",
            "extra/x/1.png",
            "train/.git/x.png",
        ]);
        assert_eq!(scan.layout, Layout::Splits);
        assert_eq!(scan.classes, ["ant", "cat", "dog"]);
        assert_eq!(
            files,
            owned(&[
                ("train/cat/1.jpeg", 1),
                ("train/dog/10.png", 2),
                ("train/dog/2.JPG", 2),
                ("test/ant/1.png", 0),
                ("test/dog/3.png", 2),
            ])
        );
        assert_eq!((scan.train_len, scan.devices), (3, None));
    }

    #[test]
    fn a_folder_for_each_device() {
        let (scan, files) = scanned(&[
            "phone-2/a/1.png",
            "phone-1/b/1.png",
            "phone-1/a/2.png",
            "phone-1/a/1.png",
            "README.md",
        ]);
        assert_eq!(scan.layout, Layout::Devices);
        assert_eq!(scan.classes, ["a", "b"]);
        let expected =
            [("phone-1/a/1.png", 0), ("phone-1/a/2.png", 0), ("phone-1/b/1.png", 1), ("phone-2/a/1.png", 0)];
        assert_eq!(files, owned(&expected));
        let device = |name: &str, samples| DeviceFolder { name: name.into(), samples };
        assert_eq!(scan.devices.unwrap(), [device("phone-1", 0..3), device("phone-2", 3..4)]);
        assert_eq!(scan.train_len, 4);
    }

    #[test]
    fn a_folder_for_each_class() {
        let (scan, files) = scanned(&["b/1.png", "a/1.png"]);
        assert_eq!(scan.layout, Layout::Classes);
        assert_eq!(files, owned(&[("a/1.png", 0), ("b/1.png", 1)]));
        assert_eq!((scan.train_len, scan.devices), (2, None));
    }

    #[test]
    fn other_structures_are_refused() {
        for (files, said) in [
            (&[][..], "no class folder"),
            (&["1.png"], "no class folder"),
            (&["a/b/c/1.png"], "'a' has no class folder"),
            (&["a/1.png", "b/x/1.png"], "'b' holds no image file, while 'a' does"),
            (&["train/1.png"], "'train' has no class folder"),
            (&["train/a/x.gif", "test/a/1.png"], "'train' has no class folder"),
            (&["a/x/1.png", "b/x/1.gif"], "'b' has no class folder"),
        ] {
            let message = scan(tree(files).path()).unwrap_err().to_string();
            assert!(message.contains(said) && message.contains("DIR/train/CLASS"), "{files:?}: {message}");
        }
        let missing = tempfile::tempdir().unwrap().path().join("nothing");
        assert!(scan(&missing).unwrap_err().to_string().contains("nothing"));
    }
}
