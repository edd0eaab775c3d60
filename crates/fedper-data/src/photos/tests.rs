use super::*;
use image::{Rgb, RgbImage};

/// A folder of photos of one colour each, `size` a side, and a place for the cache.
fn photos(colours: &[(&str, [u8; 3])]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("40K");
    fs::create_dir(&photos).unwrap();
    for &(name, colour) in colours {
        paint(&photos.join(name), colour);
    }
    let root = dir.path().join("cache");
    (dir, photos, root)
}

fn paint(path: &Path, colour: [u8; 3]) {
    // Without loss, and each side another one than is asked for.
    RgbImage::from_pixel(20, 10, Rgb(colour)).save_with_format(path, image::ImageFormat::Png).unwrap();
}

fn open(root: &Path, photos: &Path) -> PhotoCache {
    PhotoCache::open(Some(root), photos, Fit::Resize(4, 6)).unwrap()
}

/// Brings photos, says how many were decoded rather than found, and reads their first pixels.
fn bring(mut cache: PhotoCache, names: &[&str]) -> (usize, Vec<Result<[u8; 3], Trouble>>) {
    let before = fs::metadata(&cache.pixels_path).unwrap().len();
    let slots = cache.bring(names, &mut |_| ()).unwrap();
    let decoded = (fs::metadata(&cache.pixels_path).unwrap().len() - before) as usize / cache.slot_len();
    let stored = cache.into_stored(slots.iter().filter_map(|slot| slot.clone().ok()).collect(), 3);
    let mut sample = 0;
    let first = slots.into_iter().map(|slot| {
        slot.map(|_| {
            let mut pixels = vec![0; 4 * 6 * 3];
            stored.read(sample, &mut pixels).unwrap();
            sample += 1;
            assert!(pixels.chunks(3).all(|pixel| pixel == &pixels[..3]));
            [pixels[0], pixels[1], pixels[2]]
        })
    });
    (decoded, first.collect())
}

fn slot(number: u32) -> Slot {
    Slot { number, grey: false }
}

const RED: [u8; 3] = [200, 10, 20];
const BLUE: [u8; 3] = [1, 2, 250];

#[test]
fn photos_are_decoded_once_and_shared() {
    let (_dir, photos, root) = photos(&[("a.jpg", RED), ("b.jpg", BLUE)]);
    let (mut one, mut other) = (open(&root, &photos), open(&root, &photos));
    let mut done = 0;
    assert_eq!(one.bring(&["a.jpg", "b.jpg"], &mut |more| done += more).unwrap(), [Ok(slot(0)), Ok(slot(1))]);
    assert_eq!(done, 2);
    // A process that opened it before sees what the first has decoded since.
    assert_eq!(other.bring(&["b.jpg"], &mut |_| ()).unwrap(), [Ok(slot(1))]);
    assert_eq!(
        bring(open(&root, &photos), &["b.jpg", "a.jpg", "b.jpg"]),
        (0, vec![Ok(BLUE), Ok(RED), Ok(BLUE)])
    );
    // Another size is another file.
    let mut larger = PhotoCache::open(Some(&root), &photos, Fit::Resize(5, 6)).unwrap();
    assert_eq!(larger.bring(&["b.jpg"], &mut |_| ()).unwrap(), [Ok(slot(0))]);
    assert!(PhotoCache::open(Some(&root), &photos, Fit::Resize(0, 6)).is_err());
}

#[test]
fn missing_and_broken_photos_have_a_reason() {
    let (_dir, photos, root) = photos(&[("a.jpg", RED)]);
    fs::write(photos.join("text.jpg"), "no photo").unwrap();
    fs::create_dir(photos.join("folder.jpg")).unwrap();
    let mut cache = open(&root, &photos);
    let slots = cache.bring(&["gone.jpg", "text.jpg", "a.jpg", "folder.jpg"], &mut |_| ()).unwrap();
    assert_eq!((&slots[0], &slots[2]), (&Err(Trouble::Missing), &Ok(slot(0))));
    for broken in [1, 3] {
        assert!(matches!(slots[broken], Err(Trouble::Broken(_))), "{slots:?}");
    }
}

#[test]
fn a_changed_photo_is_decoded_afresh_and_whoever_reads_the_old_one_goes_on() {
    let (_dir, photos, root) = photos(&[("a.jpg", RED)]);
    let mut cache = open(&root, &photos);
    let slots = cache.bring(&["a.jpg"], &mut |_| ()).unwrap();
    let running = cache.into_stored(slots.into_iter().map(Result::unwrap).collect(), 3);
    paint(&photos.join("a.jpg"), BLUE);
    fs::File::open(photos.join("a.jpg"))
        .unwrap()
        .set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(9))
        .unwrap();
    assert_eq!(bring(open(&root, &photos), &["a.jpg"]), (1, vec![Ok(BLUE)]));
    let mut pixels = vec![0; 4 * 6 * 3];
    running.read(0, &mut pixels).unwrap();
    assert_eq!(pixels[..3], RED);
}

