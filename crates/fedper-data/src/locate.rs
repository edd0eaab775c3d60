//! Where a dataset's files lie.

use std::path::{Path, PathBuf};

use crate::{DataError, DatasetInfo};

/// The folder that downloaded datasets are kept in, each in a folder of its name: `$XDG_CACHE_HOME/fedper`, or
/// `~/.cache/fedper`. `None` if the environment names neither.
pub fn cache_dir() -> Option<PathBuf> {
    // The XDG specification: a relative path is to be ignored.
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("fedper"))
}

/// The folder that holds `file` (or `file` with `.gz`) of the dataset: `dir` if given, else the cache, else where the
/// system's packages install it; each with the archive's own subfolder.
///
/// # Errors
/// If no folder does.
pub(crate) fn find(info: &'static DatasetInfo, dir: Option<&Path>, file: &str) -> Result<PathBuf, DataError> {
    let roots: Vec<PathBuf> = match dir {
        Some(dir) => vec![dir.to_path_buf()],
        None => {
            [cache_dir().map(|cache| cache.join(info.cache_folder())), info.system_folder.map(PathBuf::from)]
                .into_iter()
                .flatten()
                .collect()
        }
    };
    let folders: Vec<PathBuf> = roots
        .into_iter()
        .flat_map(|root| {
            let sub = info.subfolder.map(|sub| root.join(sub));
            [Some(root), sub].into_iter().flatten()
        })
        .collect();
    let found = folders.iter().find(|folder| member(folder, file).is_some());
    found.cloned().ok_or_else(|| DataError::NotFound {
        dataset: info.name,
        missing: file.into(),
        looked: folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
        advice: advice(info),
    })
}

/// The path of `file` in `folder`, plain or compressed.
pub(crate) fn member(folder: &Path, file: &str) -> Option<PathBuf> {
    [folder.join(file), folder.join(format!("{file}.gz"))].into_iter().find(|path| path.is_file())
}

/// How to get the dataset.
pub(crate) fn advice(info: &DatasetInfo) -> String {
    let name = "name the folder that holds its files with --data-dir";
    match info.archives {
        [] => format!("{name}; `fedper data list` says where to get them"),
        _ => format!("run `fedper data fetch {}`, or {name}", info.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn files_are_found_in_the_folder_and_in_the_archive_s_subfolder() {
        let info = catalogue().iter().find(|info| info.name == "cifar10").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let message = find(info, Some(dir.path()), "test_batch.bin").unwrap_err().to_string();
        assert!(
            message.contains("fedper data fetch cifar10") && message.contains("cifar-10-batches-bin"),
            "{message}"
        );
        let sub = dir.path().join("cifar-10-batches-bin");
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(sub.join("test_batch.bin"), "").unwrap();
        assert_eq!(find(info, Some(dir.path()), "test_batch.bin").unwrap(), sub);
        assert_eq!(find(info, Some(&sub), "test_batch.bin").unwrap(), sub);
    }
}
