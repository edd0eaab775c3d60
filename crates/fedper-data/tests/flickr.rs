//! FLICKR-AES's form, from the files to batches: made sets, sets with faults.

use std::fs;
use std::path::{Path, PathBuf};

use fedper_core::seed::{self, Purpose};
use fedper_data::{
    Batcher, DataError, Dataset, Images, LoadOptions, MakeOptions, PartitionOptions, RaterOptions, Scheme,
    TestSplit, load, make_flickr_aes, partition,
};

const RATINGS: &str = "FLICKR-AES_image_labeled_by_each_worker.csv";

/// A folder for the set and one for the cache.
struct Place {
    dir: tempfile::TempDir,
    options: LoadOptions,
}

impl Place {
    /// A made set of 24 small pictures that each of 6 users has rated.
    fn made() -> Self {
        let place = Self::empty();
        let options = MakeOptions { users: 6, photos: 24, width: 40, height: 30, seed: 1 };
        assert_eq!(make_flickr_aes(&place.set(), &options, &mut |_| ()).unwrap(), 6 * 24);
        place
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LoadOptions {
            image_size: Some((12, 16)),
            raters: RaterOptions { users: 6, min_photos: 20, ..RaterOptions::default() },
            cache: Some(dir.path().join("cache")),
            ..LoadOptions::default()
        };
        Self { dir, options }
    }

    fn set(&self) -> PathBuf {
        self.dir.path().join("set")
    }

    fn photo(&self, number: usize) -> PathBuf {
        self.set().join(format!("40K/made_{number:05}.jpg"))
    }

    fn load(&self) -> Result<Dataset, DataError> {
        load("flickr-aes", Some(&self.set()), &self.options)
    }

    fn users(&self, users: usize) -> Result<Dataset, DataError> {
        let raters = RaterOptions { users, ..self.options.raters.clone() };
        load("flickr-aes", Some(&self.set()), &LoadOptions { raters, ..self.options.clone() })
    }

    fn error(&self) -> String {
        let message = self.load().unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    /// The only file of pixels in the cache.
    fn pixels(&self) -> PathBuf {
        let folder = self.dir.path().join("cache/pixels");
        let folders: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(folders.len(), 1);
        folders[0].join("pixels.bin")
    }
}

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.devices.as_ref().unwrap().iter().map(|device| device.name.as_str()).collect()
}

fn options() -> PartitionOptions {
    PartitionOptions {
        scheme: Scheme::Folder,
        devices: 0,
        samples_per_device: None,
        with_replacement: false,
        test: TestSplit::Fraction(0.2),
        seed: 1,
    }
}

#[test]
fn each_user_is_a_device_and_a_photo_is_stored_once() {
    let place = Place::made();
    let dataset = place.load().unwrap();
    assert_eq!(names(&dataset), ["made-01", "made-02", "made-03", "made-04", "made-05", "made-06"]);
    assert_eq!(dataset.classes, ["1", "2", "3", "4", "5"]);
    assert_eq!((dataset.images.len(), dataset.train_len), (144, 144));
    assert!(dataset.name.contains("(made)") && dataset.note.as_ref().unwrap().contains("made by"));
    assert_eq!(fs::metadata(place.pixels()).unwrap().len(), 24 * 12 * 16 * 3, "24 photos, not 144");

    // Samples follow the file: user by user, by picture. The same picture is the same pixels, whoever rated it.
    let text = fs::read_to_string(place.set().join(RATINGS)).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (at, device) in dataset.devices.as_ref().unwrap().iter().enumerate() {
        let own: Vec<&Vec<&str>> = rows.iter().filter(|row| row[0] == device.name).collect();
        assert_eq!(device.train, at as u32 * 24..(at as u32 + 1) * 24);
        for (sample, row) in device.train.clone().zip(own) {
            assert_eq!(dataset.images.labels()[sample as usize] + 1, row[2].parse::<u16>().unwrap());
            let picture = row[1][5..10].parse::<usize>().unwrap();
            let same = dataset.images.read(picture, &mut a).unwrap()
                == dataset.images.read(sample as usize, &mut b).unwrap();
            assert!(same, "{row:?}");
        }
    }

    let parts = partition(&dataset, &options()).unwrap();
    for shard in parts.shards() {
        assert_eq!((shard.train.len(), shard.test.len()), (19, 5));
        let mut classes: Vec<u16> =
            shard.test.iter().map(|&sample| dataset.images.labels()[sample as usize]).collect();
        classes.sort_unstable();
        assert_eq!(classes, [0, 1, 2, 3, 4], "a photo of each score");
    }
}

