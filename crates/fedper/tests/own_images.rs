//! People's own images, from files to runs, as a process; and samples in memory.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{fedper, settings, stderr, stdout, text};
use fedper::experiment::Experiment;
use fedper_data::{Dataset, Images};
use image::codecs::png::PngEncoder;
use image::{GrayImage, ImageEncoder, Luma};

/// Saves a grey picture; the format follows the name.
fn save(path: &Path, seed: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture(seed).save(path).unwrap();
}

fn picture(seed: u8) -> GrayImage {
    GrayImage::from_fn(12, 8, |x, y| Luma([(7 * x * u32::from(seed) + 11 * y) as u8]))
}

/// A folder of three classes, one of which is WebP alone, and a place for everything else.
fn photos() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    for (class, format) in [("cat", "jpg"), ("dog", "png"), ("owl", "webp")] {
        for i in 0..8 {
            save(&photos.join(format!("Training/{class}/{i}.{format}")), i);
        }
        save(&photos.join(format!("Testing/{class}/8.{format}")), 8);
    }
    (dir, photos)
}

fn on(command: &str, photos: &Path, args: &[&str]) -> Output {
    let mut run = fedper(&command.split(' ').collect::<Vec<_>>());
    run.env("XDG_CACHE_HOME", photos.parent().unwrap().join("cache"));
    run.args(["--dataset", "folder", "--data-dir", text(photos)]).args(args).output().unwrap()
}

fn run(photos: &Path, out: &Path, args: &[&str]) -> Output {
    let few = ["--model", "mlp", "--rounds", "1", "--algorithm", "fedper", "--quiet", "--out", text(out)];
    on("run", photos, &[&few, args].concat())
}

