//! Which device holds which samples.
//!
//! A partition is a function of the dataset, the options and the seed. Each step draws from its own stream
//! ([`fedper_core::seed`]; all have purpose `Partition`, round 0 and, unless said otherwise, the server as device):
//!
//! | what | stream |
//! |---|---|
//! | which classes a device holds | named `classes` |
//! | the order in which class c's samples (label c) are dealt, and who gets what does not divide | named `class c` |
//! | the same for the dataset's own test split | named `test class c` |
//! | the proportions of every class over the devices | named `dirichlet` |
//! | the order in which all samples are dealt when they are dealt regardless of class | named `iid` |
//! | which of device d's samples are for testing | purpose `TestSplit`, device d |
//! | the cap on device d's samples, then the order of its train samples | device d |

mod deal;
mod dirichlet;
mod split;
mod table;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{DataError, Dataset};
pub use table::ClassTable;

/// The samples of one device: indices into [`Dataset::images`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The samples it trains on, in the order used when nothing shuffles them.
    pub train: Vec<u32>,
    /// The samples it is tested on, ascending.
    pub test: Vec<u32>,
}

/// The samples of every device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// One shard a device, in the order of the devices' ids.
    pub devices: Vec<Shard>,
}

/// How samples are dealt to devices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scheme {
    /// Each device holds `per_device` classes, as in the FedPer paper. Classes are dealt so that any two are held by
    /// the same number of devices, or one more; a class's samples are dealt to its holders in equal numbers, or one
    /// more. If there are fewer places (devices × `per_device`) than classes, some classes are not used at all.
    Classes {
        /// How many classes each device holds.
        per_device: usize,
    },
    /// Each class is dealt in proportions drawn from a symmetric Dirichlet distribution (T.-M. H. Hsu, H. Qi,
    /// M. Brown, arXiv:1909.06335), class by class as in NIID-Bench (Q. Li, Y. Diao, Q. Chen, B. He,
    /// arXiv:2102.02079): a device that has its fair share gets nothing of later classes, and the draw is repeated, up
    /// to 100 times, until every device has 10 samples (or half its fair share, if that is less). If the last draw
    /// does not do it either, devices below that are filled up from the largest ones.
    Dirichlet {
        /// The concentration: small for devices that differ much, large for devices that are alike.
        alpha: f64,
    },
    /// All samples are dealt at random in equal numbers, or one more.
    Iid,
    /// The dataset says: each folder is a device.
    Folder,
}

/// Which samples a device is tested on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TestSplit {
    /// The dataset's own splits are put together and dealt, and each device keeps this fraction of what it got for
    /// testing, the same of every class as nearly as possible. At least one sample of each class it holds stays for
    /// training.
    Fraction(f64),
    /// The dataset's train split is dealt, then its test split: of each class, a device's share of the test samples is
    /// its share of the train samples. With many devices and few test samples, a device may end with none.
    Own,
}

/// What to deal to whom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartitionOptions {
    /// How samples are dealt.
    pub scheme: Scheme,
    /// How many devices there are. With [`Scheme::Folder`], 0 means as many as there are folders.
    pub devices: usize,
    /// Train samples of each device, drawn from those it was dealt: in equal numbers from each of its classes with
    /// [`Scheme::Classes`], in proportion to what it has of each class otherwise. A class that has fewer is used whole
    /// and then drawn from again, with replacement. Of each class's test samples the device keeps the same fraction as
    /// of its train samples, rounded up, and no more than all.
    pub samples_per_device: Option<usize>,
    /// Which samples a device is tested on.
    pub test: TestSplit,
    /// The run's seed.
    pub seed: u64,
}

