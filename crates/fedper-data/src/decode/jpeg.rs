//! Whether a JPEG file is all there.
//!
//! The decoder fills what is missing of a truncated file with grey and says nothing, which would train a network on
//! images that nobody has seen.

/// The markers that stand alone, without a length: TEM, RST0 to RST7, SOI.
fn stands_alone(marker: u8) -> bool {
    matches!(marker, 0x01 | 0xd0..=0xd8)
}

/// Whether `bytes` begin like a JPEG file.
pub(crate) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// Whether the file goes on to its end-of-image marker. Segments are skipped by their length, because a preview inside
/// one has such a marker too; compressed data is searched for the next marker, which it cannot contain.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    let mut rest = bytes;
    loop {
        // In compressed data, FF is followed by 0 if it is data; before a marker, any number of FF may stand.
        let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))
        else {
            return false;
        };
        let marker = rest[at + 1];
        rest = &rest[at + 2..];
        if marker == END_OF_IMAGE {
            return true;
        }
        if !stands_alone(marker) {
            let Some(length) = rest.first_chunk().map(|&length| u16::from_be_bytes(length)) else {
                return false;
            };
            let Some(after) = rest.get(usize::from(length)..) else { return false };
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_behind_previews_and_data() {
        let preview = [0xff, 0xe1, 0, 6, 0xff, 0xd8, 0xff, 0xd9];
        let scan = [0xff, 0xda, 0, 3, 7, 0x12, 0xff, 0x00, 0xff, 0xd0, 0x34];
        let whole = [&[0xff, 0xd8][..], &preview, &scan, &[0xff, 0xff, 0xd9], b"appendix"].concat();
        assert!(is_jpeg(&whole) && is_complete(&whole));
        for len in 0..whole.len() - b"appendix".len() {
            assert!(!is_complete(&whole[..len]), "{len}");
        }
    }
}
