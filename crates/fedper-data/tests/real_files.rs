//! The loaders on the real files, where a machine has them; each test says so when it is skipped.

use std::path::{Path, PathBuf};

use fedper_data::{Dataset, LoadOptions, load};

fn read(name: &str, dir: &Path) -> Dataset {
    load(name, Some(dir), &LoadOptions::default()).unwrap()
}

/// How many samples of each class a range of samples has.
fn counts(dataset: &Dataset, samples: std::ops::Range<usize>) -> Vec<usize> {
    let mut counts = vec![0; dataset.classes.len()];
    dataset.images.labels()[samples].iter().for_each(|&label| counts[usize::from(label)] += 1);
    counts
}

#[test]
fn the_whole_of_fashion_mnist() {
    let dir = Path::new("/usr/share/datasets/fashion-mnist");
    if !dir.exists() {
        eprintln!("skipped: {} is missing (Debian: dataset-fashion-mnist)", dir.display());
        return;
    }
    let dataset = read("fashion-mnist", dir);
    assert_eq!((dataset.images.len(), dataset.train_len), (70_000, 60_000));
    assert_eq!(counts(&dataset, 0..60_000), [6000; 10]);
    assert_eq!(counts(&dataset, 60_000..70_000), [1000; 10]);
    // The first train labels, as printed in the README of Fashion-MNIST's mirrors and by torchvision.
    assert_eq!(dataset.images.labels()[..10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
    // The embedded dataset is the same test split in another order.
    let small = load("fashion-mnist-small", None, &LoadOptions::default()).unwrap();
    let sorted = |dataset: &Dataset, samples: std::ops::Range<usize>| {
        let mut all: Vec<(u16, &[u8])> =
            samples.map(|i| (dataset.images.labels()[i], dataset.images.pixels(i))).collect();
        all.sort_unstable();
        all.iter().map(|(label, pixels)| (*label, pixels.to_vec())).collect::<Vec<_>>()
    };
    assert!(sorted(&dataset, 60_000..70_000) == sorted(&small, 0..10_000));
}

#[test]
fn the_whole_of_cifar10() {
    let Some(dir) = std::env::var_os("FEDPER_TEST_CIFAR10").map(PathBuf::from) else {
        eprintln!("skipped: FEDPER_TEST_CIFAR10 does not name the folder that holds cifar-10-batches-bin");
        return;
    };
    let dataset = read("cifar10", &dir);
    assert_eq!((dataset.images.len(), dataset.train_len), (60_000, 50_000));
    assert_eq!([dataset.images.height, dataset.images.width, dataset.images.channels], [32, 32, 3]);
    assert_eq!(counts(&dataset, 0..50_000), [5000; 10]);
    assert_eq!(counts(&dataset, 50_000..60_000), [1000; 10]);
    assert_eq!(dataset.classes[0], "airplane");
    assert_eq!(dataset.classes[9], "truck");
    // Whoever runs this on the official files has no note, and on a re-encoded copy one that says so.
    assert!(dataset.note.as_ref().is_none_or(|note| note.contains("not the official")), "{:?}", dataset.note);
}
