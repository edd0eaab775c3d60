//! Downloads from a server on this machine, whole and broken.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use flate2::{Compression, write::GzEncoder};

use super::*;
use sha2::{Digest, Sha256};

/// How the server answers one request.
#[derive(Clone)]
enum Answer {
    /// The whole content.
    Whole(Vec<u8>),
    /// The header of the whole content, and only its first bytes.
    Cut(Vec<u8>, usize),
    /// From where the request asks.
    Continue(Vec<u8>),
    /// No content.
    Status(u16),
}

/// Answers one request after the other; returns its address and the `Range` of each request.
fn serve(answers: Vec<Answer>) -> (String, mpsc::Receiver<Option<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, ranges) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut range = None;
            for line in BufReader::new(&stream).lines().map(Result::unwrap) {
                let line = line.to_lowercase();
                if let Some(from) = line.strip_prefix("range: bytes=") {
                    range = Some(from.trim_end_matches('-').parse().unwrap());
                }
                if line.is_empty() {
                    break;
                }
            }
            sender.send(range).unwrap();
            let (status, content, sent) = match &answer {
                Answer::Whole(content) => ("200 OK".into(), &content[..], content.len()),
                Answer::Cut(content, sent) => ("200 OK".into(), &content[..], *sent),
                Answer::Continue(content) => {
                    let from = range.unwrap();
                    let header = format!(
                        "206 Partial\r\nContent-Range: bytes {from}-{}/{}",
                        content.len() - 1,
                        content.len()
                    );
                    (header, &content[from..], content.len() - from)
                }
                Answer::Status(status) => (format!("{status} No"), &[][..], 0),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                content.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&content[..sent]).unwrap();
        }
    });
    (url, ranges)
}

fn remote(url: &str, file: &str, content: &[u8]) -> Remote {
    Remote {
        url: format!("{url}/{file}"),
        file: file.into(),
        bytes: content.len() as u64,
        sha256: crate::hex(&Sha256::digest(content)),
    }
}

/// Content that differs everywhere.
fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A dataset with one plain file, or one archive.
fn info(name: &str) -> &'static DatasetInfo {
    find_info(name).unwrap()
}

fn get(dataset: &str, remotes: &[Remote], cache: &Path) -> (Result<PathBuf, String>, Vec<u64>) {
    let mut seen = Vec::new();
    let result = fetch_remotes(info(dataset), remotes, cache, &mut |progress| {
        assert!(progress.done <= progress.total);
        seen.push(progress.done);
    });
    (result.map_err(|e| e.to_string()), seen)
}

#[test]
fn a_file_is_fetched_once() {
    let (cache, content) = (tempfile::tempdir().unwrap(), content(300_000));
    let (url, _ranges) = serve(vec![Answer::Whole(content.clone())]);
    let remotes = [remote(&url, "train.gz", &content)];
    let (result, seen) = get("mnist", &remotes, cache.path());
    let folder = result.unwrap();
    assert_eq!(fs::read(folder.join("train.gz")).unwrap(), content);
    assert_eq!(seen.last(), Some(&300_000));
    assert!(seen.is_sorted() && seen.len() > 1);
    assert!(!cache.path().join("mnist.download").exists());
    // The server is gone by now: a second request would fail.
    assert_eq!(get("mnist", &remotes, cache.path()).0.unwrap(), folder);
}

#[test]
fn an_archive_is_unpacked_to_its_subfolder() {
    let cache = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder.append_data(&mut header, "cifar-10-batches-bin/test_batch.bin", &b"abc"[..]).unwrap();
    let archive = builder.into_inner().unwrap().finish().unwrap();
    let (url, _ranges) = serve(vec![Answer::Whole(archive.clone())]);
    let (result, _) = get("cifar10", &[remote(&url, "cifar-10-binary.tar.gz", &archive)], cache.path());
    let folder = result.unwrap();
    assert_eq!(fs::read(folder.join("cifar-10-batches-bin/test_batch.bin")).unwrap(), b"abc");
    assert!(!cache.path().join("cifar10.download").exists());
}

