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
//! | everything that device d draws where nothing is dealt, see [`PartitionOptions::with_replacement`] | device d |
//! | which samples of class c are for testing then | purpose `TestSplit`, named `class c` |

mod deal;
mod dirichlet;
mod draw;
mod given;
mod held;
mod split;
mod table;
#[cfg(test)]
mod tests;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use self::deal::Hand;
use self::draw::Drawn;
pub use self::held::Partition;
pub use self::table::{ClassTable, class_counts};
use crate::{DataError, Dataset, DeviceFolder};

/// The samples of one device: indices into [`Dataset::images`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The samples it trains on, in the order used when nothing shuffles them.
    pub train: Vec<u32>,
    /// The samples it is tested on, ascending.
    pub test: Vec<u32>,
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
    /// its share of the train samples. With many devices and few test samples, a device may end with none. With
    /// [`Scheme::Folder`], a device's test samples are those of its own folder.
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
    /// Deal nothing: each device draws its `samples_per_device` from all samples of its classes (in proportions from
    /// its own Dirichlet distribution, or at random), as if it were alone, so that several may hold one sample. This is
    /// done anyway where dealing would leave a device without a train sample: where there are more devices than samples,
    /// for example. A sample that some device is tested on is trained on by none: [`TestSplit::Fraction`] sets that
    /// fraction of each class aside. Of each class's test samples a device draws the same fraction as of its train
    /// samples, rounded up.
    pub with_replacement: bool,
    /// Which samples a device is tested on.
    pub test: TestSplit,
    /// The run's seed.
    pub seed: u64,
}

/// Deals the samples of `dataset` to devices.
///
/// No sample goes to two devices, unless they draw with replacement. Every device has at least one train sample, and is
/// tested on no class that it does not train on.
///
/// # Errors
/// If the options contradict each other or the dataset, or a device would end with no train sample.
pub fn partition(dataset: &Dataset, options: &PartitionOptions) -> Result<Partition, DataError> {
    let refused = |(problem, advice): Refusal| DataError::Partition {
        dataset: dataset.name.clone(),
        problem,
        advice: advice.into(),
    };
    check(dataset, options).map_err(refused)?;
    let folders = options.scheme == Scheme::Folder;
    let crowded = options.devices > dealt(dataset, options.test).len() && !folders;
    if !crowded && !options.with_replacement {
        let (train, test, note) = deal(dataset, options);
        if !train.iter().any(is_empty) {
            let even = matches!(options.scheme, Scheme::Classes { .. });
            let partition = Partition::dealt(train, test, options.samples_per_device, even, options.seed);
            return Ok(partition.noting(note));
        }
        if options.samples_per_device.is_none() || folders {
            let device = train.iter().position(is_empty).unwrap_or(0);
            return Err(refused(no_train_sample(device)));
        }
    }
    let drawn = Drawn::new(dataset, options);
    match drawn.first_empty() {
        Some(device) => Err(refused(no_train_sample(device))),
        None => Ok(Partition::drawn(drawn)),
    }
}

fn is_empty(hand: &Hand) -> bool {
    hand.iter().all(Vec::is_empty)
}

/// The samples that devices share for training, or for training and testing.
fn dealt(dataset: &Dataset, test: TestSplit) -> Range<usize> {
    match test {
        TestSplit::Own => 0..dataset.train_len,
        TestSplit::Fraction(_) => 0..dataset.images.len(),
    }
}

/// What each device gets for training and for testing, and what is to be said about it.
fn deal(dataset: &Dataset, options: &PartitionOptions) -> (Vec<Hand>, Vec<Hand>, Option<String>) {
    let (labels, classes, seed) = (dataset.images.labels(), dataset.classes.len(), options.seed);
    let of = |range: Range<usize>| deal::by_class(labels, range, classes);
    let dealt = dealt(dataset, options.test);
    let mut note = None;
    let mut train = match options.scheme {
        Scheme::Classes { per_device } => deal::classes(of(dealt), options.devices, per_device, seed),
        Scheme::Dirichlet { alpha } => {
            let (hands, filled) = dirichlet::deal(of(dealt), options.devices, alpha, seed);
            note = filled;
            hands
        }
        Scheme::Iid => deal::iid(labels, dealt, classes, options.devices, seed),
        Scheme::Folder => {
            let folders = dataset.devices.iter().flatten();
            folders.map(|folder| folder_hand(&of, folder, options.test)).collect()
        }
    };
    let test = match options.test {
        TestSplit::Fraction(fraction) => split::take_tests(&mut train, fraction, seed),
        TestSplit::Own if options.scheme == Scheme::Folder => {
            let folders = dataset.devices.iter().flatten();
            folders
                .zip(&train)
                .map(|(folder, train)| folder_tests(of(indices(&folder.test)), train))
                .collect()
        }
        TestSplit::Own => deal::follow(&train, of(dataset.train_len..labels.len()), seed),
    };
    (train, test, note)
}