#[test]
fn what_an_interruption_or_damage_left_is_decoded_again() {
    let (_dir, photos, root) = photos(&[("a.jpg", RED), ("b.jpg", BLUE)]);
    let cache = open(&root, &photos);
    let (index, pixels) = (cache.index_path.clone(), cache.pixels_path.clone());
    let both = ["a.jpg", "b.jpg"];
    let good = (0, vec![Ok(RED), Ok(BLUE)]);
    assert_eq!(bring(cache, &both), (2, good.1.clone()));
    let whole = fs::read(&index).unwrap();
    // Killed while the index was written, at any byte; in the header too.
    for end in (0..whole.len()).step_by(7) {
        fs::write(&index, &whole[..end]).unwrap();
        let (decoded, found) = bring(open(&root, &photos), &both);
        assert_eq!(found, good.1, "{end}");
        assert!(decoded > 0, "{end}");
        assert_eq!(bring(open(&root, &photos), &both), good, "{end}");
    }
    // Killed while pixels were written.
    let len = fs::metadata(&pixels).unwrap().len();
    fs::File::options().append(true).open(&pixels).unwrap().write_all(b"part of a photo").unwrap();
    paint(&photos.join("c.jpg"), [9; 3]);
    assert_eq!(bring(open(&root, &photos), &["c.jpg", "a.jpg"]).1, [Ok([9; 3]), Ok(RED)]);
    // Pixels lost, or others.
    fs::File::options().write(true).open(&pixels).unwrap().set_len(len / 2).unwrap();
    assert_eq!(bring(open(&root, &photos), &both).1, good.1);
    let flipped: Vec<u8> = fs::read(&pixels).unwrap().iter().map(|byte| !byte).collect();
    fs::write(&pixels, flipped).unwrap();
    assert_eq!(bring(open(&root, &photos), &both), (2, good.1.clone()));
    fs::remove_file(&pixels).unwrap();
    assert_eq!(bring(open(&root, &photos), &both).1, good.1);
}

#[test]
fn threads_that_bring_the_same_photos_at_once_agree() {
    let names: Vec<String> = (0..40).map(|i| format!("{i}.jpg")).collect();
    let colours: Vec<(&str, [u8; 3])> =
        names.iter().enumerate().map(|(i, name)| (name.as_str(), [i as u8, 7, 200])).collect();
    let (_dir, photos, root) = photos(&colours);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let results: Vec<Vec<Result<Slot, Trouble>>> = std::thread::scope(|scope| {
        let bring = || open(&root, &photos).bring(&names, &mut |_| ()).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(bring)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|slots| *slots == results[0]));
    let expected: Vec<_> = colours.iter().map(|&(_, colour)| Ok(colour)).collect();
    assert_eq!(bring(open(&root, &photos), &names), (0, expected));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_and_a_folder_that_cannot_be_are_one_clear_line() {
    let (dir, photos, root) = photos(&[("a.jpg", RED)]);
    let cache = open(&root, &photos);
    let pixels = cache.pixels_path.clone();
    drop(cache);
    fs::remove_file(&pixels).unwrap();
    // Takes no byte.
    std::os::unix::fs::symlink("/dev/full", &pixels).unwrap();
    let message = open(&root, &photos).bring(&["a.jpg"], &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("No space left") && message.contains("XDG_CACHE_HOME"), "{message}");
    fs::remove_file(&pixels).unwrap();
    assert_eq!(bring(open(&root, &photos), &["a.jpg"]), (1, vec![Ok(RED)]));

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let message = PhotoCache::open(Some(&file), &photos, Fit::Resize(4, 6)).err().unwrap().to_string();
    assert!(message.contains("file/pixels") && !message.contains('\n'), "{message}");
}

#[test]
fn an_index_of_something_else_is_refused() {
    let (_dir, photos, root) = photos(&[("a.jpg", RED)]);
    let index = open(&root, &photos).index_path;
    fs::write(&index, "years of work, in a file of the same name\n".repeat(20)).unwrap();
    let message = PhotoCache::open(Some(&root), &photos, Fit::Resize(4, 6)).err().unwrap().to_string();
    assert!(message.contains("index.tsv"), "{message}");
    assert!(fs::read_to_string(index).unwrap().starts_with("years of work"));
}
