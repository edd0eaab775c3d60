//! A SuperLink, servers and clients as processes that end with the test.
#![allow(unreachable_pub, reason = "shared by the tests of this folder")]

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fedper_core::params::Params;
use tempfile::TempDir;

use crate::common;

/// The `bin` folder of a virtual environment with flwr.
pub fn venv() -> PathBuf {
    let path = std::env::var_os("FEDPER_FLOWER_VENV");
    let path =
        path.expect("FEDPER_FLOWER_VENV names no environment with flwr: scripts/test-flower.sh makes one");
    let bin = PathBuf::from(path).join("bin");
    assert!(bin.join("flower-superlink").is_file(), "no flower-superlink in {}", bin.display());
    bin
}

/// A port of the loopback interface that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A process that is killed with its owner.
pub struct Process(pub Child);

impl Process {
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for its end.
    pub fn wait(&mut self, most: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < most, "the process has not ended in {most:?}");
            sleep(Duration::from_millis(20));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder for everything about a test, and its processes' logs.
pub struct Place {
    pub dir: TempDir,
    bin: PathBuf,
}

impl Place {
    pub fn new(bin: PathBuf) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), bin }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts `command`; what it prints is appended to `<name>.log`.
    pub fn start(&self, name: &str, mut command: Command) -> Process {
        let path = self.path(&format!("{name}.log"));
        let log = File::options().create(true).append(true).open(path).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Process(command.spawn().unwrap())
    }

    /// A program of the virtual environment.
    pub fn flower(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("FLWR_HOME", self.path("flwr"))
            .env("FLWR_TELEMETRY_ENABLED", "0")
            .current_dir(self.dir.path());
        command
    }

    /// A SuperLink on `port`, which is ready when this returns.
    pub fn superlink(&self, port: u16, args: &[&str]) -> Process {
        let mut command = self.flower("flower-superlink");
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).args(args);
        let mut process = self.start("superlink", command);
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(!process.has_ended(), "the SuperLink ended:\n{}", self.log("superlink"));
            assert!(start.elapsed() < Duration::from_secs(120), "the SuperLink does not start");
            sleep(Duration::from_millis(50));
        }
        process
    }

    /// The same, without TLS, driven by `fedper server`.
    pub fn plain_superlink(&self, port: u16) -> Process {
        self.superlink(port, &["--insecure", "--isolation", "process"])
    }

    pub fn client(&self, name: &str, url: &str, args: &[&str]) -> Process {
        let state = self.text(&format!("{name}-state"));
        let mut command =
            common::fedper(&["client", "--superlink", url, "--state", &state, "--workers", "1"]);
        command.args(["--heartbeat", "10"]).args(args);
        self.start(name, command)
    }

    /// Writes `exp.toml` and starts a server that runs it into `<name>`.
    pub fn server(&self, name: &str, url: &str, config: &str, args: &[&str]) -> Process {
        let file = self.path("exp.toml");
        std::fs::write(&file, config).unwrap();
        let (file, out) = (file.to_str().unwrap(), self.text(name));
        let mut command = common::fedper(&["server", "--superlink", url, "--config", file, "--out", &out]);
        command.args(args);
        self.start(&format!("{name}-server"), command)
    }

    /// Waits for a server that must end well.
    pub fn expect_success(&self, name: &str, server: &mut Process, most: Duration) {
        let status = server.wait(most);
        assert!(
            status.success(),
            "{status}\n{}\n{}",
            self.log(&format!("{name}-server")),
            self.log("superlink")
        );
    }
}

pub fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// What of a run directory does not depend on how messages travelled: all but times, bytes on the wire and the devices' own
/// layers, which stay on the devices.
pub fn shared_results(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = common::results(dir);
    let rounds = String::from_utf8(out["rounds"].clone()).unwrap();
    let rounds: Vec<String> = rounds
        .lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["wire_down", "wire_up"] {
                record.as_object_mut().unwrap().remove(key);
            }
            record.to_string()
        })
        .collect();
    out.insert("rounds".to_owned(), rounds.join("\n").into_bytes());
    out.retain(|name, _| !name.contains("/device-"));
    out
}

/// The simulator's run of the same experiment.
pub fn simulated(config: &str, dir: &Path) {
    common::run(config, dir, 1);
}

/// The parameters in a weights file, which lists them in any order.
pub fn weights(path: &Path) -> Params {
    fedper_nn::weights::read_safetensors(&std::fs::read(path).unwrap()).unwrap()
}

/// The largest difference of two values with the same place in parameters of the same names; 0 only if all bits agree.
pub fn distance(a: &Params, b: &Params) -> f32 {
    assert_eq!(a.layout().len(), b.layout().len());
    let of = |(spec, values): (&fedper_core::params::Spec, &[f32])| {
        let others = b.get(&spec.name).unwrap();
        assert_eq!(values.len(), others.len(), "{}", spec.name);
        let difference = |(a, b): (&f32, &f32)| {
            if a.to_bits() == b.to_bits() { 0.0 } else { (a - b).abs().max(f32::MIN_POSITIVE) }
        };
        values.iter().zip(others).map(difference).fold(0.0, f32::max)
    };
    a.iter().map(of).fold(0.0, f32::max)
}

pub fn lines(dir: &Path, file: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