fn indices(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// What a folder holds for training; all of it, if the device is tested on a fraction of its own.
fn folder_hand(of: &impl Fn(Range<usize>) -> Hand, folder: &DeviceFolder, test: TestSplit) -> Hand {
    let mut hand = of(indices(&folder.train));
    if matches!(test, TestSplit::Fraction(_)) {
        let more = of(indices(&folder.test));
        hand.iter_mut().zip(more).for_each(|(samples, more)| samples.extend(more));
    }
    hand
}

/// A folder's own test samples, without classes that its device does not train on.
fn folder_tests(mut tests: Hand, train: &Hand) -> Hand {
    tests.iter_mut().zip(train).filter(|(_, train)| train.is_empty()).for_each(|(tests, _)| tests.clear());
    tests
}

/// What is wrong, and what to do about it.
type Refusal = (String, &'static str);

fn no_train_sample(device: usize) -> Refusal {
    (
        format!("device {device} gets no train sample"),
        "give fewer --clients, more --classes-per-client, or a dataset with more samples",
    )
}

/// Whether the options make sense, alone and for this dataset.
fn check(dataset: &Dataset, options: &PartitionOptions) -> Result<(), Refusal> {
    let classes = dataset.classes.len();
    match options.test {
        TestSplit::Fraction(fraction) if !(fraction > 0.0 && fraction < 1.0) => {
            return Err((
                format!("the test fraction is {fraction}"),
                "give --test-fraction between 0 and 1, without either",
            ));
        }
        TestSplit::Own if dataset.train_len == dataset.images.len() => {
            let note = dataset.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            let problem = format!("it has no test split of its own{note}");
            return Err((problem, "pass --test-fraction, for example 0.25"));
        }
        _ => {}
    }
    match options.samples_per_device {
        Some(0) => {
            return Err((
                "0 samples per device are asked for".into(),
                "give --samples-per-client of at least 1",
            ));
        }
        None if options.with_replacement => {
            return Err((
                "devices are to draw with replacement, and not told how many samples".into(),
                "give --samples-per-client too",
            ));
        }
        _ => {}
    }
    let samples = dealt(dataset, options.test).len();
    if options.scheme != Scheme::Folder {
        let too_many = options.devices > samples && options.samples_per_device.is_none();
        if options.devices == 0 || samples == 0 || too_many {
            return Err((
                format!("{} devices are to share {samples} samples", options.devices),
                "give --clients between 1 and the number of samples, or --samples-per-client to draw with replacement",
            ));
        }
    }
    match options.scheme {
        Scheme::Classes { per_device } if per_device == 0 || per_device > classes => Err((
            format!("{per_device} classes per device are asked for, and there are {classes}"),
            "give --classes-per-client between 1 and the number of classes",
        )),
        Scheme::Dirichlet { alpha } if !(alpha.is_finite() && alpha > 0.0) => Err((
            format!("Dirichlet's alpha is {alpha}"),
            "give --dirichlet a number above 0, for example 0.1",
        )),
        Scheme::Folder => check_folders(dataset, options),
        _ => Ok(()),
    }
}

fn check_folders(dataset: &Dataset, options: &PartitionOptions) -> Result<(), Refusal> {
    let Some(folders) = &dataset.devices else {
        return Err((
            "it does not come in a folder for each device".into(),
            "choose --classes-per-client, --dirichlet or --iid",
        ));
    };
    if options.devices != 0 && options.devices != folders.len() {
        return Err((
            format!("{} devices are asked for, and there are {} folders", options.devices, folders.len()),
            "leave --clients away, or choose --classes-per-client, --dirichlet or --iid",
        ));
    }
    let untested = folders.iter().find(|folder| folder.test.is_empty());
    if let (TestSplit::Own, Some(folder)) = (options.test, untested) {
        return Err((
            format!("the folder '{}' has no test images", folder.name),
            "give it some, or pass --test-fraction, for example 0.25",
        ));
    }
    if options.with_replacement {
        return Err((
            "a folder's samples are its device's own, and not to be drawn by others".into(),
            "leave --with-replacement away, or choose --classes-per-client, --dirichlet or --iid",
        ));
    }
    Ok(())
}
