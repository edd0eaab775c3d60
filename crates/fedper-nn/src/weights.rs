//! Weights in and out as safetensors (<https://github.com/huggingface/safetensors>), under the field's parameter names.

use std::borrow::Cow;
use std::collections::HashMap;

use fedper_core::params::{Kind, Layout, Params, ParamsError, Spec};
use safetensors::{Dtype, SafeTensors, View, serialize};
use thiserror::Error;

/// What can be wrong with a weights file.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// Cut short, or no such file at all.
    #[error("not a safetensors file, or a damaged one ({0}); get it again")]
    Format(#[from] safetensors::SafeTensorError),
    /// Numbers that are no weights.
    #[error("parameter `{name}` has type {dtype}, expected F32, F16, BF16 or F64")]
    Type {
        /// Whose.
        name: String,
        /// What the file says.
        dtype: String,
    },
    /// Names that do not make a set of parameters.
    #[error(transparent)]
    Params(#[from] ParamsError),
}

/// One parameter's values as bytes.
struct Bytes<'a> {
    shape: &'a [usize],
    values: &'a [f32],
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

/// The file's bytes. The same parameters always give the same bytes.
///
/// # Errors
/// If the format cannot hold them.
pub fn write_safetensors(params: &Params) -> Result<Vec<u8>, WeightsError> {
    write(params, None)
}

/// The same with a note about them, which [`read_note`] finds by its name.
///
/// # Errors
/// If the format cannot hold them.
pub fn write_with_note(params: &Params, name: &str, note: String) -> Result<Vec<u8>, WeightsError> {
    write(params, Some([(name.to_owned(), note)].into()))
}

fn write(params: &Params, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>, WeightsError> {
    let views =
        params.iter().map(|(spec, values)| (spec.name.as_str(), Bytes { shape: &spec.shape, values }));
    Ok(serialize(views, metadata)?)
}

/// The note of that name in a file, if it has one.
///
/// # Errors
/// If the file is damaged or of another format.
pub fn read_note(bytes: &[u8], name: &str) -> Result<Option<String>, WeightsError> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    Ok(header.metadata().as_ref().and_then(|notes| notes.get(name)).cloned())
}

/// The parameters in a file, converted to f32. PyTorch's `num_batches_tracked` is left out, because nothing reads it.
/// Names that end in `running_mean` or `running_var` are buffers.
///
/// # Errors
/// If the file is damaged or of another format, or holds something else than floating-point numbers.
pub fn read_safetensors(bytes: &[u8]) -> Result<Params, WeightsError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut specs = Vec::new();
    let mut values = Vec::new();
    for (name, tensor) in file.iter() {
        if name.ends_with("num_batches_tracked") {
            continue;
        }
        let data = tensor.data();
        match tensor.dtype() {
            Dtype::F32 => values.extend(data.chunks_exact(4).map(|b| f32::from_le_bytes(array(b)))),
            Dtype::F64 => values.extend(data.chunks_exact(8).map(|b| f64::from_le_bytes(array(b)) as f32)),
            Dtype::BF16 => values.extend(
                data.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes(array(b))) << 16)),
            ),
            Dtype::F16 => {
                values.extend(data.chunks_exact(2).map(|b| half_to_f32(u16::from_le_bytes(array(b)))))
            }
            other => {
                return Err(WeightsError::Type { name: name.to_owned(), dtype: format!("{other:?}") });
            }
        }
        let buffer = name.ends_with("running_mean") || name.ends_with("running_var");
        let kind = if buffer { Kind::Buffer } else { Kind::Trainable };
        specs.push(Spec { name: name.to_owned(), shape: tensor.shape().to_vec(), kind });
    }
    Ok(Params::from_values(Layout::new(specs)?, values)?)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks have this length")
}

/// IEEE 754 binary16 to binary32; exact.
fn half_to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        let layout = Layout::new(vec![
            Spec::trainable("fc.weight", [2, 3]),
            Spec::buffer("bn.running_var", [2]),
            Spec::trainable("scalar", []),
        ])
        .unwrap();
        Params::from_values(layout, vec![1.0, -2.5, 3.0, f32::MIN_POSITIVE, -0.0, 6.0, 7.0, 8.0, 9.0])
            .unwrap()
    }

    #[test]
    fn weights_come_back_as_they_went() {
        let bytes = write_safetensors(&params()).unwrap();
        assert_eq!(bytes, write_safetensors(&params()).unwrap());
        let read = read_safetensors(&bytes).unwrap();
        assert_eq!(read.layout().len(), 3);
        for (spec, values) in params().iter() {
            let position = read.layout().position(&spec.name).unwrap();
            assert_eq!(&read.layout().specs()[position], spec);
            assert_eq!(read.at(position), values);
        }
    }

    #[test]
    fn a_note_is_found_by_its_name() {
        let bytes = write_with_note(&params(), "about", "a \"note\"".into()).unwrap();
        assert_eq!(read_note(&bytes, "about").unwrap().as_deref(), Some("a \"note\""));
        assert_eq!(read_note(&bytes, "other").unwrap(), None);
        assert_eq!(read_note(&write_safetensors(&params()).unwrap(), "about").unwrap(), None);
        let read = read_safetensors(&bytes).unwrap();
        for (spec, values) in params().iter() {
            assert_eq!(read.get(&spec.name).unwrap(), values);
        }
        assert!(read_note(b"no such file", "about").is_err());
    }

    #[test]
    fn a_cut_or_foreign_file_is_an_error() {
        let bytes = write_safetensors(&params()).unwrap();
        for len in 0..bytes.len() {
            assert!(read_safetensors(&bytes[..len]).is_err(), "{len}");
        }
        let error = read_safetensors(b"\x89PNG\r\n\x1a\n and so on").unwrap_err();
        assert!(error.to_string().contains("not a safetensors file"), "{error}");
    }

    #[test]
    fn other_number_formats_are_converted() {
        let file = |dtype: &str, data: &[u8]| {
            let header =
                format!(r#"{{"a":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{}]}}}}"#, data.len());
            let padded = format!("{header:<width$}", width = header.len().next_multiple_of(8));
            [&(padded.len() as u64).to_le_bytes(), padded.as_bytes(), data].concat()
        };
        let read =
            |dtype: &str, data: &[u8]| read_safetensors(&file(dtype, data)).map(|p| p.values().to_vec());
        assert_eq!(read("F16", &[0x00, 0x3c, 0x01, 0x80]).unwrap(), [1.0, -(2f32.powi(-24))]);
        assert_eq!(read("BF16", &[0x80, 0x3f, 0x20, 0xc0]).unwrap(), [1.0, -2.5]);
        let doubles = [0.5f64.to_le_bytes(), (-3.0f64).to_le_bytes()].concat();
        assert_eq!(read("F64", &doubles).unwrap(), [0.5, -3.0]);
        let error = read("I32", &[0; 8]).unwrap_err().to_string();
        assert!(error.contains("`a` has type I32"), "{error}");
    }

    #[test]
    fn half_precision_is_exact() {
        assert_eq!(half_to_f32(0x7bff), 65504.0);
        assert_eq!(half_to_f32(0x0400), 2f32.powi(-14));
        assert_eq!(half_to_f32(0xfc00), f32::NEG_INFINITY);
        assert!(half_to_f32(0x7e00).is_nan());
        assert_eq!(half_to_f32(0x8000).to_bits(), (-0.0f32).to_bits());
    }
}
