//! What a run will cost, estimated before it begins; and the default number of images a device where all would take too long.

use fedper_data::Dataset;
use fedper_nn::{Architecture, InputShape, Model};

use crate::config::{Config, Samples, Settings};
use crate::error::Error;

/// Batch-norm statistics are measured on so many of a device's training samples at most: what a network's few thousand
/// channels need, and less than a test takes.
pub(crate) const MEASURED: usize = 1024;

/// A run with default settings is to end within this time on [`CORES`] cores.
const SECONDS: f64 = 600.0;
const CORES: f64 = 2.0;
/// Default numbers of training images a device are among these.
const STEPS: [usize; 11] = [5000, 4000, 3000, 2000, 1500, 1000, 750, 500, 300, 200, 100];

/// Floating-point operations a second that training gets from one core with AVX-512, of the whole local step. Depthwise
/// convolutions wait for memory.
fn operations_a_second(model: Model) -> f64 {
    if model == Model::MobilenetV1 { 1.0e11 } else { 2.0e11 }
}

/// How long a run takes on [`CORES`] cores, in seconds, if a device trains on `samples` images and is tested on `tests` for
/// each of them.
fn seconds(config: &Config, architecture: &Architecture, samples: usize, tests: f64) -> f64 {
    let devices = config.training_clients() as f64;
    let (samples, rounds) = (samples as f64, f64::from(config.rounds));
    let methods = config.methods();
    let epochs: f64 = methods.iter().map(|method| method.work(config.local_epochs)).sum();
    let trained = rounds * config.participation * devices * samples * epochs;
    // A test of a network is a third of a training step. Each device is tested after its training, and with the average.
    let evaluated =
        config.eval_devices.map_or(devices, |count| count as f64) * rounds / f64::from(config.eval_every);
    let measured = samples.min(MEASURED as f64);
    let tested = evaluated * (2.0 * samples * tests + measured) / 3.0;
    let images = trained + methods.len() as f64 * tested;
    let operations = 6.0 * architecture.multiply_adds() as f64;
    images * operations / (CORES * operations_a_second(config.model))
}

/// How many training images each device gets if nobody says, and a line on that; `None` if it gets all.
///
/// # Errors
/// If the images are too small for the network, or no device is left to train.
pub(crate) fn fewer_samples(
    settings: &Settings,
    dataset: &Dataset,
) -> Result<Option<(Samples, String)>, Error> {
    let mut config = Config::resolve(settings)?;
    config.adapt(settings, dataset);
    config.check_new_clients()?;
    if settings.samples_per_client.is_some() || config.samples_per_client.is_some() || config.by_folder {
        return Ok(None);
    }
    let images = &dataset.images;
    let input = InputShape { channels: images.channels, height: images.height, width: images.width };
    let architecture = config.architecture(input, dataset.classes.len())?;
    let (train, all) = (dataset.train_len as f64, dataset.images.len() as f64);
    let (train, test) = match config.test_fraction {
        Some(fraction) => (all * (1.0 - fraction), all * fraction),
        None => (train, all - train),
    };
    let each = (train / config.clients as f64) as usize;
    let time = |samples| seconds(&config, &architecture, samples, test / train);
    if time(each) <= SECONDS {
        return Ok(None);
    }
    let fewest = STEPS[STEPS.len() - 1];
    let count =
        STEPS.into_iter().filter(|&step| step < each).find(|&step| time(step) <= SECONDS).unwrap_or(fewest);
    if count >= each {
        return Ok(None);
    }
    let note = format!(
        "each device is dealt {count} training images of about {each}, so that the run takes some {} on 2 cores with AVX-512; \
         --samples-per-client all deals every image and takes some {}",
        minutes(time(count)),
        minutes(time(each))
    );
    Ok(Some((Samples::Count(count), note)))
}

fn minutes(seconds: f64) -> String {
    match (seconds / 60.0).ceil() as u64 {
        minutes if minutes < 90 => format!("{minutes} min"),
        minutes => format!("{} h", minutes.div_ceil(60)),
    }
}
