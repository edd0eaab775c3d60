//! A folder of image files as a dataset.

mod found;
mod listing;
mod names;
mod one;
mod read;
mod scan;
mod splits;

use std::path::Path;

use crate::{DataError, Dataset, DeviceFolder, LeftOut, LoadOptions};
pub use one::read_image;
use scan::{ImageFile, Scan};

/// How many broken images an error names.
const NAMED: usize = 10;

/// Reads a folder; see [`scan::Layout`] for its structure, [`decode`] for what is done to the images, and [`read`] for where
/// their pixels are then.
///
/// Images are grey (one channel) if all are grey, otherwise all have three channels. Their order, and so every index,
/// is that of the sorted names: those for training, then those for testing.
pub(crate) fn load(
    dir: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Dataset, DataError> {
    let mut scan = scan::scan(dir)?;
    let mut read = read::all(dir, &scan.files, options, progress)?;
    let mut left_out = LeftOut { files: std::mem::take(&mut scan.left_out), ..LeftOut::default() };
    if !read.broken.is_empty() {
        let broken = name_broken(dir, &scan.files, &read);
        if !options.skip_broken || broken.len() == scan.files.len() {
            return Err(refuse_broken(dir, &broken, scan.files.len(), options.skip_broken));
        }
        let kept: Vec<bool> = read.images.iter().map(Option::is_some).collect();
        remove(&mut scan, &kept);
        if let Some(class) = first_without_image(&scan) {
            return Err(DataError::Folder {
                path: dir.into(),
                problem: format!(
                    "all images of class '{class}' are broken; give it one that is not, or remove its folder"
                ),
            });
        }
        left_out.broken = broken;
    }
    let labels = scan.files.iter().map(|file| file.label).collect();
    let Scan { classes, train_len, devices, notes, .. } = scan;
    Ok(Dataset {
        name: "folder".into(),
        classes,
        images: read.take(labels)?,
        train_len,
        devices,
        note: Some(format!("{} ({}){}", dir.display(), notes.join("; "), left_out.summary())),
        left_out,
    })
}

/// The broken files as they are called in the folder, and what is wrong with them.
fn name_broken(dir: &Path, files: &[ImageFile], read: &read::Read) -> Vec<(String, String)> {
    let named = |&(at, ref why): &(usize, String)| {
        let path = &files[at].path;
        (path.strip_prefix(dir).unwrap_or(path).display().to_string(), why.clone())
    };
    read.broken.iter().map(named).collect()
}

fn refuse_broken(dir: &Path, broken: &[(String, String)], all: usize, skips: bool) -> DataError {
    let shown: Vec<String> = broken.iter().take(NAMED).map(|(name, why)| format!("{name} ({why})")).collect();
    let more = match broken.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    DataError::Broken {
        path: dir.into(),
        count: broken.len(),
        all,
        list: shown.join(", ") + &more,
        advice: if skips { "" } else { "; or leave them out with --skip-broken" },
    }
}

/// Takes files out that are not `kept`.
fn remove(scan: &mut Scan, kept: &[bool]) {
    let mut before = vec![0u32];
    for &kept in kept {
        before.push(before[before.len() - 1] + u32::from(kept));
    }
    let mut keep = kept.iter();
    scan.files.retain(|_| *keep.next().expect("one for each file"));
    scan.train_len = before[scan.train_len] as usize;
    for DeviceFolder { train, test, .. } in scan.devices.iter_mut().flatten() {
        for range in [train, test] {
            *range = before[range.start as usize]..before[range.end as usize];
        }
    }
}

fn first_without_image(scan: &Scan) -> Option<&str> {
    let mut has = vec![false; scan.classes.len()];
    scan.files.iter().for_each(|file| has[usize::from(file.label)] = true);
    has.iter().position(|&has| !has).map(|class| scan.classes[class].as_str())
}