/// Deals the samples of `dataset` to devices.
///
/// No sample goes to two devices. Every device has at least one train sample, and is tested on no class that it does
/// not train on.
///
/// # Errors
/// If the options contradict each other or the dataset, or a device would end with no train sample.
pub fn partition(dataset: &Dataset, options: &PartitionOptions) -> Result<Partition, DataError> {
    let refuse = |problem: String, advice: &str| {
        Err(DataError::Partition { dataset: dataset.name.clone(), problem, advice: advice.into() })
    };
    let classes = dataset.classes.len();
    let labels = dataset.images.labels();
    let own = match options.test {
        TestSplit::Fraction(fraction) if !(fraction > 0.0 && fraction < 1.0) => {
            return refuse(
                format!("the test fraction is {fraction}"),
                "give --test-fraction between 0 and 1, without either",
            );
        }
        TestSplit::Fraction(_) => false,
        TestSplit::Own if dataset.train_len == labels.len() => {
            return refuse(
                "it has no test split of its own".into(),
                "pass --test-fraction, for example 0.25",
            );
        }
        TestSplit::Own => true,
    };
    if options.samples_per_device == Some(0) {
        return refuse(
            "0 samples per device are asked for".into(),
            "give --samples-per-client of at least 1",
        );
    }
    let dealt = if own { 0..dataset.train_len } else { 0..labels.len() };
    if options.devices == 0 && options.scheme != Scheme::Folder || options.devices > dealt.len() {
        return refuse(
            format!("{} devices are to share {} samples", options.devices, dealt.len()),
            "give --clients between 1 and the number of samples",
        );
    }

    let pool = deal::by_class(labels, dealt.clone(), classes);
    let seed = options.seed;
    let mut hands = match options.scheme {
        Scheme::Classes { per_device } if per_device == 0 || per_device > classes => {
            return refuse(
                format!("{per_device} classes per device are asked for, and there are {classes}"),
                "give --classes-per-client between 1 and the number of classes",
            );
        }
        Scheme::Classes { per_device } => deal::classes(pool, options.devices, per_device, seed),
        Scheme::Dirichlet { alpha } if !(alpha.is_finite() && alpha > 0.0) => {
            return refuse(
                format!("Dirichlet's alpha is {alpha}"),
                "give --dirichlet a number above 0, for example 0.1",
            );
        }
        Scheme::Dirichlet { alpha } => dirichlet::deal(pool, options.devices, alpha, seed),
        Scheme::Iid => deal::iid(labels, dealt, classes, options.devices, seed),
        Scheme::Folder => match &dataset.devices {
            None => {
                return refuse(
                    "it does not come in a folder for each device".into(),
                    "choose --classes-per-client, --dirichlet or --iid",
                );
            }
            Some(folders) if options.devices != 0 && options.devices != folders.len() => {
                return refuse(
                    format!(
                        "{} devices are asked for, and there are {} folders",
                        options.devices,
                        folders.len()
                    ),
                    "leave --clients away, or choose --classes-per-client, --dirichlet or --iid",
                );
            }
            Some(folders) => {
                folders.iter().map(|f| deal::by_class(labels, to_usize(&f.samples), classes)).collect()
            }
        },
    };

    let mut tests = match options.test {
        TestSplit::Fraction(fraction) => split::take_tests(&mut hands, fraction, seed),
        TestSplit::Own => {
            deal::follow(&hands, deal::by_class(labels, dataset.train_len..labels.len(), classes), seed)
        }
    };
    let even = matches!(options.scheme, Scheme::Classes { .. });
    let devices: Vec<Shard> = hands
        .iter_mut()
        .zip(&mut tests)
        .enumerate()
        .map(|(device, (train, test))| {
            split::shard(train, test, options.samples_per_device, even, seed, device)
        })
        .collect();
    match devices.iter().position(|shard| shard.train.is_empty()) {
        Some(device) => refuse(
            format!("device {device} gets no train sample"),
            "give fewer --clients, more --classes-per-client, or a dataset with more samples",
        ),
        None => Ok(Partition { devices }),
    }
}

fn to_usize(range: &std::ops::Range<u32>) -> std::ops::Range<usize> {
    range.start as usize..range.end as usize
}
