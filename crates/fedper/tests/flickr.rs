//! Users' ratings, from made files to a report, as a process.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{assert_same, results, stderr, stdout};

/// A folder with a made set of 4 users, and with a cache.
struct Place(tempfile::TempDir);

impl Place {
    fn made() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let size = ["--users", "4", "--photos", "30", "--width", "48", "--height", "36"];
        let output =
            place.fedper(&["data", "make", "flickr-aes"]).arg(place.set()).args(size).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            stdout(&output).contains("30 made pictures of 48x36 and 120 made ratings"),
            "{}",
            stdout(&output)
        );
        place
    }

    fn set(&self) -> PathBuf {
        self.0.path().join("made")
    }

    fn fedper(&self, args: &[&str]) -> Command {
        let mut command = common::fedper(args);
        command.env("XDG_CACHE_HOME", self.0.path().join("cache"));
        command
    }

    /// `fedper COMMAND` on the set, with few photos a user, unless `args` say otherwise.
    fn on_set(&self, command: &[&str], args: &[&str]) -> Command {
        let mut command = self.fedper(command);
        command.args(["--dataset", "flickr-aes", "--data-dir"]).arg(self.set()).args(args);
        for (flag, value) in
            [("--image-size", "8"), ("--model", "mlp"), ("--clients", "4"), ("--min-photos", "20")]
        {
            if !args.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command
    }

    fn run(&self, out: &Path, args: &[&str]) -> Output {
        let training = ["--rounds", "2", "--algorithm", "fedper,fedavg", "--batch-size", "4", "--quiet"];
        self.on_set(&["run"], args).args(training).arg("--out").arg(out).output().unwrap()
    }
}

#[test]
fn a_run_on_a_made_set_says_so_and_repeats_bit_for_bit() {
    let place = Place::made();
    let out = |name: &str| place.0.path().join(name);
    let output = place.run(&out("one"), &["--workers", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).contains("Note: made by `fedper data make`"), "{}", stdout(&output));
    let config = fs::read_to_string(out("one/config.toml")).unwrap();
    for line in [
        "by_folder = true",
        "min_photos = 20",
        "max_photos = 290",
        "min_per_score = 4",
        "test_fraction = 0.2",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
    let report = fs::read_to_string(out("one/report.html")).unwrap();
    assert!(report.contains("flickr-aes (made)"));

    // From the cache, by other threads; then from its own configuration, decoded afresh.
    assert!(place.run(&out("two"), &["--workers", "3"]).status.success());
    assert_same(&results(&out("one")), &results(&out("two")));
    fs::remove_dir_all(out("cache")).unwrap();
    let output = place
        .fedper(&["run", "--quiet", "--config"])
        .arg(out("one/config.toml"))
        .arg("--out")
        .arg(out("three"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_same(&results(&out("one")), &results(&out("three")));
}

#[test]
fn broken_photos_are_named_in_a_run_and_in_an_inspection() {
    let place = Place::made();
    fs::remove_file(place.set().join("40K/made_00004.jpg")).unwrap();
    fs::write(place.set().join("40K/made_00009.jpg"), "not a photo").unwrap();
    let output = place.run(&place.0.path().join("run"), &["--min-per-score", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    for expected in [
        "photo made_00004.jpg is missing",
        "photo made_00009.jpg is left out",
        "2 photos left out: 1 missing, 1 broken",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert!(stdout(&output).contains("1 missing, 1 broken"), "{}", stdout(&output));

    let output = place.on_set(&["data", "partition"], &["--min-per-score", "3"]).output().unwrap();
    let printed = stdout(&output);
    for expected in ["made-03", "photo made_00009.jpg is left out", "2 photos left out: 1 missing, 1 broken"]
    {
        assert!(printed.contains(expected), "{printed}");
    }
}

#[test]
fn bad_input_gets_one_line_and_a_code() {
    let place = Place::made();
    let ratings = place.set().join("FLICKR-AES_image_labeled_by_each_worker.csv");
    let good = fs::read_to_string(&ratings).unwrap();
    let out = place.0.path().join("run");
    let check = |csv: &str, args: &[&str], code: i32, expected: &str| {
        fs::write(&ratings, csv).unwrap();
        let output = place.run(&out, args);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {message}");
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!out.exists());
    };
    check("a,b,c\n", &[], 1, "line 1 has the columns 'a, b, c'");
    check(&good.replacen(",5\n", ",6\n", 1), &[], 1, "'6' is the score that");
    check(&good, &["--clients", "5"], 2, "give --clients 4");
    check(&good, &["--min-photos", "31"], 2, "'made-04' has 30 rated photos, fewer than 31");
    check(&good, &["--max-photos", "10"], 2, "min_photos is 20: it must be at most max_photos");
    check(&good, &["--min-per-score", "7"], 2, "fewer than 7");
    check(&good, &["--image-size", "5000"], 2, "--image-size with sides from 1 to 4096");
    for photo in fs::read_dir(place.set().join("40K")).unwrap() {
        fs::write(photo.unwrap().path(), "not a photo").unwrap();
    }
    check(&good, &[], 2, "0 rated photos, fewer than 20 once unusable ones are left out");
    check(&good, &[], 2, "30 broken, such as made_000");
    let output = place.fedper(&["data", "make", "flickr-aes"]).arg(place.set()).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).contains("is not empty")), (Some(2), true));
    let output = place.fedper(&["run", "--min-photos", "5", "--out"]).arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
#[cfg(target_os = "linux")]
fn a_cache_that_cannot_be_written_is_one_clear_line() {
    let place = Place::made();
    let out = place.0.path().join("run");
    let mut command = place.on_set(&["run"], &["--quiet", "--out", out.to_str().unwrap()]);
    let output = command.env("XDG_CACHE_HOME", "/proc/nowhere").output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot keep resized photos in /proc/nowhere/fedper/pixels"), "{message}");
    assert!(message.contains("XDG_CACHE_HOME") && message.lines().count() == 1, "{message}");
    assert!(!out.exists());
}
