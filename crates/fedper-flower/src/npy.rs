//! Arrays as NumPy's `.npy` bytes: float32, little-endian, row-major.
//!
//! ```text
//! 0x93 "NUMPY" major minor length header values
//! header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" and spaces and a newline, to a multiple of 64
//! ```
//!
//! The length is a u16 in version 1 and a u32 in versions 2 and 3.

/// The bytes before the values of an array of `shape`.
pub fn header(shape: &[usize]) -> Vec<u8> {
    let extents: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{comma}), }}", extents.join(", "));
    // Ten bytes before the text and a newline after it.
    let filled = (10 + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', filled - 11 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let length = u16::try_from(text.len()).expect("an array has few dimensions");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The array's bytes: header and values.
///
/// # Shapes
/// `values` holds as many as `shape` multiplies to.
pub fn write(shape: &[usize], values: &[f32]) -> Vec<u8> {
    debug_assert_eq!(shape.iter().product::<usize>(), values.len());
    let mut bytes = header(shape);
    let start = bytes.len();
    bytes.resize(start + 4 * values.len(), 0);
    for (chunk, value) in bytes[start..].chunks_exact_mut(4).zip(values) {
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Reads an array that must have `shape` into `values`.
///
/// # Errors
/// What is wrong, in words: no `.npy`, another type, another shape, cut short.
pub fn read_into(bytes: &[u8], shape: &[usize], values: &mut [f32]) -> Result<(), String> {
    let (found, data) = open(bytes)?;
    if found != shape {
        return Err(format!("has shape {found:?}, expected {shape:?}"));
    }
    if data.len() != 4 * values.len() {
        return Err(format!("has {} bytes of values, expected {}", data.len(), 4 * values.len()));
    }
    for (value, bytes) in values.iter_mut().zip(data.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
    Ok(())
}

/// The shape and the bytes of the values.
///
/// # Errors
/// What is wrong, in words.
pub fn open(bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("is not in NumPy's format")?;
    let ([major, _minor], rest) = rest.split_first_chunk::<2>().ok_or("is cut short")?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or("is cut short")?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or("is cut short")?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("is in version {other} of NumPy's format")),
    };
    let (text, data) = rest.split_at_checked(length).ok_or("is cut short")?;
    let text = str::from_utf8(text).map_err(|_| "has a header that is not text")?;
    Ok((parse(text)?, data))
}

/// The shape that a header's dictionary tells, if its other entries are as they must be.
fn parse(text: &str) -> Result<Vec<usize>, String> {
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = inner.ok_or("has a header that is no dictionary")?.trim_start();
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or("has a header that cannot be read")?;
        let after = after.trim_start().strip_prefix(':').ok_or("has a header that cannot be read")?;
        let after = after.trim_start();
        let after = match key {
            "descr" => {
                let (value, after) = quoted(after).ok_or("holds no plain numbers")?;
                descr = Some(value);
                after
            }
            "fortran_order" => {
                let (value, after) = match (after.strip_prefix("False"), after.strip_prefix("True")) {
                    (Some(after), _) => (false, after),
                    (_, Some(after)) => (true, after),
                    _ => return Err("has a header that cannot be read".into()),
                };
                fortran = Some(value);
                after
            }
            "shape" => {
                let inner = after.strip_prefix('(').and_then(|text| text.split_once(')'));
                let (inner, after) = inner.ok_or("has a header that cannot be read")?;
                let extents = inner.split(',').map(str::trim).filter(|extent| !extent.is_empty());
                let extents: Result<Vec<usize>, _> = extents.map(str::parse).collect();
                shape = Some(extents.map_err(|_| "has a shape that cannot be read")?);
                after
            }
            other => return Err(format!("has a header with the key `{other}`")),
        };
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err("has a header that cannot be read".into()),
        };
    }
    let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
        return Err("has a header without descr, fortran_order or shape".into());
    };
    if descr != "<f4" {
        return Err(format!("holds values of type `{descr}`, expected `<f4`"));
    }
    if fortran && shape.len() > 1 {
        return Err("is in column-major order, expected row-major".into());
    }
    Ok(shape)
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| "'\"".contains(*c))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_as_numpy_writes_it() {
        // numpy.save of float32 arrays of these shapes.
        for (shape, text) in [
            (&[4][..], "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"),
            (&[2, 3], "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"),
            (&[], "{'descr': '<f4', 'fortran_order': False, 'shape': (), }"),
        ] {
            let bytes = header(shape);
            assert_eq!(bytes.len() % 64, 0);
            assert!(bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00") && bytes.ends_with(b" \n"));
            assert_eq!(str::from_utf8(&bytes[10..]).unwrap().trim_end(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = write(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let mut values = [0.0; 4];
        read_into(&good, &[2, 2], &mut values).unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
        let with = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(&good[10..128]).replace(from, to);
            let mut bytes = good[..8].to_vec();
            bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(&good[128..]);
            read_into(&bytes, &[2, 2], &mut [0.0; 4]).unwrap_err()
        };
        assert!(with("<f4", "<f8").contains("`<f8`"));
        assert!(with("False", "True").contains("column-major"));
        assert!(with("(2, 2)", "(4,)").contains("[4], expected [2, 2]"));
        assert!(with("(2, 2)", "(2, -2)").contains("shape"));
        assert!(with("'shape'", "'form'").contains("`form`"));
        assert!(read_into(&good[..good.len() - 1], &[2, 2], &mut values).unwrap_err().contains("15 bytes"));
        assert!(read_into(&good[..50], &[2, 2], &mut values).unwrap_err().contains("cut short"));
    }

    proptest! {
        #[test]
        fn arrays_come_back_as_they_went(shape in prop::collection::vec(0usize..5, 0..5), bits: u32) {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|i| f32::from_bits(bits.wrapping_mul(i as u32 + 1))).collect();
            let mut back = vec![0.0; count];
            read_into(&write(&shape, &values), &shape, &mut back).unwrap();
            prop_assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
