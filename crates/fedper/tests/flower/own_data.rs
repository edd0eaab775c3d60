//! Devices with folders of images of their own, and the networks they end up with.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fedper::kept::Deployed;
use image::GrayImage;

use crate::common::fedper;
use crate::support::{Place, distance, free_port, lines, url, venv, weights};

const CLASSES: usize = 3;

/// A folder with images of the first classes of the embedded data, each class's from the `skip`th on.
fn photos(folder: &Path, skip: usize, train: usize, test: usize) {
    let data = fedper_data::load("fashion-mnist-small", None, &fedper_data::LoadOptions::default()).unwrap();
    let size = (data.images.width as u32, data.images.height as u32);
    for label in 0..CLASSES {
        let labels = data.images.labels();
        let of_class = (0..labels.len()).filter(|&i| usize::from(labels[i]) == label).skip(skip);
        let parts = std::iter::repeat_n("train", train).chain(std::iter::repeat_n("test", test));
        for (i, part) in of_class.zip(parts) {
            let folder = folder.join(part).join(format!("class-{label}"));
            std::fs::create_dir_all(&folder).unwrap();
            let image = GrayImage::from_raw(size.0, size.1, data.images.pixels(i).to_vec()).unwrap();
            image.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
}

/// Of a device's own test images, the part that its own network gets right, as `fedper predict` says.
fn predicted(state: &Path, photos: &Path, test: usize) -> f64 {
    let (mut right, mut all) = (0, 0);
    for label in 0..CLASSES {
        let folder = photos.join(format!("test/class-{label}"));
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut command = fedper(&["predict", "--json", "--state"]);
        let output = command.arg(state).args(files).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&said["own"], &said["algorithm"], &said["round"]),
            (&true.into(), &"fedper".into(), &4.into())
        );
        let images = said["images"].as_array().unwrap();
        all += images.len();
        right += images.iter().filter(|image| image["class"] == format!("class-{label}")).count();
    }
    assert_eq!(all, CLASSES * test);
    right as f64 / all as f64
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn devices_with_their_own_photos_use_what_they_have_learned() {
    let place = Place::new(venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    // The server's are there for the size and the classes.
    photos(&place.path("few"), 0, 2, 1);
    let config = format!(
        "dataset = 'folder'\ndata_dir = '{}'\nimage_size = 28\nmodel = 'cnn'\nclients = 2\niid = true\nbatch_size = 10\n\
         personal_layers = 2\nlr = 0.05\nrounds = 4\nalgorithm = ['fedper']",
        place.text("few")
    );
    // By the number of its test images a device is known again: the server numbers them as they come.
    let samples = [(40, 8), (25, 6)];
    let mut clients = Vec::new();
    for (i, &(train, test)) in samples.iter().enumerate() {
        let folder = place.path(&format!("photos-{i}"));
        photos(&folder, 100 * (i + 1), train, test);
        clients.push(place.client(&format!("client-{i}"), &url(port), &["--data", folder.to_str().unwrap()]));
    }
    let mut server = place.server("deployed", &url(port), &config, &[]);
    place.expect_success("deployed", &mut server, Duration::from_secs(180));

    let last: BTreeMap<u64, f64> = lines(&place.path("deployed"), "devices.jsonl")
        .iter()
        .filter(|line| line["round"] == 4)
        .map(|line| (line["samples"].as_u64().unwrap(), line["accuracy"].as_f64().unwrap()))
        .collect();
    println!("accuracy by test samples: {last:?}");
    let base = weights(&place.path("deployed/weights/fedper/base.safetensors"));
    for (i, &(_, test)) in samples.iter().enumerate() {
        let measured = last[&((CLASSES * test) as u64)];
        assert!(measured > 0.5, "three classes, and {measured}");
        let state = place.path(&format!("client-{i}-state"));
        // While the client runs on: its network is under the base that all share, and is what was tested.
        assert!(!clients[i].has_ended());
        let own = Deployed::read(&state, None).unwrap().params;
        let share = |name: &str| base.get(name).is_some();
        assert!(own.iter().any(|(spec, _)| !share(&spec.name)));
        for (spec, values) in own.iter().filter(|(spec, _)| share(&spec.name)) {
            assert_eq!(values, base.get(&spec.name).unwrap(), "{}", spec.name);
        }
        assert_eq!(predicted(&state, &place.path(&format!("photos-{i}")), test), measured);
    }
    let [a, b] =
        [0, 1].map(|i| Deployed::read(&place.path(&format!("client-{i}-state")), None).unwrap().params);
    assert!(distance(&a, &b) > 0.0, "each has personal layers of its own");
}
