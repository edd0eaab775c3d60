//! What is found in class folders on the way, and what of it is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::listing::{Counts, Listing, files, unread_images};
use super::names;
use crate::DataError;
use crate::decode::formats;

/// How many folders an error or a note names.
const NAMED: usize = 5;

/// Classes with their files; a group is a split, a device, or a device's split.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) classes: Vec<(String, Vec<PathBuf>)>,
}

/// What is noticed while class folders are listed.
pub(super) struct Found<'a> {
    dir: &'a Path,
    /// Class folders without any image that can be read, and what is in them.
    unreadable: Vec<String>,
    /// Class folders with nothing in them: the class and the folder.
    empty: Vec<(String, String)>,
    /// Files that are left out.
    others: Counts,
    /// A folder with such an image.
    other_images_in: Option<String>,
    /// Images that lie outside of class folders, and one of them.
    loose: (usize, Option<String>),
    /// Folders inside of class folders.
    nested: Vec<String>,
    /// Sentences.
    pub(super) left_out: Vec<String>,
}

impl<'a> Found<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            unreadable: Vec::new(),
            empty: Vec::new(),
            others: Counts::new(),
            other_images_in: None,
            loose: (0, None),
            nested: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// A path as it is called in the dataset's folder.
    pub(super) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.dir).unwrap_or(path).display().to_string()
    }

    /// Notices files that lie beside class folders.
    pub(super) fn beside(&mut self, listing: &Listing, path: &Path) {
        let images =
            listing.images.len() + unread_images(&listing.others).map(|(_, count)| count).sum::<usize>();
        if images > 0 {
            self.loose.0 += images;
            let shown = listing.images.first().map_or(path, PathBuf::as_path);
            self.loose.1.get_or_insert(shown.strip_prefix(self.dir).unwrap_or(shown).display().to_string());
        }
    }

    /// The class folders of `path` that hold images, sorted.
    pub(super) fn group(&mut self, name: &str, path: &Path) -> Result<Group, DataError> {
        let listing = Listing::of(path)?;
        self.beside(&listing, path);
        let mut classes = Vec::new();
        for (class, path) in listing.folders {
            let inner = Listing::of(&path)?;
            let relative = self.relative(&path);
            if inner.is_empty() {
                self.empty.push((class, relative));
            } else if inner.images.is_empty() {
                self.unreadable.push(format!("'{relative}' holds {}", inner.complaint()));
            } else {
                let nested: Vec<String> = inner.folders.iter().map(|(_, path)| self.relative(path)).collect();
                self.nested.extend(nested);
                if unread_images(&inner.others).next().is_some() {
                    self.other_images_in.get_or_insert(relative);
                }
                for (ending, count) in inner.others {
                    *self.others.entry(ending).or_default() += count;
                }
                classes.push((class, inner.images));
            }
        }
        Ok(Group { name: name.into(), classes })
    }

    /// What is wrong with the classes of all groups together, in words.
    pub(super) fn check<'g>(&self, groups: impl Iterator<Item = &'g Group>) -> Result<(), String> {
        if !self.unreadable.is_empty() {
            return Err(format!(
                "there is no {} image in a class folder: {}",
                formats::READ_NAMES,
                some(&self.unreadable, "; ", "folders")
            ));
        }
        let mut spelled: BTreeMap<String, &str> = BTreeMap::new();
        for (class, _) in groups.flat_map(|group| &group.classes) {
            let known = *spelled.entry(names::key(class)).or_insert(class);
            if known != class {
                return Err(format!(
                    "'{known}' and '{class}' would be two classes, and their names differ only in capitals, in spaces \
                     around them, or in how accents are stored: give the folders of one class the same name everywhere"
                ));
            }
        }
        let known = |class: &str| spelled.contains_key(&names::key(class));
        if let Some((_, folder)) = self.empty.iter().find(|(class, _)| !known(class)) {
            return Err(format!(
                "'{folder}' is empty, and no other folder holds images of that class: put images there, or remove it"
            ));
        }
        Ok(())
    }

    /// What is left out that people may miss, a sentence each; and what else there is to say.
    pub(super) fn sentences(self) -> (Vec<String>, Vec<String>) {
        let (mut missed, mut said) = (self.left_out, Vec::new());
        for (ending, &count) in unread_images(&self.others) {
            let place = self.other_images_in.as_deref().unwrap_or_default();
            missed.push(format!(
                "{} left out, such as in {place}: {}",
                files(ending, count),
                formats::convert(ending)
            ));
        }
        if let (count, Some(example)) = self.loose {
            let plural = if count == 1 { "" } else { "s" };
            missed
                .push(format!("{count} image{plural} outside of class folders left out, such as {example}"));
        }
        if !self.nested.is_empty() {
            let nested = some(&self.nested, ", ", "folders");
            missed.push(format!("folders inside of class folders left out: {nested}"));
        }
        if !self.empty.is_empty() {
            let empty: Vec<String> = self.empty.into_iter().map(|(_, folder)| folder).collect();
            said.push(format!("nothing in {}", some(&empty, ", ", "folders")));
        }
        let plain = self.others.iter().filter(|(ending, _)| !formats::is_other_image(&ending.to_lowercase()));
        let plain: Vec<String> = plain.map(|(ending, &count)| files(ending, count)).collect();
        if !plain.is_empty() {
            said.push(format!("left out, no images: {}", plain.join(", ")));
        }
        (missed, said)
    }
}

/// The first of them, and how many more there are.
pub(super) fn some(all: &[String], between: &str, what: &str) -> String {
    let mut text = all[..all.len().min(NAMED)].join(between);
    if all.len() > NAMED {
        text += &format!("{between}and {} more {what}", all.len() - NAMED);
    }
    text
}
