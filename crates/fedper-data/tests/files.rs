//! CIFAR and IDX folders, from the files to the dataset.

use std::fs;
use std::path::Path;

use fedper_data::{Dataset, LoadOptions, load};

/// Records whose pixels are all their label, after `before` (CIFAR-100's coarse class).
fn records(before: &[u8], labels: &[u8]) -> Vec<u8> {
    labels.iter().flat_map(|&label| [before, &[label], &[label; 3072][..]].concat()).collect()
}

fn cifar10(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for batch in 1..=5u8 {
        fs::write(folder.join(format!("data_batch_{batch}.bin")), records(&[], &[batch, batch + 1])).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), records(&[], &[9])).unwrap();
}

fn read(name: &str, dir: &Path) -> Result<Dataset, String> {
    load(name, Some(dir), &LoadOptions::default()).map_err(|e| e.to_string())
}

#[test]
fn cifar10_is_five_files_and_a_test_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cifar-10-batches-bin");
    cifar10(&folder);
    let dataset = read("cifar10", dir.path()).unwrap();
    assert_eq!(dataset.images.labels(), [1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 9]);
    assert_eq!(dataset.images.pixels(9), [6; 3072]);
    assert_eq!(dataset.train_len, 10);
    assert_eq!(
        dataset.classes[..2],
        ["airplane", "automobile"],
        "the official names, if the files have none"
    );
    assert!(dataset.note.unwrap().contains("not the official cifar10 files"));

    fs::write(folder.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
    assert_eq!(read("cifar10", &folder).unwrap().classes[9], "j");
    fs::write(folder.join("batches.meta.txt"), "a\nb\n").unwrap();
    assert!(read("cifar10", &folder).unwrap_err().contains("batches.meta.txt"));
    fs::remove_file(folder.join("batches.meta.txt")).unwrap();

    let options = LoadOptions { image_size: Some((16, 24)), ..LoadOptions::default() };
    let resized = load("cifar10", Some(&folder), &options).unwrap().images;
    assert_eq!((resized.height, resized.width, resized.pixels(9)), (16, 24, &[6; 16 * 24 * 3][..]));

    fs::remove_file(folder.join("data_batch_4.bin")).unwrap();
    assert!(read("cifar10", dir.path()).unwrap_err().contains("data_batch_4.bin"));
    fs::remove_file(folder.join("data_batch_1.bin")).unwrap();
    assert!(read("cifar10", dir.path()).unwrap_err().contains("fedper data fetch cifar10"));
}

#[test]
fn cifar100_is_two_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("train.bin"), records(&[3], &[0, 99])).unwrap();
    fs::write(dir.path().join("test.bin"), records(&[4], &[42])).unwrap();
    let dataset = read("cifar100", dir.path()).unwrap();
    assert_eq!((dataset.images.labels(), dataset.train_len), (&[0, 99, 42][..], 2));
    assert_eq!((dataset.classes[0].as_str(), dataset.classes[99].as_str()), ("apple", "worm"));
}

#[test]
fn cifar100_coarse_is_the_same_files_by_their_other_label() {
    let dir = tempfile::tempdir().unwrap();
    // As the archive unpacks; coarse 3 is food containers, fine 9 is bottle.
    let folder = dir.path().join("cifar-100-binary");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("train.bin"), records(&[3], &[9, 10])).unwrap();
    fs::write(folder.join("test.bin"), records(&[19], &[42])).unwrap();
    let (coarse, fine) =
        (read("cifar100-coarse", dir.path()).unwrap(), read("cifar100", dir.path()).unwrap());
    assert_eq!((coarse.images.labels(), coarse.train_len), (&[3, 3, 19][..], 2));
    assert_eq!(fine.images.labels(), [9, 10, 42]);
    assert_eq!((coarse.classes.len(), coarse.classes[3].as_str()), (20, "food_containers"));
    assert_eq!(fine.classes[9], "bottle");
    assert!((0..3).all(|i| coarse.images.pixels(i) == fine.images.pixels(i)));

    // Each has a file of names of its own.
    let names = |count: u32, prefix: &str| (0..count).map(|i| format!("{prefix}{i}\n")).collect::<String>();
    fs::write(folder.join("fine_label_names.txt"), names(100, "f")).unwrap();
    fs::write(folder.join("coarse_label_names.txt"), names(20, "c")).unwrap();
    assert_eq!(read("cifar100-coarse", &folder).unwrap().classes[19], "c19");
    assert_eq!(read("cifar100", &folder).unwrap().classes[99], "f99");
    fs::write(folder.join("coarse_label_names.txt"), names(19, "c")).unwrap();
    assert!(read("cifar100-coarse", &folder).unwrap_err().contains("coarse_label_names.txt"));
    fs::remove_file(folder.join("coarse_label_names.txt")).unwrap();

    // A file that ends early is named, and where it ends.
    let whole = records(&[3], &[9, 10]);
    fs::write(folder.join("train.bin"), &whole[..whole.len() - 1]).unwrap();
    for name in ["cifar100", "cifar100-coarse"] {
        let message = read(name, dir.path()).unwrap_err();
        assert!(message.contains("train.bin") && message.contains("3073 bytes after record 1"), "{message}");
    }
    fs::write(folder.join("train.bin"), whole).unwrap();
    fs::write(folder.join("test.bin"), &records(&[19], &[42])[..100]).unwrap();
    let message = read("cifar100-coarse", dir.path()).unwrap_err();
    assert!(message.contains("test.bin") && message.contains("100 bytes after record 0"), "{message}");
}

#[test]
fn idx_files_are_read_plain_or_compressed_and_named_when_missing() {
    let dir = tempfile::tempdir().unwrap();
    let idx = |dimensions: &[u32], values: &[u8]| {
        let header = dimensions.iter().flat_map(|side| side.to_be_bytes());
        [0, 0, 8, dimensions.len() as u8]
            .into_iter()
            .chain(header)
            .chain(values.iter().copied())
            .collect::<Vec<u8>>()
    };
    let write = |file: &str, bytes: Vec<u8>| fs::write(dir.path().join(file), bytes).unwrap();
    write("train-images-idx3-ubyte", idx(&[2, 1, 2], &[1, 2, 3, 4]));
    write("train-labels-idx1-ubyte", idx(&[2], &[7, 0]));
    write("t10k-images-idx3-ubyte", idx(&[1, 1, 2], &[5, 6]));
    assert!(read("mnist", dir.path()).unwrap_err().contains("t10k-labels-idx1-ubyte"));
    write("t10k-labels-idx1-ubyte", idx(&[1], &[9]));
    let dataset = read("mnist", dir.path()).unwrap();
    assert_eq!((dataset.images.labels(), dataset.images.pixels(2)), (&[7, 0, 9][..], &[5, 6][..]));
    write("t10k-images-idx3-ubyte", idx(&[1, 2, 1], &[5, 6]));
    assert!(read("mnist", dir.path()).unwrap_err().contains("images of 1x2, as in the train split"));
}
