//! A SuperLink that is killed and started anew in the middle of a run, with and without what it knew.

use std::time::{Duration, Instant};

use crate::common::assert_same;
use crate::support::{Place, free_port, lines, shared_results, simulated, url, venv};

const CONFIG: &str = "model = 'mlp'\nclients = 2\nclasses_per_client = 2\nsamples_per_client = 40\nbatch_size = 10\n\
                      personal_layers = 1\nlr = 0.01\nalgorithm = ['fedper']\nrounds = 12\n";

/// Kills the SuperLink after the second round; the federation must go on soon after it is back, and end as if nothing had
/// happened.
fn restarted(args: &[&str]) {
    let place = Place::new(venv());
    let port = free_port();
    let mut all = vec!["--insecure", "--isolation", "process"];
    all.extend(args);
    let mut superlink = place.superlink(port, &all);
    let clients = [0, 1].map(|device| {
        let device = device.to_string();
        place.client(&format!("client-{device}"), &url(port), &["--device", &device, "--of", "2"])
    });
    let args = ["--min-answers", "2", "--round-timeout", "20"];
    let mut server = place.server("deployed", &url(port), CONFIG, &args);
    simulated(CONFIG, &place.path("simulated"));
    let log = || place.log("deployed-server");
    let start = Instant::now();
    while !log().contains("round 2/12") {
        assert!(!server.has_ended() && start.elapsed() < Duration::from_secs(120), "{}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    superlink.kill();
    let done = lines(&place.path("deployed"), "rounds.jsonl").len();
    assert!(done < 12, "it was killed too late");
    std::thread::sleep(Duration::from_secs(1));
    let _superlink = place.superlink(port, &all);
    let back = Instant::now();
    while lines(&place.path("deployed"), "rounds.jsonl").len() <= done {
        let waited = back.elapsed();
        let clients = || place.log("client-0") + &place.log("client-1");
        assert!(waited < Duration::from_secs(60), "nothing for {waited:?}\n{}\n{}", log(), clients());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("a round was done {:?} after the SuperLink was back", back.elapsed());
    place.expect_success("deployed", &mut server, Duration::from_secs(120));
    drop(clients);
    assert_same(&shared_results(&place.path("deployed")), &shared_results(&place.path("simulated")));
    for name in ["deployed-server", "client-0", "client-1"] {
        let log = place.log(name);
        println!("{name}:\n{log}");
        assert!(!log.contains("register the key"), "a lost run is told as a wrong key\n{log}");
    }
    // Whatever cannot succeed is given up: what was asked again of a lost run, a few times each.
    let stumbles = place.log("superlink").matches("\" 500 ").count();
    assert!(stumbles < 100, "{stumbles} calls were answered with 500");
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn without_a_database_it_goes_on_in_another_run() {
    restarted(&[]);
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn with_a_database_it_goes_on_too() {
    restarted(&["--database", "superlink.db"]);
}