#[test]
fn batches_from_the_file_are_those_from_memory() {
    let place = Place::made();
    let stored = place.load().unwrap().images;
    assert!(!stored.in_memory());
    let mut buffer = Vec::new();
    let pixels = (0..stored.len()).flat_map(|i| stored.read(i, &mut buffer).unwrap().to_vec()).collect();
    let memory = Images::new([12, 16, 3], pixels, stored.labels().to_vec()).unwrap();
    let samples: Vec<u32> = (0..100).map(|i| i * 7 % 144).collect();
    let batches = |images: &Images, augment: bool| {
        let mut order = seed::derive(1, Purpose::Shuffle, 0, 1);
        let mut crops = augment.then(|| seed::derive(1, Purpose::Augment, 0, 1));
        let (mut x, mut y, mut batcher) = (vec![0.0; 8 * 576], vec![0; 8], Batcher::new(8, false));
        let mut all = Vec::new();
        for _epoch in 0..2 {
            batcher.start(&samples, Some(&mut order));
            while let Some(count) = batcher.fill(images, crops.as_mut(), &mut x, &mut y).unwrap() {
                all.push((x[..count * 576].to_vec(), y[..count].to_vec()));
            }
        }
        all
    };
    for augment in [false, true] {
        let batches = [batches(&stored, augment), batches(&memory, augment)];
        assert_eq!(batches[0].len(), 26);
        assert!(batches[0] == batches[1]);
    }
}

#[test]
fn a_cache_that_is_cut_under_a_run_is_an_error_and_no_wrong_pixels() {
    let place = Place::made();
    let images = place.load().unwrap().images;
    fs::File::options().write(true).open(place.pixels()).unwrap().set_len(576).unwrap();
    let mut batcher = Batcher::new(144, false);
    batcher.start(&(0..144).collect::<Vec<_>>(), None);
    let error = batcher.fill(&images, None, &mut vec![0.0; 144 * 576], &mut vec![0; 144]).unwrap_err();
    assert!(error.to_string().contains("pixels.bin"), "{error}");
    // The next run repairs it.
    let repaired = place.load().unwrap().images;
    let mut buffer = Vec::new();
    assert!((0..144).all(|i| repaired.read(i, &mut buffer).is_ok()));
}

#[test]
fn missing_and_broken_photos_are_left_out_and_named() {
    let place = Place::made();
    let whole = place.load().unwrap();
    assert_eq!(whole.left_out, Default::default());
    fs::remove_file(place.photo(3)).unwrap();
    fs::write(place.photo(5), "<html>429 Too Many Requests</html>").unwrap();
    let bytes = fs::read(place.photo(7)).unwrap();
    fs::write(place.photo(7), &bytes[..bytes.len() / 2]).unwrap();
    let lower = RaterOptions { min_per_score: 2, ..place.options.raters.clone() };
    let loose = LoadOptions { raters: lower, ..place.options.clone() };
    let dataset = load("flickr-aes", Some(&place.set()), &loose).unwrap();
    assert_eq!(dataset.images.len(), 6 * 21);
    assert_eq!(dataset.left_out.missing, ["made_00003.jpg"]);
    let broken: Vec<&str> = dataset.left_out.broken.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(broken, ["made_00005.jpg", "made_00007.jpg"]);
    assert!(dataset.left_out.broken[1].1.contains("no end"), "{:?}", dataset.left_out.broken);
    assert!(dataset.note.unwrap().ends_with("; 3 photos left out: 1 missing, 2 broken"));
    // The others are what they were: sample 4 of the whole set is sample 3 now.
    let (mut a, mut b) = (Vec::new(), Vec::new());
    assert_eq!(whole.images.read(4, &mut a).unwrap(), dataset.images.read(3, &mut b).unwrap());

    // All photos gone: every user is named, nobody is left.
    fs::remove_dir_all(place.set().join("40K")).unwrap();
    fs::create_dir(place.set().join("40K")).unwrap();
    let message = place.error();
    assert!(message.contains("0 rated photos, fewer than 20 once unusable ones are left out"), "{message}");
}

/// Writes a set of pictures of one colour: each user with its scores, from the first picture on.
fn write_set(place: &Place, users: &[(&str, &[u8])]) {
    let photos = place.set().join("40K");
    fs::create_dir_all(&photos).unwrap();
    let most = users.iter().map(|(_, scores)| scores.len()).max().unwrap();
    for photo in 0..most {
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([photo as u8; 3]));
        picture.save(place.photo(photo)).unwrap();
    }
    let mut csv = "worker, imagePair, score\n".to_owned();
    for (user, scores) in users {
        for (photo, score) in scores.iter().enumerate() {
            csv += &format!("{user},made_{photo:05}.jpg,{score}\n");
        }
    }
    fs::write(place.set().join(RATINGS), csv).unwrap();
}

