//! A set in FLICKR-AES's form, made by a program: pictures with known properties, and users with known, opposite tastes.
//!
//! It stands in for the real set in tests and demonstrations, and says that it is made: in its folder ([`MADE`]), in the
//! dataset's name and note, and so in every report on it.

mod picture;
mod taste;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::num::NonZero;
use std::path::Path;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use crate::DataError;
use crate::error::io;
use crate::flickr::{MADE, PHOTOS, RATINGS};

/// Pictures that one thread draws before progress is told.
const SHARE: usize = 4;
/// The quality of the JPEG files.
const QUALITY: u8 = 90;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeOptions {
    /// How many users rate. Users 0 and 1 have opposite tastes, 2 and 3, and so on.
    pub users: usize,
    /// How many pictures there are.
    pub photos: usize,
    /// Columns of each.
    pub width: u32,
    /// Rows of each.
    pub height: u32,
    /// Everything is derived from it: the same options make the same files.
    pub seed: u64,
}

/// Makes a set in FLICKR-AES's form in `dir`, which must be empty or not exist: `40K/*.jpg` and the file of ratings with
/// the official header. Each user rates 80 to 160 pictures, or all if there are fewer, and gives each score to a fifth
/// of them; if users rate more pictures than there are, each picture is rated. `progress` is called with how many
/// pictures are drawn. Returns how many ratings there are.
///
/// # Errors
/// If the options make no sense, `dir` holds something, or a file cannot be written.
pub fn make_flickr_aes(
    dir: &Path,
    options: &MakeOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<usize, DataError> {
    check(options)?;
    let photos = dir.join(PHOTOS);
    fs::create_dir_all(dir).map_err(io("create the folder", dir))?;
    if dir.read_dir().map_err(io("list the folder", dir))?.next().is_some() {
        return Err(DataError::Make {
            problem: format!("{} is not empty: choose another folder", dir.display()),
        });
    }
    fs::create_dir(&photos).map_err(io("create the folder", &photos))?;
    let MakeOptions { users, photos: count, width, height, seed } = options;
    let said = format!(
        "made by `fedper data make flickr-aes`: {users} users, {count} pictures of {width}x{height}, seed {seed}.\n\
         Neither the pictures nor the ratings are real; this is not FLICKR-AES, only its form.\n"
    );
    fs::write(dir.join(MADE), said).map_err(io("write", dir.join(MADE)))?;
    draw(&photos, options, progress)?;
    // Last, so that a set that was interrupted is no set.
    let path = dir.join(RATINGS);
    let rows = taste::ratings(options);
    let write = || {
        let mut file = BufWriter::new(File::create(&path)?);
        // Two of the official names begin with a blank.
        writeln!(file, "worker, imagePair, score")?;
        for row in &rows {
            writeln!(file, "{},{},{}", taste::user_name(row.user), picture::name(row.photo), row.score)?;
        }
        file.flush()
    };
    write().map_err(io("write", &path))?;
    Ok(rows.len())
}

fn check(options: &MakeOptions) -> Result<(), DataError> {
    let ranges = [
        ("--users", options.users, 1, 10_000),
        ("--photos", options.photos, 1, 1_000_000),
        ("--width", options.width as usize, 16, 8192),
        ("--height", options.height as usize, 16, 8192),
    ];
    match ranges.into_iter().find(|&(_, value, least, most)| !(least..=most).contains(&value)) {
        Some((flag, value, least, most)) => {
            Err(DataError::Make { problem: format!("{flag} is {value}: give {least} to {most}") })
        }
        None => Ok(()),
    }
}

/// Draws all pictures into `folder`, on all cores.
fn draw(folder: &Path, options: &MakeOptions, progress: &mut dyn FnMut(usize)) -> Result<(), DataError> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let all: Vec<usize> = (0..options.photos).collect();
    for chunk in all.chunks(workers * SHARE) {
        std::thread::scope(|scope| {
            let part = |part| scope.spawn(move || draw_part(folder, part, options));
            let threads: Vec<_> = chunk.chunks(SHARE).map(part).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("drawing does not panic"))
        })?;
        progress(chunk[chunk.len() - 1] + 1);
    }
    Ok(())
}

fn draw_part(folder: &Path, photos: &[usize], options: &MakeOptions) -> Result<(), DataError> {
    let (width, height) = (options.width, options.height);
    photos.iter().try_for_each(|&photo| {
        let pixels = picture::draw(options.seed, photo, width as usize, height as usize);
        let path = folder.join(picture::name(photo));
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode(&pixels, width, height, ExtendedColorType::Rgb8)
            .map_err(|error| DataError::Image { path: path.clone(), problem: error.to_string() })?;
        fs::write(&path, jpeg).map_err(io("write", &path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_options_make_the_same_files() {
        let options = MakeOptions { users: 4, photos: 12, width: 32, height: 24, seed: 5 };
        let make = |options: &MakeOptions| {
            let dir = tempfile::tempdir().unwrap();
            let mut drawn = 0;
            let ratings = make_flickr_aes(dir.path(), options, &mut |done| drawn = done).unwrap();
            assert_eq!((ratings, drawn), (48, 12), "few pictures: everybody rates all");
            let photo = fs::read(dir.path().join("40K/made_00007.jpg")).unwrap();
            let csv = fs::read_to_string(dir.path().join(RATINGS)).unwrap();
            let again = make_flickr_aes(dir.path(), options, &mut |_| ()).unwrap_err().to_string();
            assert!(again.contains("is not empty"), "{again}");
            assert!(fs::read_to_string(dir.path().join(MADE)).unwrap().contains("not FLICKR-AES"));
            (photo, csv)
        };
        let (photo, csv) = make(&options);
        assert!(csv.starts_with("worker, imagePair, score\nmade-01,made_00000.jpg,"), "{csv}");
        assert_eq!(make(&options), (photo.clone(), csv));
        assert_ne!(make(&MakeOptions { seed: 6, ..options }).0, photo);
    }

    #[test]
    fn absurd_options_are_refused() {
        let good = MakeOptions { users: 4, photos: 12, width: 32, height: 24, seed: 5 };
        let dir = tempfile::tempdir().unwrap();
        for (bad, said) in [
            (MakeOptions { users: 0, ..good.clone() }, "--users is 0"),
            (MakeOptions { photos: 0, ..good.clone() }, "--photos is 0"),
            (MakeOptions { width: 8, ..good.clone() }, "--width is 8: give 16 to 8192"),
            (MakeOptions { height: 10_000, ..good.clone() }, "--height is 10000"),
        ] {
            let message = make_flickr_aes(dir.path(), &bad, &mut |_| ()).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
