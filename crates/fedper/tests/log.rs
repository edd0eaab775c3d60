//! A server and a client whose standard error cannot be written: a full disk, a pipe that nobody reads any more. They go on,
//! and end when they are asked to. The SuperLink here is a stand-in that has no node, and no message for any.
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fedper_flower::proto;

/// Answers whatever is asked, and counts the calls of each program that show that it is at work.
fn superlink() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let calls = Arc::new(AtomicU32::new(0));
    let counter = calls.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let counter = counter.clone();
            std::thread::spawn(move || serve(connection, &counter));
        }
    });
    (url, calls)
}

fn serve(mut connection: TcpStream, calls: &AtomicU32) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|&read| read > 0)?;
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let path = first.split(' ').nth(1)?;
        let answer = match path.trim_start_matches("/v1/") {
            "control/start-run" => {
                proto::encode(&proto::StartRunResponse { run_id: Some(1), ..Default::default() })
            }
            // None before a run was started.
            "runtime/acquire-task" => {
                let task = proto::Task { task_id: 1, run_id: 1, ..Default::default() };
                proto::encode(&proto::AcquireTaskResponse { task: Some(task), token: "token".into() })
            }
            "runtime/get-nodes" | "fleet/pull-messages" => {
                calls.fetch_add(1, Ordering::Relaxed);
                Vec::new()
            }
            "fleet/register-node" | "fleet/activate-node" => proto::encode(&proto::NodeId { node_id: 7 }),
            _ => Vec::new(),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        connection.write_all(&[head.as_bytes(), &answer].concat()).ok()?;
    }
}

/// Starts `command` with a standard error that fails in this way.
fn spawn(mut command: Command, fails: &str) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    match fails {
        "a full disk" => {
            command.stderr(File::options().write(true).open("/dev/full").unwrap()).spawn().unwrap()
        }
        "a closed pipe" => {
            let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
            drop(child.stderr.take());
            child
        }
        other => panic!("no failure {other}"),
    }
}

/// It works for a while, and then ends when it is asked to.
fn works_and_ends(mut child: Child, calls: &AtomicU32, what: &str) {
    let start = Instant::now();
    while calls.load(Ordering::Relaxed) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: it does not begin");
        sleep(Duration::from_millis(20));
    }
    // By now it has had something to say: that a node is online, that devices are waited for.
    sleep(Duration::from_millis(3500));
    let before = calls.load(Ordering::Relaxed);
    sleep(Duration::from_millis(3500));
    let after = calls.load(Ordering::Relaxed);
    let status = child.try_wait().unwrap();
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let end = Instant::now();
    while child.try_wait().unwrap().is_none() && end.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(20));
    }
    let ended = child.try_wait().unwrap();
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(status, None, "{what}: it has ended");
    assert!(after > before && killed.success(), "{what}: it does nothing any more");
    let code = ended.unwrap_or_else(|| panic!("{what}: it does not end")).code();
    assert!(matches!(code, Some(0 | 130)), "{what}: {code:?}");
}

#[test]
fn a_server_and_a_client_outlive_their_log() {
    let config = "model = 'mlp'\nclients = 3\nalgorithm = ['fedper']\nrounds = 3\n";
    std::thread::scope(|scope| {
        for fails in ["a full disk", "a closed pipe"] {
            for program in ["server", "client"] {
                scope.spawn(move || {
                    let place = tempfile::tempdir().unwrap();
                    let path = |name: &str| place.path().join(name);
                    std::fs::write(path("exp.toml"), config).unwrap();
                    let (url, calls) = superlink();
                    let mut command = common::fedper(&[program, "--superlink", &url]);
                    match program {
                        "server" => {
                            command.arg("--config").arg(path("exp.toml")).arg("--out").arg(path("run"))
                        }
                        _ => command.arg("--state").arg(path("state")).args(["--device", "0"]),
                    };
                    works_and_ends(spawn(command, fails), &calls, &format!("{program}, {fails}"));
                });
            }
        }
    });
}
