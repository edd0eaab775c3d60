//! Many devices on few machines.

use std::time::{Duration, Instant};

use crate::common;
use crate::support::{Place, Process, free_port, lines, simulated, url, venv};

/// Largest resident memory of a process, in MB.
fn peak_rss(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1000
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn two_hundred_devices_on_four_processes() {
    let bin = venv();
    let rounds: u32 = std::env::var("FEDPER_FLOWER_ROUNDS").map_or(1, |text| text.parse().unwrap());
    let place = Place::new(bin);
    let port = free_port();
    let superlink = place.plain_superlink(port);
    let config = format!(
        "model = 'cnn'\nclients = 200\nclasses_per_client = 2\nsamples_per_client = 40\nbatch_size = 10\n\
         personal_layers = 1\nlr = 0.01\nalgorithm = ['fedper']\nrounds = {rounds}\n"
    );
    let clients = ["0..49", "50..99", "100..149", "150..199"]
        .map(|devices| place.client(&format!("client-{devices}"), &url(port), &["--clients", devices]));
    let start = Instant::now();
    let mut server = place.server("deployed", &url(port), &config, &[]);
    let mut server_rss = 0;
    while !server.has_ended() {
        server_rss = server_rss.max(peak_rss(&server));
        assert!(start.elapsed() < Duration::from_secs(600), "{}", place.log("deployed-server"));
        std::thread::sleep(Duration::from_millis(100));
    }
    place.expect_success("deployed", &mut server, Duration::from_secs(1));
    let rounds = lines(&place.path("deployed"), "rounds.jsonl");
    for round in &rounds {
        assert_eq!((&round["devices"], &round["failed"]), (&200.into(), &0.into()));
        println!(
            "round {}: {:.2} s, {} bytes down, {} bytes up",
            round["round"],
            round["seconds"].as_f64().unwrap(),
            round["wire_down"],
            round["wire_up"]
        );
    }
    assert_eq!(lines(&place.path("deployed"), "devices.jsonl").len(), 200 * rounds.len());
    let memory = clients.each_ref().map(peak_rss);
    println!("memory: clients {memory:?} MB, server {server_rss} MB, SuperLink {} MB", peak_rss(&superlink));
}

/// What a round costs beside training: hardly any, of a base of 10.8 MB.
#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn a_round_of_ten_megabytes() {
    let bin = venv();
    let rounds: u32 = std::env::var("FEDPER_FLOWER_ROUNDS").map_or(2, |text| text.parse().unwrap());
    let place = Place::new(bin);
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let photos = place.text("photos");
    let made = common::fedper(&["data", "make", "flickr-aes", &photos, "--width", "48", "--height", "48"])
        .output()
        .unwrap();
    assert!(made.status.success());
    let config = format!(
        "dataset = 'flickr-aes'\ndata_dir = '{photos}'\nimage_size = 48\nmodel = 'cnn'\nclients = 1\nbatch_size = 10\n\
         personal_layers = 1\nlr = 0.01\nalgorithm = ['fedper']\nrounds = {rounds}\n"
    );
    let start = Instant::now();
    simulated(&config, &place.path("simulated"));
    let training = start.elapsed().as_secs_f64() / f64::from(rounds);
    let _client = place.client("client", &url(port), &["--device", "0", "--data-dir", &photos]);
    let mut server = place.server("deployed", &url(port), &config, &[]);
    place.expect_success("deployed", &mut server, Duration::from_secs(300));
    for round in lines(&place.path("deployed"), "rounds.jsonl") {
        assert!((10_000_000..11_000_000).contains(&round["wire_down"].as_u64().unwrap()));
        println!(
            "round {}: {:.2} s, of which a simulated one takes {training:.2} s",
            round["round"],
            round["seconds"].as_f64().unwrap()
        );
    }
}
