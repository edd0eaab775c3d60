//! Who gave which photo which score: `FLICKR-AES_image_labeled_by_each_worker.csv`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::DataError;
use crate::error::io;

/// The header's names; in the official file, the last two begin with a blank.
pub(crate) const COLUMNS: [&str; 3] = ["worker", "imagePair", "score"];
/// Scores are 1 to this.
pub(crate) const SCORES: usize = 5;
/// The longest line that can be one; a file without lines is not read whole to find that out.
const LONGEST_LINE: usize = 1 << 16;

/// One user's rating of one photo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rating {
    /// Which of [`Ratings::photos`].
    pub(super) photo: u32,
    /// 1 to 5.
    pub(super) score: u8,
}

/// All ratings, by user.
#[derive(Debug, Default)]
pub(super) struct Ratings {
    /// The photos' file names.
    pub(super) photos: Vec<String>,
    /// Each user's ratings in the order of the file, no photo twice.
    pub(super) users: BTreeMap<String, Vec<Rating>>,
    /// Ratings left out because their user had rated the photo before.
    pub(super) repeated: usize,
}

/// Reads the file.
///
/// Columns are found by their names, in any order and with blanks around them, and others beside them are passed over;
/// so are empty lines.
///
/// # Errors
/// If it cannot be read, or a line is not a rating: the line is named.
pub(super) fn read(path: &Path) -> Result<Ratings, DataError> {
    let file = File::open(path).map_err(io("open", path))?;
    parse(&mut BufReader::with_capacity(1 << 16, file), path)
}

fn parse(text: &mut dyn BufRead, path: &Path) -> Result<Ratings, DataError> {
    let refuse = |problem: String| DataError::Ratings { path: path.into(), problem };
    let mut line = Vec::new();
    let Some(header) = next_line(text, &mut line, 1).map_err(refuse)? else {
        return Err(refuse("it is empty; expected the columns worker, imagePair and score".into()));
    };
    let header: Vec<&str> = header.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
    let position = |name: &str| header.iter().position(|column| *column == name);
    let [Some(worker_at), Some(photo_at), Some(score_at)] = COLUMNS.map(position) else {
        let header: String = header.join(", ").chars().take(80).collect();
        return Err(refuse(format!(
            "line 1 has the columns '{header}'; expected worker, imagePair and score, as in the official file"
        )));
    };
    let columns = header.len();
    let mut ratings = Ratings::default();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut workers: HashMap<String, u32> = HashMap::new();
    let mut users: Vec<Vec<Rating>> = Vec::new();
    let mut rated: HashSet<(u32, u32)> = HashSet::new();
    let mut number = 1;
    loop {
        number += 1;
        let Some(text) = next_line(text, &mut line, number).map_err(refuse)? else { break };
        if text.trim().is_empty() {
            continue;
        }
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != columns {
            return Err(refuse(format!(
                "line {number} has {} fields; expected {columns}, as in line 1",
                fields.len()
            )));
        }
        let (worker, photo) = (fields[worker_at], fields[photo_at]);
        if worker.is_empty() {
            return Err(refuse(format!("line {number} names no worker")));
        }
        if !is_file_name(photo) {
            return Err(refuse(format!("line {number}: '{photo}' is not the name of a photo's file")));
        }
        let value = fields[score_at].parse().ok().filter(|score| (1..=SCORES as u8).contains(score));
        let Some(score) = value else {
            return Err(refuse(format!(
                "line {number}: '{}' is the score that '{worker}' gives '{photo}'; expected 1, 2, 3, 4 or 5",
                fields[score_at]
            )));
        };
        let photo = number_of(photo, &mut numbers);
        if photo as usize == ratings.photos.len() {
            ratings.photos.push(fields[photo_at].into());
        }
        let worker = number_of(worker, &mut workers);
        if worker as usize == users.len() {
            users.push(Vec::new());
        }
        if rated.insert((worker, photo)) {
            users[worker as usize].push(Rating { photo, score });
        } else {
            ratings.repeated += 1;
        }
    }
    if users.is_empty() {
        return Err(refuse("it holds no rating".into()));
    }
    ratings.users =
        workers.into_iter().map(|(name, at)| (name, std::mem::take(&mut users[at as usize]))).collect();
    Ok(ratings)
}

