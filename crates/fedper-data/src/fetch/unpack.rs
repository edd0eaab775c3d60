//! Unpacking a `.tar.gz`.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType};

use crate::DataError;
use crate::error::io;

/// More than any archive of the catalogue unpacks to (CIFAR: 185 MB).
const MOST_BYTES: u64 = 1 << 30;

/// Unpacks files and folders into `to`.
///
/// # Errors
/// If the archive is damaged, holds anything else than files and folders below itself, or unpacks to too much.
pub(super) fn unpack(archive: &Path, to: &Path) -> Result<(), DataError> {
    let refuse = |expected: &str, found: String| DataError::Format {
        file: archive.display().to_string(),
        format: "a .tar.gz archive",
        expected: expected.into(),
        found,
    };
    fs::create_dir_all(to).map_err(io("create the folder", to))?;
    let file = File::open(archive).map_err(io("open", archive))?;
    let stream = GzDecoder::new(BufReader::new(file)).take(MOST_BYTES);
    let mut tar = Archive::new(stream);
    for entry in tar.entries().map_err(|e| refuse("entries", e.to_string()))? {
        let mut entry = entry.map_err(|e| refuse("whole entries", e.to_string()))?;
        let path = entry.path().map_err(|e| refuse("a path", e.to_string()))?.into_owned();
        let inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        let plain = matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Directory);
        if !inside || !plain {
            return Err(refuse(
                "files and folders below itself",
                format!("{:?} {}", entry.header().entry_type(), path.display()),
            ));
        }
        let unpacked = entry.unpack_in(to).map_err(|e| refuse("whole entries", e.to_string()))?;
        if !unpacked {
            return Err(refuse("files and folders below itself", path.display().to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    /// An archive with one entry; the name is written raw, since `tar` refuses to make a bad one.
    pub(super) fn archive(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if kind == EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), DataError>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        fs::write(&path, bytes).unwrap();
        let result = unpack(&path, &dir.path().join("to"));
        (dir, result)
    }

    #[test]
    fn a_file_is_unpacked() {
        let (dir, result) = unpacked(&archive("sub/x.bin", EntryType::Regular, b"hello"));
        result.unwrap();
        assert_eq!(fs::read(dir.path().join("to/sub/x.bin")).unwrap(), b"hello");
    }

    #[test]
    fn what_reaches_outside_is_refused() {
        for (name, kind) in [
            ("../evil", EntryType::Regular),
            ("a/../../evil", EntryType::Regular),
            ("/tmp/evil", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("link", EntryType::Link),
            ("fifo", EntryType::Fifo),
        ] {
            let (dir, result) = unpacked(&archive(name, kind, b""));
            let message = result.unwrap_err().to_string();
            assert!(message.contains("below itself"), "{name}: {message}");
            assert!(!dir.path().join("evil").exists());
        }
    }

    #[test]
    fn a_damaged_archive_is_refused() {
        let whole = archive("x.bin", EntryType::Regular, &[7; 5000]);
        for bad in [&b"not an archive"[..], &whole[..whole.len() / 2]] {
            assert!(unpacked(bad).1.is_err());
        }
    }
}
