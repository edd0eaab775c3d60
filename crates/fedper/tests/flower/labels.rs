//! Devices whose images are not those of the others: of other classes, of another kind, or too few to train on.

use std::path::Path;
use std::time::Duration;

use image::{GrayImage, RgbImage};

use crate::common::fedper;
use crate::support::{Place, Process, free_port, lines, url};

/// A folder with images of these classes, each of which looks like a class of the embedded data.
fn photos(folder: &Path, classes: &[(&str, usize)], skip: usize, train: usize, test: usize, colour: bool) {
    let data = fedper_data::load("fashion-mnist-small", None, &fedper_data::LoadOptions::default()).unwrap();
    let (width, height) = (data.images.width as u32, data.images.height as u32);
    for &(class, label) in classes {
        let labels = data.images.labels();
        let of_class = (0..labels.len()).filter(|&i| usize::from(labels[i]) == label).skip(skip);
        let parts = std::iter::repeat_n("train", train).chain(std::iter::repeat_n("test", test));
        for (i, part) in of_class.zip(parts) {
            let path = folder.join(part).join(class);
            std::fs::create_dir_all(&path).unwrap();
            let (path, pixels) = (path.join(format!("{i}.png")), data.images.pixels(i));
            if colour {
                let pixels = pixels.iter().flat_map(|&grey| [grey, 0, 255 - grey]).collect();
                RgbImage::from_raw(width, height, pixels).unwrap().save(path).unwrap();
            } else {
                GrayImage::from_raw(width, height, pixels.to_vec()).unwrap().save(path).unwrap();
            }
        }
    }
}

fn client(place: &Place, name: &str, port: u16) -> Process {
    place.client(name, &url(port), &["--data", &place.text(&format!("photos-{name}"))])
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn who_does_not_fit_is_named_and_the_others_go_on() {
    let place = Place::new(crate::support::venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    let green_red = [("green", 0), ("red", 1)];
    let folder = |name: &str| place.path(&format!("photos-{name}"));
    // As many as there are devices, which the server could deal them to.
    photos(&place.path("few"), &green_red, 0, 10, 5, false);
    photos(&folder("good-0"), &green_red, 100, 6, 2, false);
    photos(&folder("good-1"), &green_red, 200, 4, 3, false);
    // By position its blue would be their green, and its green their red.
    photos(&folder("labels"), &[("blue", 2), ("green", 0)], 300, 4, 2, false);
    photos(&folder("colour"), &green_red, 300, 4, 2, true);
    // A batch norm has nothing to normalise one value by.
    photos(&folder("single"), &[("green", 0)], 300, 1, 1, false);
    let config = format!(
        "dataset = 'folder'\ndata_dir = '{}'\nmodel = 'mobilenet_v1'\nstem = 'imagenet'\nclients = 5\niid = true\nbatch_size = 4\n\
         personal_layers = 1\nlr = 0.01\nrounds = 2\nalgorithm = ['fedper', 'fedavg']",
        place.text("few")
    );
    let names = ["good-0", "good-1", "labels", "colour", "single"];
    let _clients = names.map(|name| client(&place, name, port));
    let mut server = place.server("deployed", &url(port), &config, &["--round-timeout", "60"]);
    place.expect_success("deployed", &mut server, Duration::from_secs(120));
    let log = place.log("deployed-server");
    println!("{log}");
    for (name, said) in [
        (
            "labels",
            "this device's classes are blue, green, the federation's are green, red; an algorithm that runs",
        ),
        ("colour", "images are 28x28 in colour, the federation's are 28x28 grey: convert"),
        ("single", "this device has 1 training sample, and"),
    ] {
        let own = place.log(name);
        assert!(own.contains("this node takes no part: ") && own.contains(said), "{name}\n{own}");
        let line = log.lines().find(|line| line.contains(said)).unwrap_or_else(|| panic!("{name}\n{log}"));
        assert!(line.starts_with("node ") && line.contains(", takes no part: "), "{line}");
    }
    for round in lines(&place.path("deployed"), "rounds.jsonl") {
        assert_eq!((&round["devices"], &round["failed"]), (&2.into(), &3.into()), "{round}\n{log}");
    }
}

/// What `fedper predict` says of a device's own test images: the part that is right, and the classes.
fn predicted(place: &Place, name: &str, classes: &[(&str, usize)]) -> (f64, Vec<String>) {
    let (mut right, mut all, mut named) = (0, 0, Vec::new());
    for (class, _) in classes {
        let folder = place.path(&format!("photos-{name}/test/{class}"));
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut command = fedper(&["predict", "--json", "--state", &place.text(&format!("{name}-state"))]);
        let output = command.args(files).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let images = said["images"].as_array().unwrap();
        all += images.len();
        right += images.iter().filter(|image| image["class"] == *class).count();
        named =
            said["classes"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().into()).collect();
    }
    (right as f64 / all as f64, named)
}

#[test]
#[ignore = "needs Flower: scripts/test-flower.sh"]
fn each_device_has_classes_of_its_own_where_the_last_layer_stays() {
    let place = Place::new(crate::support::venv());
    let port = free_port();
    let _superlink = place.plain_superlink(port);
    photos(&place.path("few"), &[("green", 0), ("red", 1)], 0, 2, 1, false);
    // Two devices mean another thing by green, and have as many classes as they like.
    let devices: [(&str, &[(&str, usize)]); 2] =
        [("two", &[("blue", 8), ("green", 0)]), ("three", &[("green", 9), ("red", 1), ("violet", 8)])];
    let config = format!(
        "dataset = 'folder'\ndata_dir = '{}'\nmodel = 'mlp'\nclients = 2\niid = true\nbatch_size = 10\npersonal_layers = 1\n\
         lr = 0.05\nrounds = 4\nalgorithm = ['fedper', 'local']",
        place.text("few")
    );
    let _clients = devices.map(|(name, classes)| {
        photos(&place.path(&format!("photos-{name}")), classes, 100, 30, 8, false);
        client(&place, name, port)
    });
    let mut server = place.server("deployed", &url(port), &config, &["--min-answers", "2"]);
    place.expect_success("deployed", &mut server, Duration::from_secs(120));
    let log = place.log("deployed-server");
    assert!(!log.contains("no part"), "{log}");
    for (name, classes) in devices {
        let (right, named) = predicted(&place, name, classes);
        assert_eq!(named, classes.iter().map(|(class, _)| class.to_string()).collect::<Vec<_>>());
        assert!(right > 0.6, "{name}: {right}");
    }
}