/// `count` scores, each as often.
fn scores(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i % 5) as u8 + 1).collect()
}

#[test]
fn users_with_too_few_photos_are_left_out_and_named() {
    let place = Place::empty();
    let (few, enough, many) = (scores(19), scores(20), scores(291));
    let lopsided = [&scores(20)[..], &[1; 20]].concat();
    let odd: Vec<u8> = lopsided.iter().map(|&score| if score == 4 { 5 } else { score }).collect();
    write_set(
        &place,
        &[("few", &few), ("enough", &enough), ("many", &many), ("odd", &odd), ("more", &lopsided)],
    );
    let dataset = place.users(2).unwrap();
    assert_eq!(names(&dataset), ["enough", "more"]);
    assert!(!dataset.name.contains("made"), "nothing says that this set is made");
    let left_out: Vec<(&str, &str)> =
        dataset.left_out.users.iter().map(|(user, why)| (user.as_str(), why.as_str())).collect();
    assert_eq!(
        left_out,
        [
            ("few", "19 rated photos, fewer than 20"),
            ("many", "291 rated photos, more than 290"),
            ("odd", "0 photos of score 4, fewer than 4"),
        ]
    );
    // Fewer users than asked for.
    let message = place.users(3).unwrap_err().to_string();
    for said in [
        "3 users are asked for, and 2 of 5 have 20 to 290 rated photos",
        "'odd' has 0 photos of score 4",
        "--clients 2",
    ] {
        assert!(message.contains(said), "{message}");
    }
    // No user at all.
    write_set(&place, &[("few", &few)]);
    let message = place.error();
    assert!(message.contains("0 of 1 have") && message.contains("'few' has 19 rated photos"), "{message}");
    assert!(message.contains("--min-photos"), "{message}");
}

#[test]
fn the_next_user_takes_the_place_of_one_whose_photos_are_broken() {
    let place = Place::empty();
    let (short, long) = (scores(20), scores(25));
    write_set(&place, &[("a", &short), ("b", &long), ("c", &long), ("d", &short)]);
    // All qualify; without picture 0, those with 20 do not.
    assert_eq!(names(&place.users(4).unwrap()), ["a", "b", "c", "d"]);
    fs::write(place.photo(0), "gone").unwrap();
    let dataset = place.users(2).unwrap();
    assert_eq!(names(&dataset), ["b", "c"]);
    assert!(place.users(3).unwrap_err().to_string().contains("--clients 2"));
    assert_eq!(dataset.images.len(), 48);
}

#[test]
fn the_seed_draws_users() {
    let place = Place::made();
    let drawn = |seed| {
        let raters = RaterOptions { users: 3, seed, ..place.options.raters.clone() };
        let options = LoadOptions { raters, ..place.options.clone() };
        let dataset = load("flickr-aes", Some(&place.set()), &options).unwrap();
        names(&dataset).into_iter().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(drawn(1), drawn(1));
    assert!((2..9).any(|seed| drawn(seed) != drawn(1)));
}

#[test]
fn files_that_are_not_there_or_not_in_this_form_are_named() {
    let place = Place::empty();
    fs::create_dir(place.set()).unwrap();
    let message = place.error();
    assert!(message.contains(RATINGS) && message.contains("--data-dir"), "{message}");
    let write = |text: &str| fs::write(place.set().join(RATINGS), text).unwrap();
    write("worker, imagePair, score\na,b.jpg,3\n");
    assert!(place.error().contains("the folder 40K"), "{}", place.error());
    fs::create_dir(place.set().join("40K")).unwrap();
    for (text, said) in [
        ("user,picture,stars\na,b.jpg,3\n", "expected worker, imagePair and score"),
        ("worker, imagePair, score\na,b.jpg,9\n", "line 2: '9' is the score"),
    ] {
        write(text);
        let message = place.error();
        assert!(message.contains(said) && message.contains(RATINGS), "{message}");
    }
    // As the official archive unpacks.
    let other = Place::made();
    fs::create_dir(other.set().join("FLICKR-AES-001")).unwrap();
    fs::rename(other.set().join("40K"), other.set().join("FLICKR-AES-001/40K")).unwrap();
    assert_eq!(other.load().unwrap().images.len(), 144);
    assert!(Path::new(&other.pixels()).is_file());
}
