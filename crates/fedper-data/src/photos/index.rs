//! The index of a cache of photographs: text, a line for each photo, appended to and never rewritten.
//!
//! The first line says what the file of pixels holds: `fedper pixels VERSION`, the shape, whether photos of another size
//! are resized or refused, and the folder of the photos. Each other line is one slot of that file: its number, the photo's
//! channels (1 if it is grey), its size in bytes and time of change in nanoseconds since 1970 when it was decoded, the
//! FNV-1a hash of the pixels, and the photo's name; separated by tabs. The last line of a name counts. What follows the
//! last line's end is an interrupted write.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::Metadata;
use std::path::Path;
use std::time::UNIX_EPOCH;

use fedper_core::seed::Fnv1a;

use super::stored::Slot;
use crate::decode::Fit;

/// Changes when the same photo would become other pixels, so that a newer program decodes afresh.
pub(super) const VERSION: u32 = 2;

/// What a photo's file was when it was decoded: if it is no longer that, the pixels are stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) bytes: u64,
    pub(super) modified: u128,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { bytes: metadata.len(), modified: modified.map_or(0, |time| time.as_nanos()) }
    }
}

/// Where a photo's pixels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) slot: Slot,
    pub(super) stamp: Stamp,
    pub(super) hash: u64,
}

/// The index's first line, without its end.
pub(super) fn header(fit: Fit, photos: &Path) -> String {
    let (height, width) = fit.size();
    let how = if matches!(fit, Fit::Resize(..)) { "resized" } else { "as they are" };
    format!("fedper pixels {VERSION}\t{height}x{width}x3\t{how}\t{}", name(photos))
}

/// A path as it stands in the index: as it is, or quoted and escaped if it would not be one line of text.
pub(super) fn name(path: &Path) -> Cow<'_, str> {
    match path.to_str() {
        Some(text) if !text.contains(|c: char| c.is_control() || c == '"') => text.into(),
        _ => format!("{path:?}").into(),
    }
}

/// The line of a photo, with its end.
pub(super) fn line(name: &str, entry: &Entry) -> String {
    let Entry { slot: Slot { number, grey }, stamp: Stamp { bytes, modified }, hash } = entry;
    let channels = if *grey { 1 } else { 3 };
    format!("{number}\t{channels}\t{bytes}\t{modified}\t{hash:016x}\t{name}\n")
}

/// Reads whole lines into `entries`, and says how many bytes of `text` they are; the rest is no line of an index.
pub(super) fn read(text: &[u8], entries: &mut HashMap<String, Entry>) -> usize {
    let mut whole = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        let Some((name, entry)) = std::str::from_utf8(line).ok().and_then(parse) else { break };
        entries.insert(name.into(), entry);
        whole += line.len() + 1;
    }
    whole
}

fn parse(line: &str) -> Option<(&str, Entry)> {
    let mut fields = line.splitn(6, '\t');
    let mut next = || fields.next();
    let number = next()?.parse().ok()?;
    let grey = match next()? {
        "1" => true,
        "3" => false,
        _ => return None,
    };
    let stamp = Stamp { bytes: next()?.parse().ok()?, modified: next()?.parse().ok()? };
    let hash = u64::from_str_radix(next()?, 16).ok()?;
    Some((next()?, Entry { slot: Slot { number, grey }, stamp, hash }))
}

/// The hash of a photo's pixels.
pub(super) fn hash(pixels: &[u8]) -> u64 {
    let mut hash = Fnv1a::new();
    hash.write(pixels);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_written_up_to_an_interrupted_one() {
        let entry = |number| Entry {
            slot: Slot { number, grey: number == 1 },
            stamp: Stamp { bytes: 7, modified: 1 << 70 },
            hash: u64::MAX - 1,
        };
        let lines = [line("a b.jpg", &entry(0)), line("c.jpg", &entry(1)), line("a b.jpg", &entry(2))];
        let (first, text) = (lines[0].len(), lines.concat());
        for (text, whole, slots) in [
            (text.clone(), text.len(), [Some(2), Some(1)]),
            (text[..text.len() - 1].into(), first + lines[1].len(), [Some(0), Some(1)]),
            (text.replacen("\tc.jpg", "", 1), first, [Some(0), None]),
        ] {
            let mut entries = HashMap::new();
            assert_eq!(read(text.as_bytes(), &mut entries), whole, "{text}");
            assert_eq!(
                ["a b.jpg", "c.jpg"].map(|name| entries.get(name).map(|entry: &Entry| entry.slot.number)),
                slots
            );
        }
        assert_eq!(read(b"1\t3\t2\t3\tx\tname\n", &mut HashMap::new()), 0);
        assert_eq!(read(b"1\t2\t2\t3\tff\tname\n", &mut HashMap::new()), 0);
        assert_eq!(read(b"\xff\n", &mut HashMap::new()), 0);
    }

    #[test]
    fn any_path_is_one_line_of_its_own() {
        for plain in ["a b.jpg", "dé/x.png", r"back\slash.png"] {
            assert_eq!(name(Path::new(plain)), plain);
        }
        let odd = ["a\nb", "a\tb", "\"a\\nb\"", "a\"b"].map(|text| name(Path::new(text)).into_owned());
        assert!(odd.iter().all(|text| !text.contains(['\n', '\t']) && text.starts_with('"')), "{odd:?}");
        assert!((1..odd.len()).all(|i| !odd[..i].contains(&odd[i])), "{odd:?}");
    }
}
