//! Folders of image files, from the files to the dataset.

use std::fs;
use std::path::{Path, PathBuf};

use fedper_data::{Dataset, LoadOptions, PartitionOptions, Scheme, TestSplit, load, partition};
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{GrayImage, ImageEncoder, Luma, Rgb, RgbImage};

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
    for format in ["png", "jpg", "webp"] {
        let good = dir.path().join(format!("train/a/good.{format}"));
        save_rgb(&good, 64, 64, |x, y| [(3 * x) as u8, (3 * y) as u8, (x * y) as u8]);
        let bytes = fs::read(&good).unwrap();
        let bad = dir.path().join(format!("train/a/bad.{format}"));
        let mut absurd = bytes.clone();
        // The sides in PNG's header, in that of a lossless WebP, and in the frame header of a JPEG.
        if format == "png" {
            absurd[16..24].fill(0x7f);
        } else if format == "webp" {
            absurd[21..24].fill(0xff);
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
    assert_eq!(read(dir.path(), None).unwrap().images.len(), 3);
}

/// The part of EXIF that says how an image is turned.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

/// Saves an image of four squares (upper left and right, lower left and right), stored turned by an orientation.
fn save_turned(path: &Path, orientation: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = RgbImage::from_fn(32, 16, |x, y| Rgb([50 * (1 + x as u8 / 16 + 2 * (y as u8 / 8)); 3]));
    let file = &mut fs::File::create(path).unwrap();
    fn encode(image: &RgbImage, mut encoder: impl ImageEncoder, orientation: u8) {
        encoder.set_exif_metadata(exif(orientation)).unwrap();
        image.write_with_encoder(encoder).unwrap();
    }
    match path.extension().unwrap().to_str() {
        Some("jpg") => encode(&image, JpegEncoder::new_with_quality(file, 95), orientation),
        Some("png") => encode(&image, PngEncoder::new(file), orientation),
        _ => encode(&image, WebPEncoder::new_lossless(file), orientation),
    }
}

#[test]
fn images_stand_as_their_exif_orientation_says() {
    // Where each of the stored squares 1 2 / 3 4 is seen, from the EXIF standard's table of orientations.
    let seen = [
        [1, 2, 3, 4],
        [2, 1, 4, 3],
        [4, 3, 2, 1],
        [3, 4, 1, 2],
        [1, 3, 2, 4],
        [3, 1, 4, 2],
        [4, 2, 3, 1],
        [2, 4, 1, 3],
    ];
    let near = |pixels: &[u8], width: usize, [y, x]: [usize; 2], square: u8| {
        pixels[3 * (y * width + x)].abs_diff(50 * square) < 8
    };
    for ending in ["jpg", "png", "webp"] {
        for (orientation, squares) in (1..).zip(seen) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(format!("a/1.{ending}"));
            save_turned(&path, orientation);
            let (height, width) = if orientation < 5 { (16, 32) } else { (32, 16) };
            let places = [[2, 2], [2, width - 3], [height - 3, 2], [height - 3, width - 3]];
            // As it is, in a file, and for a prediction.
            let options = LoadOptions {
                cache: Some(dir.path().join("cache")),
                memory: Some(0),
                ..LoadOptions::default()
            };
            fs::create_dir(dir.path().join("photos")).unwrap();
            fs::rename(dir.path().join("a"), dir.path().join("photos/a")).unwrap();
            let photos = dir.path().join("photos");
            let stored = load("folder", Some(&photos), &options).unwrap().images;
            let memory = read(&photos, None).unwrap().images;
            let mut buffer = Vec::new();
            let alone = fedper_data::read_image(&photos.join(format!("a/1.{ending}")), [height, width, 3]);
            for pixels in [memory.pixels(0), stored.read(0, &mut buffer).unwrap(), &alone.unwrap()] {
                assert_eq!(pixels.len(), 3 * height * width);
                for (place, square) in places.into_iter().zip(squares) {
                    assert!(
                        near(pixels, width, place, square),
                        "{ending} {orientation} {place:?} is not {square}"
                    );
                }
            }
            assert_eq!([memory.height, memory.width], [height, width]);
        }
    }
    // What is no orientation turns nothing.
    let dir = tempfile::tempdir().unwrap();
    save_turned(&dir.path().join("a/1.jpg"), 9);
    assert_eq!(read(dir.path(), None).unwrap().images.height, 16);
}

