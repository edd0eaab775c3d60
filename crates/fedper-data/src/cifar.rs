//! The binary version of CIFAR-10 and CIFAR-100 (A. Krizhevsky, *Learning Multiple Layers of Features from Tiny
//! Images*, 2009, <https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A file is a row of records, each one byte (CIFAR-10: the class) or two (CIFAR-100: the coarse, then the fine class)
//! and 3,072 bytes of pixels: the red plane, the green, the blue, each 32 rows of 32.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::io;
use crate::{DataError, Images};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// What a record looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// How many classes there are by each byte of labels.
    pub(crate) classes: &'static [usize],
    /// Which of those bytes is the class.
    pub(crate) class_at: usize,
    /// The most records a file may hold: more is not CIFAR.
    pub(crate) most_records: usize,
    /// The SHA-256 of the official test file, in hexadecimal.
    pub(crate) test_sha256: &'static str,
}

/// CIFAR-10's files hold 10,000 records each; some tools merge the five into one.
pub(crate) const CIFAR10: Layout = Layout {
    classes: &[10],
    class_at: 0,
    most_records: 60_000,
    test_sha256: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
};
/// CIFAR-100's fine classes.
pub(crate) const CIFAR100: Layout = Layout {
    classes: &[20, 100],
    class_at: 1,
    most_records: 60_000,
    test_sha256: "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
};
/// CIFAR-100's coarse classes, five fine ones each: the same files.
pub(crate) const CIFAR100_COARSE: Layout = Layout { class_at: 0, ..CIFAR100 };

/// Reads one file, and gives `seen` its bytes as they come (for a checksum).
///
/// # Errors
/// If the file cannot be read, is empty, is not a whole number of records or holds a class out of range.
pub(crate) fn read_file(
    path: &Path,
    layout: Layout,
    seen: &mut dyn FnMut(&[u8]),
) -> Result<Images, DataError> {
    let file = File::open(path).map_err(io("open", path))?;
    read(BufReader::with_capacity(1 << 16, file), &path.display().to_string(), layout, seen)
}

fn read(
    stream: impl Read,
    file: &str,
    layout: Layout,
    seen: &mut dyn FnMut(&[u8]),
) -> Result<Images, DataError> {
    let label_bytes = layout.classes.len();
    let record_len = label_bytes + 3 * PLANE;
    let error = |expected: String, found: String| DataError::Format {
        file: file.into(),
        format: "CIFAR's binary version",
        expected,
        found,
    };
    let most = (layout.most_records * record_len) as u64;
    let mut stream = stream.take(most + 1);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    let mut record = Vec::with_capacity(record_len);
    loop {
        record.clear();
        stream
            .by_ref()
            .take(record_len as u64)
            .read_to_end(&mut record)
            .map_err(|e| error("records".into(), e.to_string()))?;
        if record.is_empty() {
            break;
        }
        if record.len() != record_len || labels.len() == layout.most_records {
            return Err(error(
                format!("1 to {} whole records of {record_len} bytes", layout.most_records),
                format!("{} bytes after record {}", record.len(), labels.len()),
            ));
        }
        seen(&record);
        let (of_record, planes) = record.split_at(label_bytes);
        // Both of CIFAR-100's, whichever is the class: one out of range means that this is another file.
        for (&label, &classes) in of_record.iter().zip(layout.classes) {
            if usize::from(label) >= classes {
                return Err(error(
                    format!("classes below {classes}"),
                    format!("class {label} in record {}", labels.len()),
                ));
            }
        }
        labels.push(u16::from(of_record[layout.class_at]));
        let (red, rest) = planes.split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        pixels.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
    if labels.is_empty() {
        return Err(error(format!("records of {record_len} bytes"), "nothing".into()));
    }
    Images::new([SIDE, SIDE, 3], pixels, labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(labels: &[u8]) -> Vec<u8> {
        let pixels = (0..3 * PLANE).map(|i| (i / PLANE * 100 + i % PLANE % 97) as u8);
        labels.iter().copied().chain(pixels).collect()
    }

    fn parse(bytes: &[u8], layout: Layout) -> Result<Images, DataError> {
        read(bytes, "data_batch_1.bin", layout, &mut |_| ())
    }

    #[test]
    fn planes_become_pixels_and_rows_stay_rows() {
        let images = parse(&[record(&[7]), record(&[2])].concat(), CIFAR10).unwrap();
        assert_eq!((images.len(), images.labels()), (2, &[7, 2][..]));
        // Row 3, column 5 is element 3 * 32 + 5 = 101 of its plane; 101 % 97 = 4.
        assert_eq!(images.pixels(1)[(3 * 32 + 5) * 3..][..3], [4, 104, 204]);
    }

    #[test]
    fn cifar100_takes_the_fine_or_the_coarse_class() {
        let images = parse(&record(&[3, 99]), CIFAR100).unwrap();
        assert_eq!(images.labels(), [99]);
        assert_eq!(parse(&record(&[3, 99]), CIFAR100_COARSE).unwrap().labels(), [3]);
        assert_eq!(images.pixels(0)[..3], [0, 100, 200]);
    }

    #[test]
    fn what_is_not_cifar_is_refused() {
        let good = record(&[7]);
        for (bad, layout, said) in [
            (&b""[..], CIFAR10, "found nothing"),
            (&good[..3072], CIFAR10, "3072 bytes after record 0"),
            (&good[..], CIFAR100, "3073 bytes after record 0"),
            (&[&good[..], &[1]].concat(), CIFAR10, "1 bytes after record 1"),
            (&record(&[10]), CIFAR10, "class 10 in record 0"),
            (&record(&[0, 100]), CIFAR100, "class 100 in record 0"),
            (&record(&[20, 9]), CIFAR100, "class 20 in record 0"),
            (&record(&[20, 9]), CIFAR100_COARSE, "class 20 in record 0"),
            (&record(&[2, 9])[..3000], CIFAR100_COARSE, "3000 bytes after record 0"),
        ] {
            let message = parse(bad, layout).unwrap_err().to_string();
            assert!(message.contains("data_batch_1.bin") && message.contains(said), "{message}");
        }
        let tiny = Layout { most_records: 2, ..CIFAR10 };
        assert!(parse(&[&good[..], &good, &good].concat(), tiny).is_err());
    }

    #[test]
    fn the_bytes_are_shown_as_they_come() {
        let (good, mut seen) = (record(&[7]), Vec::new());
        read(&good[..], "f", CIFAR10, &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
        assert_eq!(seen, good);
    }
}
