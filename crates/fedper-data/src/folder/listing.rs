//! What one folder holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::DataError;
use crate::decode::formats;
use crate::error::io;

/// How many files there are by the end of their names, as it is written there; empty for names without one.
pub(super) type Counts = BTreeMap<String, usize>;

/// What one folder holds, sorted by name, without what is nobody's data ([`formats::is_hidden`]).
#[derive(Default)]
pub(super) struct Listing {
    pub(super) folders: Vec<(String, PathBuf)>,
    /// Images that can be read.
    pub(super) images: Vec<PathBuf>,
    /// All other files, but for images whose like in a format that is read lies beside them.
    pub(super) others: Counts,
}

impl Listing {
    /// # Errors
    /// If the folder cannot be listed.
    pub(super) fn of(path: &Path) -> Result<Self, DataError> {
        let mut entries = Vec::new();
        for entry in path.read_dir().map_err(io("list the folder", path))? {
            entries.push(entry.map_err(io("list the folder", path))?.path());
        }
        entries.sort();
        let mut listing = Self::default();
        let mut others = Vec::new();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if formats::is_hidden(&name) {
                continue;
            } else if path.is_dir() {
                listing.folders.push((name, path));
            } else if formats::is_read(&extension.to_lowercase()) {
                listing.images.push(path);
            } else {
                others.push((path, extension));
            }
        }
        let read: BTreeSet<_> = listing.images.iter().map(|path| path.with_extension("")).collect();
        for (path, extension) in others {
            let converted = formats::is_other_image(&extension.to_lowercase())
                && (read.contains(&path.with_extension("")) || read.contains(&path));
            if !converted {
                *listing.others.entry(extension).or_default() += 1;
            }
        }
        Ok(listing)
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.images.is_empty() && self.others.is_empty()
    }

    /// Whether there are image files in it, of whatever format.
    pub(super) fn has_images(&self) -> bool {
        !self.images.is_empty() || unread_images(&self.others).next().is_some()
    }

    /// What is in a folder without any image that can be read, and what to do about it.
    pub(super) fn complaint(&self) -> String {
        let mut found: Vec<String> =
            self.others.iter().map(|(ending, &count)| files(ending, count)).collect();
        if !self.folders.is_empty() {
            let plural = if self.folders.len() == 1 { "" } else { "s" };
            found.push(format!("{} folder{plural}", self.folders.len()));
        }
        let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
        let most = unread_images(&self.others).max_by_key(|&(_, &count)| count);
        let advice = match most {
            Some((ending, _)) => formats::convert(ending),
            None => "put images there, or remove the folder if it is no class".into(),
        };
        format!("{found}; {advice}")
    }
}

/// Those of the files that are images of formats that are not read.
pub(super) fn unread_images(counts: &Counts) -> impl Iterator<Item = (&String, &usize)> {
    counts.iter().filter(|(ending, _)| formats::is_other_image(&ending.to_lowercase()))
}

/// So many files of that kind, in words.
pub(super) fn files(ending: &str, count: usize) -> String {
    let plural = if count == 1 { "" } else { "s" };
    match ending {
        "" => format!("{count} file{plural} whose name has no ending"),
        ending => format!("{count} .{ending} file{plural}"),
    }
}