/// A folder of images, some grey, in two classes and two splits, and one for the cache.
fn photos(colour: bool) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    for i in 0..30u8 {
        let split = if i % 3 == 0 { "test" } else { "train" };
        let path = photos.join(format!("{split}/class-{}/{i}.png", i % 2));
        if colour && i % 4 == 1 {
            save_rgb(&path, 12, 9, |x, y| [i, (9 * x) as u8, (20 * y) as u8]);
        } else {
            save_grey(&path, 12, 9, |x, y| (x * y) as u8 + i);
        }
    }
    (dir, photos)
}

#[test]
fn many_images_are_in_a_file_and_the_same() {
    for colour in [false, true] {
        let (dir, photos) = photos(colour);
        // A name that is hard to keep in an index.
        fs::copy(photos.join("train/class-0/2.png"), photos.join("train/class-0/a\tb \"\n.png")).unwrap();
        for image_size in [None, Some((5, 7))] {
            let options = |memory| LoadOptions {
                image_size,
                memory: Some(memory),
                cache: Some(dir.path().join("cache")),
                ..LoadOptions::default()
            };
            let memory = load("folder", Some(&photos), &options(1 << 20)).unwrap();
            assert!(memory.images.in_memory());
            for time in ["decoded", "found again"] {
                let stored = load("folder", Some(&photos), &options(1000)).unwrap();
                assert!(!stored.images.in_memory());
                assert_eq!((stored.train_len, &stored.note), (memory.train_len, &memory.note));
                assert_eq!(stored.images.labels(), memory.images.labels());
                assert_eq!(stored.images.channels, if colour { 3 } else { 1 });
                let mut buffer = Vec::new();
                for i in 0..memory.images.len() {
                    let read = stored.images.read(i, &mut buffer).unwrap();
                    assert_eq!(read, memory.images.pixels(i), "{i} {time} {colour} {image_size:?}");
                }
            }
        }
        // One size for all is asked for whether others are in the cache, resized, or not.
        save_grey(&photos.join("train/class-0/large.png"), 24, 18, |_, _| 1);
        for memory in [0, 1 << 20] {
            let cache = Some(dir.path().join("cache"));
            let options = LoadOptions { cache, memory: Some(memory), ..LoadOptions::default() };
            let resized = LoadOptions { image_size: Some((9, 12)), ..options.clone() };
            assert!(load("folder", Some(&photos), &resized).is_ok());
            let message = load("folder", Some(&photos), &options).unwrap_err().to_string();
            assert!(message.contains("large.png is 18x24") && message.contains("--image-size"), "{message}");
        }
    }
}