#[test]
fn a_wrong_checksum_keeps_nothing() {
    let (cache, content) = (tempfile::tempdir().unwrap(), content(5000));
    let mut other = content.clone();
    other[4000] ^= 1;
    let longer = [&content[..], &[0]].concat();
    let (url, ranges) =
        serve(vec![Answer::Whole(other), Answer::Whole(longer), Answer::Whole(content.clone())]);
    let remotes = [remote(&url, "train.gz", &content)];
    for _ in 0..2 {
        let message = get("mnist", &remotes, cache.path()).0.unwrap_err();
        assert!(message.contains("SHA-256") && message.contains(&remotes[0].sha256), "{message}");
        assert!(!cache.path().join("mnist/train.gz").exists());
    }
    get("mnist", &remotes, cache.path()).0.unwrap();
    assert_eq!(ranges.iter().collect::<Vec<_>>(), [None; 3]);
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let (cache, content) = (tempfile::tempdir().unwrap(), content(200_000));
    let (url, ranges) = serve(vec![Answer::Cut(content.clone(), 120_000), Answer::Continue(content.clone())]);
    let remotes = [remote(&url, "train.gz", &content)];
    let message = get("mnist", &remotes, cache.path()).0.unwrap_err();
    assert!(message.contains("of 200000 bytes") && message.contains("try again"), "{message}");
    let (result, seen) = get("mnist", &remotes, cache.path());
    assert_eq!(fs::read(result.unwrap().join("train.gz")).unwrap(), content);
    assert_eq!(ranges.iter().collect::<Vec<_>>(), [None, Some(120_000)]);
    assert!(seen[0] > 120_000);
}

#[test]
fn a_server_that_cannot_continue_sends_all_again() {
    let (cache, content) = (tempfile::tempdir().unwrap(), content(200_000));
    let cut = Answer::Cut(content.clone(), 120_000);
    let (url, ranges) = serve(vec![
        cut.clone(),
        Answer::Whole(content.clone()),
        cut,
        Answer::Status(416),
        Answer::Whole(content.clone()),
    ]);
    let remotes = [remote(&url, "train.gz", &content)];
    get("mnist", &remotes, cache.path()).0.unwrap_err();
    let folder = get("mnist", &remotes, cache.path()).0.unwrap();
    assert_eq!(fs::read(folder.join("train.gz")).unwrap(), content);

    fs::remove_dir_all(folder).unwrap();
    get("mnist", &remotes, cache.path()).0.unwrap_err();
    let message = get("mnist", &remotes, cache.path()).0.unwrap_err();
    assert!(message.contains("cannot continue"), "{message}");
    get("mnist", &remotes, cache.path()).0.unwrap();
    assert_eq!(ranges.iter().collect::<Vec<_>>(), [None, Some(120_000), None, Some(120_000), None]);
}

#[test]
fn a_missing_file_and_no_network_say_what_to_do_by_hand() {
    let cache = tempfile::tempdir().unwrap();
    let (url, _ranges) = serve(vec![Answer::Status(404)]);
    let message = get("mnist", &[remote(&url, "train.gz", b"x")], cache.path()).0.unwrap_err();
    assert!(message.contains("status 404") && message.contains("train.gz"), "{message}");

    // A port that nothing listens on.
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let options = FetchOptions { cache: Some(cache.path()), base_url: Some(&url) };
    let message = fetch_with("cifar10", options, &mut |_| ()).unwrap_err().to_string();
    let place = cache.path().join("cifar10").display().to_string();
    assert!(message.contains("cifar-10-binary.tar.gz") && message.contains(&place), "{message}");
    assert!(message.contains("cifar-10-batches-bin") && !message.contains('\n'), "{message}");
}

#[test]
fn one_download_at_a_time() {
    let cache = tempfile::tempdir().unwrap();
    fs::create_dir(cache.path().join("mnist.download")).unwrap();
    let lock = File::create(cache.path().join("mnist.download/lock")).unwrap();
    lock.lock().unwrap();
    let message = get("mnist", &[remote("http://127.0.0.1:1", "x", b"x")], cache.path()).0.unwrap_err();
    assert!(message.contains("another process"), "{message}");
}

#[test]
fn what_cannot_be_fetched_is_refused() {
    for name in ["folder", "fashion-mnist-small"] {
        let message = fetch(name, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains("nothing to download"), "{message}");
    }
    assert!(fetch("cifar11", &mut |_| ()).is_err());
}