/// The number of a name: names are numbered as they come.
///
/// # Panics
/// Beyond 2^32 names, which no machine's memory holds.
fn number_of(name: &str, numbers: &mut HashMap<String, u32>) -> u32 {
    match numbers.get(name) {
        Some(&number) => number,
        None => {
            let next = u32::try_from(numbers.len()).expect("fewer names than 2^32");
            numbers.insert(name.into(), next);
            next
        }
    }
}

/// The next line without its end, or `None` behind the last one.
fn next_line<'a>(
    text: &mut dyn BufRead,
    line: &'a mut Vec<u8>,
    number: usize,
) -> Result<Option<&'a str>, String> {
    line.clear();
    let mut limited = std::io::Read::take(&mut *text, LONGEST_LINE as u64);
    let read = limited.read_until(b'\n', line).map_err(|error| format!("line {number}: {error}"))?;
    if read == LONGEST_LINE && line.last() != Some(&b'\n') {
        return Err(format!("line {number} has more than {LONGEST_LINE} bytes: this is no table of ratings"));
    }
    let line = std::str::from_utf8(line).map_err(|_| format!("line {number} is not text"))?;
    Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r'])))
}

/// Whether it names a file in the photo folder and nothing elsewhere.
fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':', '\0', '\t', '\n', '\r'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Ratings, String> {
        parse(&mut text.as_bytes(), Path::new("ratings.csv")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_official_form_and_what_editors_make_of_it() {
        for text in [
            "worker, imagePair, score\nann,a.jpg,5\nbob,a.jpg,1\nann,b.jpg,3\n",
            "\u{feff}worker,imagePair,score\r\nann,a.jpg,5\r\nbob,a.jpg,1\r\n\r\nann,b.jpg,3",
            "score, when,imagePair,worker\n5,x,a.jpg, ann\n1,y,a.jpg,bob\n3,z,b.jpg,ann",
        ] {
            let ratings = read(text).unwrap();
            assert_eq!(ratings.photos, ["a.jpg", "b.jpg"]);
            let of = |user: &str| {
                ratings.users[user].iter().map(|rating| (rating.photo, rating.score)).collect::<Vec<_>>()
            };
            assert_eq!((of("ann"), of("bob")), (vec![(0, 5), (1, 3)], vec![(0, 1)]));
            assert_eq!((ratings.users.len(), ratings.repeated), (2, 0));
        }
    }

    #[test]
    fn a_photo_rated_twice_by_one_user_counts_once() {
        let ratings =
            read("worker, imagePair, score\nann,a.jpg,5\nbob,a.jpg,4\nann,a.jpg,1\nann,b.jpg,2\n").unwrap();
        assert_eq!((ratings.repeated, ratings.users["ann"].len(), ratings.users["bob"].len()), (1, 2, 1));
        assert_eq!(ratings.users["ann"][0].score, 5, "the first counts");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let with = |line: &str| format!("worker, imagePair, score\nann,a.jpg,5\n{line}\n");
        for (text, said) in [
            (String::new(), "it is empty"),
            ("worker, imagePair, score\n\n".into(), "it holds no rating"),
            (
                "user,photo,stars\nann,a.jpg,5\n".into(),
                "line 1 has the columns 'user, photo, stars'; expected worker",
            ),
            ("worker, imagePair\nann,a.jpg\n".into(), "line 1 has the columns 'worker, imagePair'"),
            (
                with("bob,a.jpg,6"),
                "line 3: '6' is the score that 'bob' gives 'a.jpg'; expected 1, 2, 3, 4 or 5",
            ),
            (with("bob,a.jpg,0"), "line 3: '0'"),
            (with("bob,a.jpg,-1"), "line 3: '-1'"),
            (with("bob,a.jpg,4.5"), "line 3: '4.5'"),
            (with("bob,a.jpg,"), "line 3: ''"),
            (with("bob,a.jpg"), "line 3 has 2 fields; expected 3"),
            (with(",a.jpg,3"), "line 3 names no worker"),
            (with("bob,../a.jpg,3"), "line 3: '../a.jpg' is not the name"),
            (with("bob,,3"), "line 3: '' is not the name"),
            ("x".repeat(1 << 17), "line 1 has more than 65536 bytes"),
        ] {
            let message = read(&text).unwrap_err();
            assert!(message.contains(said) && message.contains("ratings.csv"), "{said}: {message}");
            assert!(!message.contains('\n'));
        }
        let mut binary: &[u8] = b"worker, imagePair, score\n\xff\xfe,a,3\n";
        let message = parse(&mut binary, Path::new("r")).unwrap_err().to_string();
        assert!(message.contains("line 2 is not text"), "{message}");
    }
}
