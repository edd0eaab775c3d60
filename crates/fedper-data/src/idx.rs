//! The IDX format of MNIST and its successors, plain or compressed with gzip.
//!
//! Two zero bytes, the type of the elements (8 for unsigned bytes), the number of dimensions, each dimension as a
//! big-endian `u32`, then the elements, last dimension fastest. Images have three dimensions (count, rows, columns),
//! labels one. <http://yann.lecun.com/exdb/mnist/>

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use crate::{DataError, Images};

const FORMAT: &str = "IDX";

/// More than any published IDX file holds, and little enough to keep in memory: a header that claims more is refused.
const MOST_ELEMENTS: u64 = 1 << 31;

/// Reads images and their labels; `what` names each stream in errors.
///
/// # Errors
/// If a stream is not IDX of unsigned bytes, is shorter or longer than its header says, the counts differ, or a label
/// is not below `classes`.
pub(crate) fn read_images(
    images: (impl Read, &str),
    labels: (impl Read, &str),
    classes: usize,
) -> Result<Images, DataError> {
    let (dimensions, pixels) = read::<3>(images.0, images.1)?;
    let ([count], values) = read::<1>(labels.0, labels.1)?;
    let [images_count, height, width] = dimensions;
    let format = |expected: String, found: String| {
        Err(DataError::Format { file: labels.1.into(), format: FORMAT, expected, found })
    };
    if images_count != count {
        return format(
            format!("{images_count} labels, one for each image in {}", images.1),
            count.to_string(),
        );
    }
    if let Some(at) = values.iter().position(|&label| usize::from(label) >= classes) {
        return format(format!("labels below {classes}"), format!("label {} of image {at}", values[at]));
    }
    Images::new([height, width, 1], pixels, values.into_iter().map(u16::from).collect())
}

/// Reads one array of unsigned bytes with `D` dimensions.
fn read<const D: usize>(stream: impl Read, file: &str) -> Result<([usize; D], Vec<u8>), DataError> {
    let error = |expected: &str, found: String| DataError::Format {
        file: file.into(),
        format: FORMAT,
        expected: expected.into(),
        found,
    };
    let unreadable = |expected: &str, e: &io::Error| error(expected, e.to_string());

    let mut stream = decompressed(stream).map_err(|e| unreadable("a header", &e))?;
    let mut magic = [0; 4];
    stream.read_exact(&mut magic).map_err(|e| unreadable("a header of 4 bytes", &e))?;
    if magic != [0, 0, 8, D as u8] {
        return Err(error(&format!("the header 00 00 08 {D:02x}"), format!("{magic:02x?}")));
    }
    let mut dimensions = [0; D];
    let mut elements = 1u64;
    for dimension in &mut dimensions {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).map_err(|e| unreadable("the dimensions", &e))?;
        let side = u32::from_be_bytes(bytes);
        *dimension = side as usize;
        elements = elements.saturating_mul(u64::from(side));
    }
    if elements == 0 || elements > MOST_ELEMENTS {
        return Err(error(&format!("1 to {MOST_ELEMENTS} elements"), format!("dimensions {dimensions:?}")));
    }
    // The vector grows with what is read, not with what the header claims; one byte more shows what is too long.
    let mut values = Vec::new();
    stream.take(elements + 1).read_to_end(&mut values).map_err(|e| unreadable("the elements", &e))?;
    if values.len() as u64 != elements {
        let found = if values.len() as u64 > elements { "more".into() } else { format!("{}", values.len()) };
        return Err(error(&format!("{elements} elements, as its header says"), found));
    }
    Ok((dimensions, values))
}

/// Decompresses what begins like gzip, and passes on the rest.
fn decompressed<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut begin = Vec::new();
    stream.by_ref().take(2).read_to_end(&mut begin)?;
    let gzip = begin == [0x1f, 0x8b];
    let whole = io::Cursor::new(begin).chain(stream);
    Ok(if gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        dimensions.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes.extend(values);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn parse(images: &[u8], labels: &[u8]) -> Result<Images, DataError> {
        read_images((images, "images"), (labels, "labels"), 10)
    }

    #[test]
    fn plain_and_compressed_files_read_alike() {
        let (images, labels) =
            (idx(&[2, 2, 3], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), idx(&[2], &[9, 0]));
        let plain = parse(&images, &labels).unwrap();
        assert_eq!([plain.height, plain.width, plain.channels], [2, 3, 1]);
        assert_eq!(plain.pixels(1), [7, 8, 9, 10, 11, 12]);
        assert_eq!(plain.labels(), [9, 0]);
        assert_eq!(plain, parse(&gzip(&images), &gzip(&labels)).unwrap());
    }

    #[test]
    fn what_is_not_idx_is_refused_with_its_name() {
        let (images, labels) = (idx(&[1, 1, 2], &[1, 2]), idx(&[1], &[3]));
        let mut foreign_type = images.clone();
        foreign_type[2] = 0x0d;
        let compressed = gzip(&images);
        let mut corrupt = compressed.clone();
        *corrupt.last_mut().unwrap() ^= 1;
        for (bad, said) in [
            (&b""[..], "header"),
            (&images[..3], "header"),
            (&images[..9], "dimensions"),
            (&images[..images.len() - 1], "2 elements"),
            (&[&images[..], &[0]].concat(), "found more"),
            (&foreign_type, "0d"),
            (&labels, "00 00 08 03"),
            (&compressed[..compressed.len() - 4], "elements"),
            (&compressed[..5], "header"),
            (&corrupt, "elements"),
            (b"<html>404</html>", "3c"),
        ] {
            let message = parse(bad, &labels).unwrap_err().to_string();
            assert!(message.contains("cannot read images as IDX") && message.contains(said), "{message}");
        }
        assert!(parse(&images, &idx(&[2], &[0, 0])).unwrap_err().to_string().contains("1 labels"));
        assert!(parse(&images, &idx(&[1], &[10])).unwrap_err().to_string().contains("label 10 of image 0"));
    }

    #[test]
    fn a_header_that_claims_billions_allocates_nothing() {
        let labels = idx(&[1], &[3]);
        for dimensions in [[u32::MAX; 3], [1 << 11, 1 << 10, 1 << 10], [0, 28, 28]] {
            assert!(parse(&idx(&dimensions, &[0; 8]), &labels).is_err(), "{dimensions:?}");
        }
    }
}
