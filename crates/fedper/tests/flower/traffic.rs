//! What goes over the wire, recorded by a proxy between everybody and the SuperLink.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Place, free_port, lines, simulated, url, venv, weights};

/// All bytes of every connection, one list a direction and connection.
type Record = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes connections on to `to` and keeps what they carry.
fn proxy(to: u16) -> (u16, Record) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let record = Record::default();
    let all = record.clone();
    std::thread::spawn(move || {
        for from in listener.incoming().flatten() {
            let Ok(to) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
            for (mut source, mut sink) in [(from.try_clone().unwrap(), to.try_clone().unwrap()), (to, from)] {
                let all = all.clone();
                std::thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    let place = {
                        let mut all = all.lock().unwrap();
                        all.push(Vec::new());
                        all.len() - 1
                    };
                    while let Ok(count @ 1..) = source.read(&mut buffer) {
                        // The test may have taken the record away.
                        if let Some(bytes) = all.lock().unwrap().get_mut(place) {
                            bytes.extend_from_slice(&buffer[..count]);
                        }
                        if sink.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = sink.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (port, record)
}

const CONFIG: &str = "model = 'cnn'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 20\nbatch_size = 10\n\
                      personal_layers = 2\nlr = 0.01\n";
const PERSONAL: [&str; 4] = ["fc1.0.weight", "fc1.0.bias", "fc.weight", "fc.bias"];

/// All windows of four neighbouring values (16 bytes) of the weights that devices keep, apart from runs of equal values.
fn windows(dir: &Path, algorithm: &str, names: &[&str]) -> HashSet<[u8; 16]> {
    let mut windows = HashSet::new();
    for file in std::fs::read_dir(dir.join("weights").join(algorithm)).unwrap().flatten() {
        let params = weights(&file.path());
        for (_, values) in params.iter().filter(|(spec, _)| names.contains(&spec.name.as_str())) {
            for four in values.windows(4).filter(|four| four[0].to_bits() != four[1].to_bits()) {
                let mut window = [0; 16];
                for (bytes, value) in window.chunks_exact_mut(4).zip(four) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                windows.insert(window);
            }
        }
    }
    assert!(windows.len() > 1000, "too little to look for");
    windows
}

fn holds(traffic: &[Vec<u8>], windows: &HashSet<[u8; 16]>) -> bool {
    traffic.iter().any(|bytes| bytes.windows(16).any(|window| windows.contains(window)))
}

/// A run of `rounds` rounds of `algorithm` on three client processes; returns all traffic.
fn recorded(place: &Place, algorithm: &str, rounds: u32) -> Vec<Vec<u8>> {
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let (port, record) = proxy(port);
    let config = format!("{CONFIG}algorithm = ['{algorithm}']\nrounds = {rounds}");
    let _clients = [0, 1, 2].map(|device| {
        let device = device.to_string();
        place.client(&format!("client-{device}"), &url(port), &["--device", &device])
    });
    let mut server = place.server("deployed", &url(port), &config, &[]);
    place.expect_success("deployed", &mut server, Duration::from_secs(180));
    std::mem::take(&mut *record.lock().unwrap())
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn no_personal_byte_leaves_and_bytes_are_as_announced() {
    let place = Place::new(venv());
    let rounds = 3;
    // The personal weights after each round are the final ones of a shorter simulated run.
    let mut secret = HashSet::new();
    for rounds in 1..=rounds {
        let path = place.path(&rounds.to_string());
        simulated(&format!("{CONFIG}algorithm = ['fedper']\nrounds = {rounds}"), &path);
        secret.extend(windows(&path, "fedper", &PERSONAL));
    }
    let traffic = recorded(&place, "fedper", rounds);
    let total: usize = traffic.iter().map(Vec::len).sum();
    let base = weights(&place.path("deployed/weights/fedper/base.safetensors"));
    let announced = 4 * base.values().len() as u64;
    assert!(!holds(&traffic, &secret), "a window of personal values was sent");
    for name in PERSONAL {
        let name = name.as_bytes();
        let found = traffic.iter().any(|bytes| bytes.windows(name.len()).any(|window| window == name));
        assert!(!found, "the name of a personal tensor was sent");
    }
    // The search would find them: the name of the one array that a base is sent in is there.
    let name = b"\"flat-";
    assert!(traffic.iter().any(|bytes| bytes.windows(name.len()).any(|window| window == name)));
    for round in lines(&place.path("deployed"), "rounds.jsonl") {
        assert_eq!(
            (&round["bytes_down"], &round["bytes_up"]),
            (&(3 * announced).into(), &(3 * announced).into())
        );
        for key in ["wire_down", "wire_up"] {
            let per_device = round[key].as_u64().unwrap() as f64 / 3.0;
            let excess = per_device / announced as f64 - 1.0;
            println!("{key}: {per_device} a device, {announced} announced ({:+.3} %)", 100.0 * excess);
            assert!((0.0..0.02).contains(&excess));
        }
    }
    // What is evaluated after a round is what the next begins with: it goes to the SuperLink once, and to each device once.
    let first = weights(&place.path("1/weights/fedper/base.safetensors"));
    let values = &first.get("conv2.0.weight").unwrap()[..64];
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let times = |stream: &Vec<u8>| stream.windows(bytes.len()).filter(|window| *window == bytes).count();
    assert_eq!(traffic.iter().map(times).sum::<usize>(), 1 + 3);
    println!("{total} bytes recorded in {} streams", traffic.len());
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn the_search_would_find_them() {
    let place = Place::new(venv());
    // FedAvg's second round sends the classifier of the first.
    simulated(&format!("{CONFIG}algorithm = ['fedavg']\nrounds = 1"), &place.path("simulated"));
    let known = windows(&place.path("simulated"), "fedavg", &PERSONAL);
    assert!(holds(&recorded(&place, "fedavg", 2), &known));
}
