//! One file from the network to the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self as stdio, Read, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::config::AutoHeaderValue;

use super::Progress;
use crate::DataError;
use crate::error::io;

/// A file to download, and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    pub(super) url: String,
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Silence after which a connection counts as dead.
const PATIENCE: Duration = Duration::from_secs(60);

/// Downloads to `folder/FILE`, by way of `folder/FILE.part`, which an interrupted download leaves and the next one
/// continues. `by_hand` says what to do without a network.
pub(super) fn download(
    remote: &Remote,
    folder: &Path,
    by_hand: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), DataError> {
    let whole = folder.join(&remote.file);
    if whole.is_file() {
        // It was checked before it got this name.
        return Ok(());
    }
    let part = folder.join(format!("{}.part", remote.file));
    receive(remote, &part, by_hand, progress)?;
    let sum = sha256(&part)?;
    if sum != remote.sha256 {
        fs::remove_file(&part).map_err(io("remove", &part))?;
        return Err(DataError::Checksum {
            url: remote.url.clone(),
            expected: remote.sha256.clone(),
            found: sum,
        });
    }
    fs::rename(&part, &whole).map_err(io("rename to", &whole))
}

/// Brings `part` to its full length.
fn receive(
    remote: &Remote,
    part: &Path,
    by_hand: &str,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), DataError> {
    let failed = |problem: String| DataError::Fetch {
        url: remote.url.clone(),
        problem,
        advice: format!("try again, {by_hand}"),
    };
    let mut done = fs::metadata(part).map_or(0, |meta| meta.len());
    if done >= remote.bytes {
        // Either whole, which the checksum decides, or not a beginning of this file.
        if done == remote.bytes {
            return Ok(());
        }
        done = 0;
    }
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        // The files are compressed themselves: what is checked must be what was sent.
        .accept_encoding(AutoHeaderValue::Provided("identity".to_string().into()))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .build()
        .into();
    let mut request = agent.get(&remote.url);
    if done > 0 {
        request = request.header("Range", format!("bytes={done}-"));
    }
    let mut response = request.call().map_err(|e| failed(e.to_string()))?;
    let continues =
        |header: Option<&str>| header.is_some_and(|range| range.starts_with(&format!("bytes {done}-")));
    match response.status().as_u16() {
        200 => done = 0,
        206 if continues(response.headers().get("content-range").and_then(|value| value.to_str().ok())) => {}
        206 | 416 => {
            fs::remove_file(part).map_err(io("remove", part))?;
            return Err(failed(format!(
                "the server cannot continue at byte {done}, so the beginning was thrown away"
            )));
        }
        status => return Err(failed(format!("the server answers with status {status}"))),
    }

    let mut file = OpenOptions::new()
        .create(true)
        .append(done > 0)
        .write(true)
        .truncate(done == 0)
        .open(part)
        .map_err(io("write", part))?;
    // One byte more than there should be shows what is too long.
    let mut body = response.body_mut().as_reader().take(remote.bytes - done + 1);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == stdio::ErrorKind::Interrupted => continue,
            Err(e) => {
                return Err(failed(format!(
                    "the connection broke after {done} of {} bytes: {e}",
                    remote.bytes
                )));
            }
        };
        file.write_all(&buffer[..count]).map_err(io("write", part))?;
        done += count as u64;
        progress(Progress { file: &remote.file, done: done.min(remote.bytes), total: remote.bytes });
    }
    file.sync_all().map_err(io("write", part))?;
    if done < remote.bytes {
        return Err(failed(format!("the connection ended after {done} of {} bytes", remote.bytes)));
    }
    Ok(())
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> Result<String, DataError> {
    let mut file = File::open(path).map_err(io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(e) if e.kind() == stdio::ErrorKind::Interrupted => {}
            Err(e) => return Err(io("read", path)(e)),
        }
    }
    Ok(crate::hex(&hasher.finalize()))
}
