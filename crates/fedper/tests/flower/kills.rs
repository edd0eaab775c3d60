//! Kills at random moments: of clients, the server, and the SuperLink.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fedper::experiment::Experiment;
use fedper::network::store::{Scope, Store};
use fedper_core::round::DeviceId;
use fedper_core::seed::{self, Purpose};

use crate::common::{assert_same, settings};
use crate::support::{
    Place, Process, distance, free_port, lines, shared_results, simulated, url, venv, weights,
};

/// How many, unless `FEDPER_FLOWER_KILLS` says otherwise.
const KILLS: usize = 4;

const CONFIG: &str = "model = 'cnn'\nclients = 3\nclasses_per_client = 2\nsamples_per_client = 60\nbatch_size = 10\n\
                      personal_layers = 1\nlr = 0.01\nalgorithm = ['fedper', 'ditto', 'scaffold']\n";

/// A whole federation, each part of which can be killed and started again.
struct Federation<'a> {
    place: &'a Place,
    name: String,
    config: String,
    port: u16,
    superlink: Process,
    server: Process,
    clients: Vec<Process>,
}

impl<'a> Federation<'a> {
    fn start(place: &'a Place, name: &str, config: &str) -> Self {
        let port = free_port();
        let superlink = Self::superlink(place, name, port);
        let clients = (0..3).map(|device| Self::client(place, name, port, device)).collect();
        let server = Self::server(place, name, port, config);
        Self { place, name: name.into(), config: config.into(), port, superlink, server, clients }
    }

    fn superlink(place: &Place, name: &str, port: u16) -> Process {
        let database = place.text(&format!("{name}.db"));
        place.superlink(port, &["--insecure", "--isolation", "process", "--database", &database])
    }

    fn client(place: &Place, name: &str, port: u16, device: usize) -> Process {
        place.client(&format!("{name}-client-{device}"), &url(port), &["--device", &device.to_string()])
    }

    fn server(place: &Place, name: &str, port: u16, config: &str) -> Process {
        // Fewer answers than devices would be another result.
        let args = ["--min-answers", "3", "--round-timeout", "20"];
        place.server(name, &url(port), config, &args)
    }

    /// Kills one part and starts it again.
    fn strike(&mut self, victim: usize) -> &'static str {
        let Self { place, name, config, port, .. } = self;
        match victim {
            0..=2 => {
                self.clients[victim].kill();
                self.clients[victim] = Self::client(place, name, *port, victim);
                "client"
            }
            3 => {
                self.server.kill();
                self.server = Self::server(place, name, *port, config);
                "server"
            }
            _ => {
                self.superlink.kill();
                self.superlink = Self::superlink(place, name, *port);
                "SuperLink"
            }
        }
    }
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn kills_at_random_moments_leave_no_trace() {
    let place = Place::new(venv());
    let wanted = std::env::var("FEDPER_FLOWER_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("kills drawn from {moment}");
    let mut random = seed::derive(moment, Purpose::Failure, 0, 0);
    let mut kills: Vec<&str> = Vec::new();
    let mut run = 0;
    while kills.len() < wanted {
        run += 1;
        assert!(run <= 20, "the federation ends too soon to be killed");
        let rounds = 3 * (wanted - kills.len()).min(10);
        let config = format!("{CONFIG}rounds = {rounds}\nseed = {run}");
        let (name, whole) = (format!("killed-{run}"), place.path(&format!("whole-{run}")));
        simulated(&config, &whole);
        let mut federation = Federation::start(&place, &name, &config);
        let start = Instant::now();
        let status = loop {
            let pause = Duration::from_secs_f64(0.2 + 3.0 * seed::uniform(&mut random));
            let resume = Instant::now() + pause;
            while Instant::now() < resume && !federation.server.has_ended() {
                std::thread::sleep(Duration::from_millis(20));
            }
            if federation.server.has_ended() {
                break federation.server.wait(Duration::ZERO);
            }
            assert!(start.elapsed() < Duration::from_secs(900), "{}", place.log(&format!("{name}-server")));
            if kills.len() < wanted {
                // A SuperLink takes long to start: it is killed less often than the others.
                let die = seed::uniform(&mut random);
                let victim = if die < 0.12 { 4 } else { ((die - 0.12) / 0.22) as usize };
                kills.push(federation.strike(victim));
            }
        };
        assert!(status.success(), "{status}\n{}", place.log(&format!("{name}-server")));
        let rounds_run: Vec<u64> =
            lines(&place.path(&name), "rounds.jsonl").iter().map(|r| r["round"].as_u64().unwrap()).collect();
        let once: Vec<u64> = (1..=rounds as u64).flat_map(|round| [round; 3]).collect();
        assert_eq!(rounds_run, once, "each round once for each algorithm");
        let (ours, theirs) = (shared_results(&place.path(&name)), shared_results(&whole));
        if ours != theirs {
            println!("{}", place.log(&format!("{name}-server")));
        }
        assert_same(&ours, &theirs);
        federation.clients.iter_mut().for_each(Process::kill);
        let experiment = Experiment::prepare(&settings(&config)).unwrap();
        for (device, algorithm) in (0..3).flat_map(|d| ["fedper", "ditto", "scaffold"].map(|name| (d, name)))
        {
            let parts = experiment.parts(&*experiment.config.method(algorithm).unwrap());
            let store = Store::open(&place.path(&format!("{name}-client-{device}-state"))).unwrap();
            let federations = store.federations().unwrap();
            let scope = Scope { federation: &federations[0], algorithm };
            let state = store.state(scope, DeviceId(device), &parts).unwrap().unwrap();
            assert_eq!((federations.len(), state.round), (1, rounds as u32));
            let theirs = weights(&whole.join(format!("weights/{algorithm}/device-{device:05}.safetensors")));
            assert_eq!(
                distance(state.personal.params(), &theirs),
                0.0,
                "device {device} keeps something else of {algorithm}"
            );
        }
        println!("{name}: {rounds} rounds in {:?}", start.elapsed());
    }
    let count = |who| kills.iter().filter(|&&kill| kill == who).count();
    println!(
        "{} kills: {} of clients, {} of the server, {} of the SuperLink; all results as if nothing had happened",
        kills.len(),
        count("client"),
        count("server"),
        count("SuperLink")
    );
}
