//! Reading a dataset by its name.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::catalogue::{DatasetInfo, DatasetKind, catalogue};
use crate::error::io;
use crate::left_out::LeftOut;
use crate::resize::Resize;
use crate::{DataError, Dataset, LoadOptions, cifar, embedded, flickr, folder, idx, locate};

/// Reads a dataset by name (see [`catalogue`]) from `dir`, or from where it is usually kept if `dir` is `None`.
///
/// # Errors
/// If there is no such dataset, its files are not found, or they are not what they should be.
pub fn load(name: &str, dir: Option<&Path>, options: &LoadOptions) -> Result<Dataset, DataError> {
    load_watched(name, dir, options, &mut |_, _| ())
}

/// Like [`load`], for datasets that take their time: `progress` is called with how many photos are decoded, and how many
/// there are to decode.
///
/// # Errors
/// As [`load`].
pub fn load_watched(
    name: &str,
    dir: Option<&Path>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Dataset, DataError> {
    let info = find_info(name)?;
    let mut dataset = match info.kind {
        DatasetKind::Embedded => embedded::load(info)?,
        DatasetKind::Idx => load_idx(info, dir)?,
        DatasetKind::Cifar10 => load_cifar(
            info,
            dir,
            cifar::CIFAR10,
            &[
                "data_batch_1.bin",
                "data_batch_2.bin",
                "data_batch_3.bin",
                "data_batch_4.bin",
                "data_batch_5.bin",
            ],
            "test_batch.bin",
            "batches.meta.txt",
        )?,
        DatasetKind::Cifar100 => {
            load_cifar(info, dir, cifar::CIFAR100, &["train.bin"], "test.bin", "fine_label_names.txt")?
        }
        DatasetKind::Cifar100Coarse => {
            let (layout, names) = (cifar::CIFAR100_COARSE, "coarse_label_names.txt");
            load_cifar(info, dir, layout, &["train.bin"], "test.bin", names)?
        }
        DatasetKind::Folder => {
            let dir = dir.ok_or_else(|| DataError::NotFound {
                dataset: info.name,
                missing: "a folder of images".into(),
                looked: "no folder".into(),
                advice: "name it with --data-dir".into(),
            })?;
            return folder::load(dir, options, progress);
        }
        DatasetKind::FlickrAes => return flickr::load(info, dir, options, progress),
    };
    if let Some((height, width)) = options.image_size
        && (height, width) != (dataset.images.height, dataset.images.width)
    {
        dataset.images = dataset.images.resized(&Resize::new((height, width))?)?;
    }
    Ok(dataset)
}

/// The entry of the catalogue.
pub(crate) fn find_info(name: &str) -> Result<&'static DatasetInfo, DataError> {
    catalogue().iter().find(|info| info.name == name).ok_or_else(|| DataError::UnknownDataset {
        name: name.into(),
        known: catalogue().iter().map(|info| info.name).collect::<Vec<_>>().join(", "),
    })
}

fn load_idx(info: &'static DatasetInfo, dir: Option<&Path>) -> Result<Dataset, DataError> {
    let folder = locate::find(info, dir, "train-images-idx3-ubyte")?;
    let read = |split: &str| {
        let open = |file: String| {
            // Named as if plain when neither is there, so that the error names what is missing.
            let path = locate::member(&folder, &file).unwrap_or_else(|| folder.join(&file));
            let opened = File::open(&path).map_err(io("open", &path))?;
            Ok::<_, DataError>((BufReader::new(opened), path.display().to_string()))
        };
        let images = open(format!("{split}-images-idx3-ubyte"))?;
        let labels = open(format!("{split}-labels-idx1-ubyte"))?;
        idx::read_images((images.0, &images.1), (labels.0, &labels.1), info.classes.len())
    };
    let mut images = read("train")?;
    let train_len = images.len();
    let test = read("t10k")?;
    if (test.height, test.width) != (images.height, images.width) {
        return Err(DataError::Format {
            file: folder.join("t10k-images-idx3-ubyte").display().to_string(),
            format: "IDX",
            expected: format!("images of {}x{}, as in the train split", images.height, images.width),
            found: format!("{}x{}", test.height, test.width),
        });
    }
    images.append(test);
    Ok(Dataset {
        name: info.name.into(),
        classes: info.classes.iter().map(|&class| class.into()).collect(),
        images,
        train_len,
        devices: None,
        left_out: LeftOut::default(),
        note: None,
    })
}

fn load_cifar(
    info: &'static DatasetInfo,
    dir: Option<&Path>,
    layout: cifar::Layout,
    train: &[&str],
    test: &str,
    names: &str,
) -> Result<Dataset, DataError> {
    let folder = locate::find(info, dir, train[0])?;
    let mut images = cifar::read_file(&folder.join(train[0]), layout, &mut |_| ())?;
    for file in &train[1..] {
        images.append(cifar::read_file(&folder.join(file), layout, &mut |_| ())?);
    }
    let train_len = images.len();
    let mut hasher = Sha256::new();
    images.append(cifar::read_file(&folder.join(test), layout, &mut |bytes| hasher.update(bytes))?);
    // Copies that were compressed, resized or cut look the same to a reader, and give other accuracies.
    let official = crate::hex(&hasher.finalize()) == layout.test_sha256;
    Ok(Dataset {
        name: info.name.into(),
        classes: class_names(&folder.join(names), info)?,
        images,
        train_len,
        devices: None,
        left_out: LeftOut::default(),
        note: (!official)
            .then(|| format!("not the official {} files: {test} has another checksum", info.name)),
    })
}

/// The classes' names from a file with one a line, or the official ones if there is no such file.
fn class_names(path: &Path, info: &DatasetInfo) -> Result<Vec<String>, DataError> {
    if !path.exists() {
        return Ok(info.classes.iter().map(|&class| class.into()).collect());
    }
    let text = fs::read_to_string(path).map_err(io("read", path))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() != info.classes.len() {
        return Err(DataError::Format {
            file: path.display().to_string(),
            format: "a list of classes",
            expected: format!("{} lines", info.classes.len()),
            found: names.len().to_string(),
        });
    }
    Ok(names)
}
