//! `fedper predict` as a process.

mod common;

use std::path::Path;

use common::{fedper, stderr, stdout, text};
use fedper::rundir::records::PartitionRecord;
use image::{DynamicImage, GrayImage};

/// A run of a moment on embedded images.
fn run(out: &Path) {
    let args = "run --quiet --model cnn --clients 4 --classes-per-client 3 --samples-per-client 60 --rounds 2 --algorithm fedper,fedavg";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.extend(["--out", text(out)]);
    let output = fedper(&args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// An embedded image as a picture.
fn picture(index: u32) -> GrayImage {
    let images = fedper_data::load("fashion-mnist-small", None, &Default::default()).unwrap().images;
    let size = (images.width as u32, images.height as u32);
    GrayImage::from_raw(size.0, size.1, images.pixels(index as usize).to_vec()).unwrap()
}

#[test]
fn a_device_s_own_network_predicts_what_its_test_measured() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(&out);
    let partition: PartitionRecord =
        serde_json::from_slice(&std::fs::read(out.join("partition.json")).unwrap()).unwrap();
    let images = fedper_data::load("fashion-mnist-small", None, &Default::default()).unwrap().images;
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["image_shape"], serde_json::json!([28, 28, 1]));
    let test = &partition.devices[2].test;
    let files: Vec<String> = test
        .iter()
        .map(|&index| {
            let path = dir.path().join(format!("{index}.png"));
            picture(index).save(&path).unwrap();
            text(&path).to_owned()
        })
        .collect();
    for algorithm in ["fedper", "fedavg"] {
        let output = fedper(&["predict", "--json", "--run", text(&out), "--device", "2"])
            .args(["--algorithm", algorithm])
            .args(&files)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let said: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(said["own"], algorithm == "fedper");
        let found = said["images"].as_array().unwrap();
        assert_eq!(found.len(), test.len());
        let mut right = 0;
        for ((image, file), &index) in found.iter().zip(&files).zip(test) {
            assert_eq!(image["file"], **file);
            let probabilities: Vec<f64> =
                image["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
            assert_eq!(probabilities.len(), 10);
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let label = image["label"].as_u64().unwrap() as usize;
            assert!(probabilities.iter().all(|&p| p <= probabilities[label]));
            assert_eq!(image["class"], *partition.classes[label]);
            right += usize::from(label == usize::from(images.labels()[index as usize]));
        }
        let measured = summary["algorithms"][algorithm]["devices"]["2"].as_f64().unwrap();
        assert_eq!(right as f64 / test.len() as f64, measured, "{algorithm}");
    }
}

#[test]
fn photos_of_any_kind_are_classified_and_what_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(&out);
    let grey = dir.path().join("grey.png");
    picture(5).save(&grey).unwrap();
    let photo = dir.path().join("photo.jpg");
    let large =
        DynamicImage::ImageLuma8(picture(5)).resize_exact(200, 300, image::imageops::FilterType::Nearest);
    large.into_rgb8().save(&photo).unwrap();
    let predict = |args: &[&str]| {
        fedper(&["predict", "--run", text(&out), "--device", "1"]).args(args).output().unwrap()
    };
    let output = predict(&[text(&grey), text(&photo)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.contains("Device 1's own network (fedper)"), "{table}");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with(text(dir.path()))).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows.iter().all(|row| row.matches(" %").count() == 3), "{table}");
    assert_eq!(predict(&["--top", "1", text(&grey)]).stdout.iter().filter(|&&c| c == b'%').count(), 1);
    let shared = stdout(&predict(&["--algorithm", "fedavg", text(&grey)]));
    assert!(shared.contains("all devices share"), "{shared}");

    // The one that is no image is named, the others come all the same.
    let broken = dir.path().join("broken.jpg");
    let bytes = std::fs::read(&photo).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    for json in [false, true] {
        let mut args = vec![text(&broken), text(&grey), "/nowhere/at/all.png"];
        if json {
            args.push("--json");
        }
        let output = predict(&args);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains("broken.jpg") && said.contains("/nowhere/at/all.png"), "{said}");
        assert!(said.ends_with("2 of 3 images could not be classified\n"), "{said}");
        assert_eq!(said.lines().count(), 3, "{said}");
        let printed = stdout(&output);
        assert!(printed.contains("grey.png"), "{printed}");
        if json {
            let all: serde_json::Value = serde_json::from_str(&printed).unwrap();
            assert!(all["images"][0]["error"].as_str().unwrap().contains("broken.jpg"));
            assert!(all["images"][1]["probabilities"].is_array());
        }
    }
}

#[test]
fn what_is_not_there_gets_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    run(&out);
    let image = dir.path().join("image.png");
    picture(0).save(&image).unwrap();
    let says = |run: &Path, args: &[&str], code: i32, expected: &str| {
        let output = fedper(&["predict", "--run", text(run), text(&image)]).args(args).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(stdout(&output), "");
    };
    says(&out, &["--device", "4"], 2, "there is no device 4");
    says(&out, &["--device", "0", "--algorithm", "local"], 2, "has run fedper, fedavg, not local");
    says(dir.path(), &["--device", "0"], 2, "holds no run");
    std::fs::remove_file(out.join("weights/fedper/device-00003.safetensors")).unwrap();
    says(&out, &["--device", "3"], 2, "does not hold its personal layers of fedper");
    std::fs::write(out.join("weights/fedper/device-00002.safetensors"), "no weights").unwrap();
    says(&out, &["--device", "2"], 1, "device-00002.safetensors");
    std::fs::remove_file(out.join("weights/fedper/base.safetensors")).unwrap();
    says(&out, &["--device", "1"], 2, "its weights of fedper are gone");
    // An older run does not say how large its images were: the dataset does.
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    std::fs::write(out.join("summary.json"), summary.replace("\"image_shape\"", "\"x\"")).unwrap();
    let output =
        fedper(&["predict", "--run", text(&out), "--device", "1", "--algorithm", "fedavg", text(&image)]);
    assert!({ output }.output().unwrap().status.success());
}