#[test]
fn all_broken_images_are_named_at_once_or_left_out() {
    let (dir, photos) = photos(true);
    let whole = fs::read(photos.join("train/class-1/1.png")).unwrap();
    fs::write(photos.join("train/class-1/1.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(photos.join("train/class-0/2.png"), "GIF89a, in truth").unwrap();
    fs::write(photos.join("test/class-0/0.png"), "").unwrap();
    for memory in [0, 1 << 20] {
        let cache = Some(dir.path().join("cache"));
        let options = LoadOptions { cache, memory: Some(memory), ..LoadOptions::default() };
        let message = load("folder", Some(&photos), &options).unwrap_err().to_string();
        for said in [
            "cannot decode 3 of the 30 images",
            "class-1/1.png (",
            "class-0/2.png (it is a GIF image, not JPEG, PNG or WebP, whatever its name; convert it",
            "magick '2.png[0]' '2.png.png'",
            "class-0/0.png (it is empty; get it again)",
            "--skip-broken",
        ] {
            assert!(message.contains(said), "{said}: {message}");
        }
        assert!(!message.contains('\n') && !message.contains("repair"), "{message}");

        let options = LoadOptions { skip_broken: true, ..options };
        let dataset = load("folder", Some(&photos), &options).unwrap();
        assert_eq!((dataset.images.len(), dataset.train_len), (27, 18));
        assert_eq!(dataset.left_out.broken.len(), 3);
        let note = dataset.note.unwrap();
        assert!(note.contains("3 photos left out: 0 missing, 3 broken"), "{note}");
        // The labels are still those of their images: every second number is of class 1.
        let mut buffer = Vec::new();
        for i in 0..27 {
            let first = dataset.images.read(i, &mut buffer).unwrap()[0];
            assert_eq!(u16::from(first % 2), dataset.images.labels()[i], "{i}");
        }
    }
    for i in 0..30 {
        fs::write(photos.join(format!("{}/class-1/{i}.png", if i % 3 == 0 { "test" } else { "train" })), "x")
            .ok();
    }
    let options = LoadOptions { skip_broken: true, ..LoadOptions::default() };
    let message = load("folder", Some(&photos), &options).unwrap_err().to_string();
    assert!(message.contains("all images of class 'class-1' are broken"), "{message}");
    let message = read(&photos, None).unwrap_err();
    assert!(message.contains(" more; or leave them out"), "{message}");
}

#[test]
fn a_deployment_s_folders_are_simulated_with_their_own_tests() {
    let dir = tempfile::tempdir().unwrap();
    for (device, split, class, count) in [
        ("ward-1", "train", "a", 4),
        ("ward-1", "train", "b", 2),
        ("ward-1", "test", "a", 3),
        ("ward-2", "Train", "b", 5),
        ("ward-2", "Val", "b", 2),
        ("ward-2", "Val", "a", 1),
    ] {
        for i in 0..count {
            save_grey(&dir.path().join(format!("{device}/{split}/{class}/{i}.png")), 2, 2, |_, _| i);
        }
    }
    let dataset = read(dir.path(), None).unwrap();
    let options = |scheme, devices, test| PartitionOptions {
        scheme,
        devices,
        samples_per_device: None,
        with_replacement: false,
        test,
        seed: 1,
    };
    let sizes = |options| -> Vec<(usize, usize)> {
        let parts = partition(&dataset, &options).unwrap();
        parts.shards().map(|shard| (shard.train.len(), shard.test.len())).collect()
    };
    // Class a is unknown to the second ward: its one test image is not used, as where a device reads its own folder.
    assert_eq!(sizes(options(Scheme::Folder, 0, TestSplit::Own)), [(6, 3), (5, 2)]);
    let second = read(&dir.path().join("ward-2"), None).unwrap();
    let alone = partition(&second, &options(Scheme::Iid, 1, TestSplit::Own)).unwrap();
    assert_eq!((alone.shard(0).train.len(), alone.shard(0).test.len()), (5, 2));
    // A fraction is of all that the device has.
    assert_eq!(sizes(options(Scheme::Folder, 2, TestSplit::Fraction(0.25))), [(7, 2), (6, 2)]);
    let parts = partition(&dataset, &options(Scheme::Folder, 0, TestSplit::Own)).unwrap();
    let mut own = parts.shard(0).train.clone();
    own.sort_unstable();
    assert_eq!((own, &parts.shard(0).test[..]), ((0..6).collect(), &[11, 12, 13][..]));
    // Whoever deals the samples otherwise has them in two splits too.
    assert_eq!(sizes(options(Scheme::Iid, 1, TestSplit::Own)), [(11, 6)]);

    fs::remove_dir_all(dir.path().join("ward-2/Val")).unwrap();
    let dataset = read(dir.path(), None).unwrap();
    let message = partition(&dataset, &options(Scheme::Folder, 0, TestSplit::Own)).unwrap_err().to_string();
    assert!(
        message.contains("'ward-2' has no test images") && message.contains("--test-fraction"),
        "{message}"
    );
    let fraction = partition(&dataset, &options(Scheme::Folder, 0, TestSplit::Fraction(0.25))).unwrap();
    assert_eq!(fraction.len(), 2);
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
