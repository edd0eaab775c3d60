//! Downloading the official files of a dataset.
//!
//! Files are downloaded to `CACHE/NAME.download/`, checked, unpacked to a temporary folder there and only then moved to
//! `CACHE/NAME/`, so that what lies there is whole. A download that was interrupted goes on where it stopped.

mod download;
mod unpack;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::io;
use crate::load::find_info;
use crate::{Archive, DataError, DatasetInfo, cache_dir};
use download::Remote;

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file's name.
    pub file: &'a str,
    /// Bytes received, earlier attempts included.
    pub done: u64,
    /// Bytes of the whole file.
    pub total: u64,
}

/// Where to download from and to.
#[derive(Clone, Copy, Debug, Default)]
pub struct FetchOptions<'a> {
    /// The folder to keep datasets in instead of [`cache_dir`].
    pub cache: Option<&'a Path>,
    /// Where the files lie instead of at their official addresses: a mirror's address, to which a slash and a file's
    /// name are added. The checksums stay the official ones.
    pub base_url: Option<&'a str>,
}

/// Downloads a dataset from its official address to the cache, unless it is there already, and returns its folder.
///
/// # Errors
/// If there is nothing to download under this name, the network or the disk fails, or a file is not the official one.
pub fn fetch(name: &str, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, DataError> {
    fetch_with(name, FetchOptions::default(), progress)
}

/// Like [`fetch`], from or to another place.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_with(
    name: &str,
    options: FetchOptions<'_>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, DataError> {
    let info = find_info(name)?;
    if info.archives.is_empty() {
        return Err(DataError::NothingToFetch { dataset: info.name, looked_for: info.looked_for });
    }
    let cache = options.cache.map(PathBuf::from).or_else(cache_dir).ok_or(DataError::NoCache)?;
    let remotes: Vec<Remote> =
        info.archives.iter().map(|archive| remote(archive, options.base_url)).collect();
    fetch_remotes(info, &remotes, &cache, progress)
}

fn remote(archive: &Archive, base_url: Option<&str>) -> Remote {
    let file = archive.url.rsplit('/').next().unwrap_or(archive.url);
    Remote {
        url: base_url.map_or(archive.url.into(), |base| format!("{}/{file}", base.trim_end_matches('/'))),
        file: file.into(),
        bytes: archive.bytes,
        sha256: archive.sha256.into(),
    }
}

fn fetch_remotes(
    info: &DatasetInfo,
    remotes: &[Remote],
    cache: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, DataError> {
    let folder = cache.join(info.cache_folder());
    // What must be there in the end: the archive's subfolder, or the files as they are.
    let items: Vec<&str> = match info.subfolder {
        Some(subfolder) => vec![subfolder],
        None => remotes.iter().map(|remote| remote.file.as_str()).collect(),
    };
    if items.iter().all(|item| folder.join(item).exists()) {
        return Ok(folder);
    }
    let work = cache.join(format!("{}.download", info.cache_folder()));
    fs::create_dir_all(&work).map_err(io("create the folder", &work))?;
    let lock_path = work.join("lock");
    let lock = File::create(&lock_path).map_err(io("create", &lock_path))?;
    // Two downloads into one file would spoil each other; the lock ends with the process.
    lock.try_lock().map_err(|_| DataError::FetchBusy { dataset: info.name.into() })?;

    let by_hand = match info.subfolder {
        Some(subfolder) => format!("download it elsewhere, unpack it, and put the folder {subfolder} into"),
        None => "download its files elsewhere and put them, as they are, into".into(),
    };
    let by_hand = format!("or {by_hand} {}", folder.display());
    for remote in remotes {
        download::download(remote, &work, &by_hand, progress)?;
    }

    let stage = match info.subfolder {
        Some(_) => {
            let stage = work.join("unpacked");
            if stage.exists() {
                fs::remove_dir_all(&stage).map_err(io("remove the folder", &stage))?;
            }
            for remote in remotes {
                unpack::unpack(&work.join(&remote.file), &stage)?;
            }
            stage
        }
        None => work.clone(),
    };
    fs::create_dir_all(&folder).map_err(io("create the folder", &folder))?;
    for item in items {
        let (from, to) = (stage.join(item), folder.join(item));
        fs::rename(&from, &to).map_err(io("move what was downloaded to", &to))?;
    }
    fs::remove_dir_all(&work).map_err(io("remove the folder", &work))?;
    Ok(folder)
}

#[cfg(test)]
mod tests;
