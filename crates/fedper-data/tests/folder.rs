//! Folders of image files, from the files to the dataset.

use std::fs;
use std::path::Path;

use fedper_data::{Dataset, LoadOptions, PartitionOptions, Scheme, TestSplit, load, partition};
use image::{GrayImage, Luma, Rgb, RgbImage};

fn save_grey(path: &Path, width: u32, height: u32, value: impl Fn(u32, u32) -> u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_fn(width, height, |x, y| Luma([value(x, y)])).save(path).unwrap();
}

fn save_rgb(path: &Path, width: u32, height: u32, value: impl Fn(u32, u32) -> [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_fn(width, height, |x, y| Rgb(value(x, y))).save(path).unwrap();
}

fn read(dir: &Path, image_size: Option<(usize, usize)>) -> Result<Dataset, String> {
    load("folder", Some(dir), &LoadOptions { image_size, ..LoadOptions::default() })
        .map_err(|e| e.to_string())
}

#[test]
fn grey_stays_grey_if_all_are_grey() {
    let dir = tempfile::tempdir().unwrap();
    save_grey(&dir.path().join("train/a/1.png"), 3, 2, |x, y| (10 * y + x) as u8);
    save_grey(&dir.path().join("test/a/1.png"), 3, 2, |_, _| 200);
    let dataset = read(dir.path(), None).unwrap();
    assert_eq!([dataset.images.height, dataset.images.width, dataset.images.channels], [2, 3, 1]);
    assert_eq!(dataset.images.pixels(0), [0, 1, 2, 10, 11, 12]);
    assert_eq!(dataset.train_len, 1);

    save_rgb(&dir.path().join("train/b/1.png"), 3, 2, |x, y| [x as u8, y as u8, 9]);
    let dataset = read(dir.path(), None).unwrap();
    assert_eq!(dataset.images.channels, 3);
    assert_eq!(dataset.images.pixels(0)[3..9], [1, 1, 1, 2, 2, 2]);
    assert_eq!(dataset.images.pixels(1)[12..], [1, 1, 9, 2, 1, 9]);
    assert_eq!(dataset.images.labels(), [0, 1, 0]);
}

#[test]
fn sizes_that_differ_need_an_image_size() {
    let dir = tempfile::tempdir().unwrap();
    save_rgb(&dir.path().join("x/a/1.jpg"), 16, 16, |_, _| [250, 0, 0]);
    save_rgb(&dir.path().join("y/a/2.jpeg"), 24, 8, |_, _| [0, 0, 250]);
    let message = read(dir.path(), None).unwrap_err();
    assert!(message.contains("--image-size") && message.contains("2.jpeg is 8x24"), "{message}");
    let dataset = read(dir.path(), Some((8, 8))).unwrap();
    assert_eq!((dataset.images.height, dataset.images.width, dataset.images.len()), (8, 8, 2));
    let near = |pixel: &[u8], colour: [u8; 3]| pixel.iter().zip(colour).all(|(&a, b)| a.abs_diff(b) < 10);
    assert!(near(&dataset.images.pixels(0)[..3], [250, 0, 0]));
    assert!(near(&dataset.images.pixels(1)[..3], [0, 0, 250]));
    assert!(read(dir.path(), Some((0, 8))).is_err());
}

#[test]
fn a_broken_image_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for format in ["png", "jpg"] {
        let good = dir.path().join(format!("train/a/good.{format}"));
        save_rgb(&good, 64, 64, |x, y| [(3 * x) as u8, (3 * y) as u8, (x * y) as u8]);
        let bytes = fs::read(&good).unwrap();
        let bad = dir.path().join(format!("train/a/bad.{format}"));
        let mut absurd = bytes.clone();
        // The sides in PNG's header, and in the frame header of a JPEG.
        if format == "png" {
            absurd[16..24].fill(0x7f);
        } else {
            let frame = absurd.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
            absurd[frame + 5..frame + 9].fill(0xff);
        }
        for broken in [&b""[..], b"<html>not found</html>", &bytes[..20], &bytes[..bytes.len() / 2], &absurd]
        {
            fs::write(&bad, broken).unwrap();
            let read = read(dir.path(), None).map(|dataset| dataset.images.len());
            let message = read.expect_err(&format!("{format}, {} bytes", broken.len()));
            assert!(message.contains(&format!("bad.{format}")), "{message}");
        }
        fs::remove_file(bad).unwrap();
    }
    assert_eq!(read(dir.path(), None).unwrap().images.len(), 2);
}

#[test]
fn a_folder_for_each_device_is_partitioned_by_folder() {
    let dir = tempfile::tempdir().unwrap();
    for (device, classes) in [("ada", &["cat", "dog"][..]), ("bob", &["dog"])] {
        for class in classes {
            for i in 0..4 {
                save_grey(&dir.path().join(format!("{device}/{class}/{i}.png")), 2, 2, |_, _| i);
            }
        }
    }
    let dataset = read(dir.path(), None).unwrap();
    let names: Vec<_> = dataset.devices.as_ref().unwrap().iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["ada", "bob"]);
    let options = PartitionOptions {
        scheme: Scheme::Folder,
        devices: 0,
        samples_per_device: None,
        with_replacement: false,
        test: TestSplit::Fraction(0.25),
        seed: 1,
    };
    let parts = partition(&dataset, &options).unwrap();
    let sizes: Vec<_> = parts.shards().map(|shard| (shard.train.len(), shard.test.len())).collect();
    assert_eq!(sizes, [(6, 2), (3, 1)]);
    let own =
        partition(&dataset, &PartitionOptions { test: TestSplit::Own, ..options }).unwrap_err().to_string();
    assert!(own.contains("--test-fraction"), "{own}");
}

#[test]
fn no_folder_is_an_error_that_says_so() {
    let message = load("folder", None, &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("--data-dir"), "{message}");
    let message = load("cifar11", None, &LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("cifar11") && message.contains("cifar10, cifar100"), "{message}");
}