#[test]
fn every_class_is_there_or_said_to_be_unreadable() {
    let (_dir, photos) = photos();
    let output = on("data partition", &photos, &["--clients", "3", "--classes-per-client", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(
        printed.contains("2  owl") && printed.contains("trained on 'Training', tested on 'Testing'"),
        "{printed}"
    );
    assert_eq!(stderr(&output), "");

    for i in 0..8 {
        let [webp, heic] = ["webp", "heic"].map(|end| photos.join(format!("Training/owl/{i}.{end}")));
        fs::rename(webp, heic).unwrap();
    }
    let output = on("data partition", &photos, &["--clients", "3", "--classes-per-client", "2"]);
    let message = stderr(&output);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
    assert!(message.contains("'Training/owl' holds 8 .heic files; convert them"), "{message}");

    // A mix is used, and what is not is said.
    save(&photos.join("Training/owl/new.png"), 3);
    save(&photos.join("Training/owl/newer.png"), 4);
    let out = photos.with_file_name("run");
    let output = run(&photos, &out, &["--iid", "--clients", "2", "--batch-size", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: 8 .heic files left out"), "{}", stderr(&output));
    assert!(stdout(&output).contains("8 .heic files left out"), "{}", stdout(&output));
    assert!(!fs::read_to_string(out.join("config.toml")).unwrap().contains("skip_broken"));
}

#[test]
fn broken_images_are_all_named_or_left_out() {
    let (dir, photos) = photos();
    fs::write(photos.join("Training/cat/1.jpg"), "GIF89a").unwrap();
    fs::write(photos.join("Training/dog/5.png"), "<html>404</html>").unwrap();
    let out = dir.path().join("run");
    let args = ["--iid", "--clients", "2", "--batch-size", "11"];
    let output = run(&photos, &out, &args);
    let message = stderr(&output);
    assert_eq!((output.status.code(), message.lines().count()), (Some(2), 1), "{message}");
    for said in
        ["2 of the 27 images", "cat/1.jpg (it is a GIF image", "dog/5.png (it is a web page", "--skip-broken"]
    {
        assert!(message.contains(said), "{message}");
    }
    assert!(!out.exists());

    let output = run(&photos, &out, &[&args[..], &["--skip-broken"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: photo Training/cat/1.jpg is left out"), "{}", stderr(&output));
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("skip_broken = true"));
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert!(summary["dataset_note"].as_str().unwrap().contains("2 photos left out"), "{summary}");
    assert_eq!(
        summary["pixels"],
        serde_json::json!({ "scale": 255.0, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5] })
    );

    // What the pixels are made to goes with an exported network.
    let file = dir.path().join("weights.safetensors");
    let export = ["model", "export", "--run", text(&out), "--algorithm", "fedper", "--device", "1", "--out"];
    assert!(fedper(&export).arg(&file).output().unwrap().status.success());
    let note = fedper_nn::weights::read_note(&fs::read(&file).unwrap(), "pixels").unwrap().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&note).unwrap(), summary["pixels"]);
    assert!(fedper_nn::weights::read_safetensors(&fs::read(&file).unwrap()).is_ok());

    let output = fedper(&["run", "--skip-broken", "--out", "nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("skip_broken is for the dataset folder"), "{}", stderr(&output));
}

#[test]
fn a_deployment_s_folders_run_with_their_own_tests() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    for (device, train, test) in [("ward-1", 6, 2), ("ward-2", 4, 3)] {
        for class in ["a", "b"] {
            for i in 0..train + test {
                let split = if i < train { "train" } else { "test" };
                save(&photos.join(format!("{device}/{split}/{class}/{i}.png")), i);
            }
        }
    }
    let out = dir.path().join("run");
    let output = run(&photos, &out, &["--batch-size", "4"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("a folder for each of 2 devices, trained on 'train'"),
        "{}",
        stdout(&output)
    );
    let partition: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("partition.json")).unwrap()).unwrap();
    for (device, train, test) in [(0, 12, 4), (1, 8, 6)] {
        let device = &partition["devices"][device];
        assert_eq!(device["train"].as_array().unwrap().len(), train);
        assert_eq!(device["test"].as_array().unwrap().len(), test);
    }
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("by_folder = true") && config.contains("clients = 2"), "{config}");
}

#[test]
fn a_turned_photo_is_predicted_as_it_is_seen() {
    let (dir, photos) = photos();
    let out = dir.path().join("run");
    assert!(run(&photos, &out, &["--iid", "--clients", "2", "--batch-size", "3"]).status.success());
    let [plain, turned] = ["plain.png", "turned.png"].map(|name| dir.path().join(name));
    picture(3).save(&plain).unwrap();
    // A quarter turn back, and the orientation that says so.
    let stored = image::imageops::rotate270(&picture(3));
    let mut encoder = PngEncoder::new(fs::File::create(&turned).unwrap());
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    encoder.set_exif_metadata(exif).unwrap();
    stored.write_with_encoder(encoder).unwrap();
    let output = fedper(&["predict", "--json", "--run", text(&out), "--device", "0"])
        .args([&plain, &turned])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["images"][0]["probabilities"], said["images"][1]["probabilities"], "{said}");
}

#[test]
fn samples_in_memory_keep_their_name_and_all_of_them() {
    let dataset = |name: &str| Dataset {
        name: name.into(),
        classes: vec!["a".into(), "b".into()],
        images: Images::new([4, 4, 1], vec![7; 16 * 1000], (0..1000).map(|i| i % 2).collect()).unwrap(),
        train_len: 800,
        devices: None,
        note: None,
        left_out: fedper_data::LeftOut::default(),
    };
    for text in ["", "dataset = 'fashion-mnist-small'\n", "dataset = 'flickr-aes'\n"] {
        let settings = settings(&format!("{text}iid = true\nclients = 2\nmodel = 'mlp'"));
        let experiment = Experiment::with_dataset(&settings, dataset("mine")).unwrap();
        let config = &experiment.config;
        assert_eq!(
            (&config.dataset[..], config.samples_per_client, config.test_fraction),
            ("mine", None, None)
        );
        assert_eq!(experiment.partition.train_len(0), 400);
        assert_eq!(
            fedper::config::Config::resolve(&settings).unwrap().samples_per_client.is_some(),
            !text.contains("flickr")
        );
    }
    // Of a dataset that the program knows, the file of settings alone must say the same.
    let settings = settings("iid = true\nclients = 2\nmodel = 'mlp'");
    let loaded = fedper_data::load("fashion-mnist-small", None, &Default::default()).unwrap();
    let [memory, named] =
        [Experiment::with_dataset(&settings, loaded), Experiment::prepare(&settings)].map(Result::unwrap);
    assert_eq!(memory.config, named.config);
}
