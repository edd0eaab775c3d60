//! `fedper client`.

use std::path::PathBuf;
use std::time::Duration;

use fedper_flower::fleet::Fleet;
use fedper_flower::identity::Identity;

use super::interrupt;
use super::say::say;
use super::superlink::{self, seconds};
use crate::config::{Settings, read_settings};
use crate::error::Error;
use crate::failure::Failure;
use crate::network::client::{self, ClientOptions};
use crate::network::limits::DeviceLimits;
use crate::network::settings::{Own, parse_data, parse_devices};
use crate::network::store::Store;

/// Be a device on a Flower SuperLink
///
/// Trains when asked, with its own data and its own personal layers, and answers with base weights only. Runs until it is
/// stopped; killed and started again with the same --state, it goes on as the same device.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    superlink: superlink::Args,
    /// Folder for what the device keeps: its personal layers, its identity, the network it was last tested with
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// This device's private key, which `fedper key` makes [default: one of its own, in --state]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Its data: the name of a dataset, of which it holds what the experiment deals to it, or a folder of images, all of
    /// which are its own [default: the dataset that the server names]
    #[arg(long, value_name = "NAME|DIR", help_heading = "Data")]
    data: Option<String>,
    /// Folder with the dataset's files [default: the cache that `fedper data fetch` fills, then system folders]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data_dir: Option<PathBuf>,
    /// Of a folder of images, leave out those that cannot be decoded; they are named [default: refuse the folder]
    #[arg(long, help_heading = "Data")]
    skip_broken: bool,
    /// Which device of the experiment this is, from 0 [default: the one that the server makes it]
    #[arg(long, value_name = "NUMBER", help_heading = "Data")]
    device: Option<u64>,
    /// How many devices the federation must have; refuses others
    #[arg(long, value_name = "N", help_heading = "Data")]
    of: Option<u64>,
    /// Host several devices of the experiment: 0..49 for fifty of them. They answer with the mean of their bases
    #[arg(long, value_name = "FIRST..LAST", conflicts_with = "device", help_heading = "Data")]
    clients: Option<String>,
    /// Start from the weights in this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    init: Option<PathBuf>,
    /// Settings for servers that tell none, such as Python ones: a TOML file as `fedper run --config` takes it
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    config: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// Worker threads; results do not depend on them [default: one for each core]
    #[arg(long, value_name = "COUNT", help_heading = "Training")]
    workers: Option<usize>,
    /// Tell the SuperLink every so many seconds that the device is there; from 10 to 1800
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    heartbeat: f64,
    /// Print nothing
    #[arg(long)]
    quiet: bool,
}

/// What a server can ask at most. What goes beyond is answered with the reason.
#[derive(clap::Args)]
struct Limits {
    /// Refuse to train more epochs a round
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().epochs, help_heading = "Limits")]
    max_epochs: u32,
    /// Refuse larger batches
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().batch, help_heading = "Limits")]
    max_batch: usize,
    /// Refuse images that are higher or wider
    #[arg(long, value_name = "PIXELS", default_value_t = DeviceLimits::default().image_size, help_heading = "Limits")]
    max_image_size: usize,
    /// Refuse batches of more pixels: height times width times images
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().pixels, help_heading = "Limits")]
    max_pixels: u64,
    /// Refuse networks for more classes
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().classes, help_heading = "Limits")]
    max_classes: usize,
    /// Refuse networks of more parameters
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().parameters, help_heading = "Limits")]
    max_parameters: u64,
    /// Refuse federations of more devices, and host no more
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().devices, help_heading = "Limits")]
    max_devices: u64,
    /// Refuse to be dealt more training samples
    #[arg(long, value_name = "COUNT", default_value_t = DeviceLimits::default().samples, help_heading = "Limits")]
    max_samples: usize,
}

impl Limits {
    /// As limits, if this process may host `devices` devices.
    fn checked(&self, devices: u64) -> Result<DeviceLimits, Error> {
        if devices > self.max_devices {
            return Err(Error::Config(format!(
                "{devices} devices are more than --max-devices allows: {}",
                self.max_devices
            )));
        }
        Ok(DeviceLimits {
            epochs: self.max_epochs,
            batch: self.max_batch,
            image_size: self.max_image_size,
            pixels: self.max_pixels,
            classes: self.max_classes,
            parameters: self.max_parameters,
            devices: self.max_devices,
            samples: self.max_samples,
        })
    }
}

const EXAMPLES: &str = "\
Examples:
  fedper client --superlink http://127.0.0.1:8000 --device 3 --of 10 --state device-3
  fedper client --superlink http://127.0.0.1:8000 --clients 0..49 --state machine-0
  fedper client --superlink https://superlink.example.org --ca ca.pem --key device.pem --data photos --state /var/lib/fedper";

pub(super) fn main(args: Args) -> Result<(), Failure> {
    let workers = super::workers(args.workers)?;
    let interval = seconds("heartbeat", args.heartbeat)?;
    if !(10.0..=1800.0).contains(&args.heartbeat) {
        return Err(
            Error::Config(format!("heartbeat is {}: it must be from 10 to 1800", args.heartbeat)).into()
        );
    }
    let stop = interrupt::watch()?;
    let devices = match (&args.clients, args.device) {
        (Some(text), _) => Some(parse_devices(text)?),
        (None, device) => device.map(|device| device..=device),
    };
    if let (Some(devices), Some(of)) = (&devices, args.of)
        && *devices.end() >= of
    {
        let last = devices.end();
        return Err(
            Error::Config(format!("there is no device {last} among {of}: they are counted from 0")).into()
        );
    }
    // Counted before they are named one by one.
    let devices_here =
        devices.as_ref().map_or(1, |devices| (devices.end() - devices.start()).saturating_add(1));
    let (dataset, folder) = args.data.as_deref().map(parse_data).unzip();
    let own_data = folder.as_ref().is_some_and(Option::is_some);
    if own_data && devices.as_ref().is_some_and(|devices| devices.start() != devices.end()) {
        return Err(
            Error::Config("a folder of images is one device's own: leave out --clients".into()).into()
        );
    }
    let own = Own {
        devices,
        own_data,
        skip_broken: args.skip_broken,
        of: args.of,
        dataset,
        data_dir: args.data_dir.or(folder.flatten()),
        init: args.init,
        fallback: args.config.as_deref().map(read_settings).transpose()?.unwrap_or_else(Settings::default),
        limits: args.limits.checked(devices_here)?,
    };
    let store = Store::open(&args.state)?;
    let identity = match &args.key {
        Some(path) => Identity::from_pem(&std::fs::read_to_string(path).map_err(Error::file("read", path))?)?,
        None => store.identity()?,
    };
    // A device waits for its SuperLink for ever.
    let link = args.superlink.link(Duration::MAX, &stop, args.quiet)?;
    let fleet = Fleet::new(link, identity, interval);
    let quiet = args.quiet;
    let tell = move |line: &str| {
        if !quiet {
            say(format_args!("{line}"));
        }
    };
    let options = ClientOptions { own, workers, state: args.state };
    Ok(client::run(&fleet, &store, &options, &stop, &tell)?)
}
