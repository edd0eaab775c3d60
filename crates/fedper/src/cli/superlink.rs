//! Which SuperLink, for a server and for a client.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fedper_flower::retry::Link;
use fedper_flower::transport::Http;

use super::say::say;
use crate::error::Error;
use crate::failure::Failure;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The SuperLink, such as http://127.0.0.1:8000 or https://superlink.example.org
    #[arg(long, value_name = "URL")]
    superlink: String,
    /// Accept only certificates that this authority (a PEM file) has signed [default: the public authorities]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Args {
    /// What calls it, and waits for it that long, or until `stop` is set. Unless it is to be quiet, it says that it waits.
    pub(super) fn link(
        &self,
        patience: Duration,
        stop: &Arc<AtomicBool>,
        quiet: bool,
    ) -> Result<Link, Failure> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(Error::file("read", path));
        let ca = self.ca.as_ref().map(read).transpose()?;
        let http = Http::new(&self.superlink, ca.as_deref())?;
        let link = Link::new(Box::new(http), patience, stop.clone());
        Ok(if quiet { link } else { link.telling(|line| say(format_args!("{line}"))) })
    }
}

/// A duration as it is typed.
pub(super) fn seconds(flag: &str, value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| Error::Config(format!("{flag} is {value}: it must be greater than 0")))
}
