//! What a round is made of: who takes part, what goes over the wire.
//!
//! A message is a fixed header and the base's values, all little-endian:
//!
//! ```text
//! Download: "FPD1", u32 round, u64 layout fingerprint, u8 test_locally, 7 zero bytes, f32 values...
//! Upload:   "FPU1", u32 round, u64 layout fingerprint, u64 device, u64 n_j,
//!           f64 loss_sum, u64 samples trained, u64 correct, f64 test loss_sum, u64 test samples, f32 values...
//! ```
//!
//! The fingerprint covers names, shapes and kinds, so two sides that cut the network differently refuse each other's
//! messages instead of mixing up parameters. A test that was not made is one of 0 samples.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::metrics::{EvalMetrics, TrainMetrics};
use crate::params::{Layout, Params};
use crate::split::BaseParams;

/// A participant of the federation, by number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeviceId(pub u64);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// From the server to a device: the base to train on, or to be evaluated with.
#[derive(Clone, Debug, PartialEq)]
pub struct Download {
    /// 1 for the first round.
    pub round: u32,
    /// Whether the device should test its network between its training and its answer.
    pub test_locally: bool,
    /// The server's base, shared by all messages of a round.
    pub base: Arc<BaseParams>,
}

/// From a device to the server: its trained base and what it measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Whose.
    pub device: DeviceId,
    /// The round it answers.
    pub round: u32,
    /// n_j: how many training samples the device holds.
    pub samples: u64,
    /// What its training measured.
    pub train: TrainMetrics,
    /// Its own test right after training, if it was asked for.
    pub test: Option<EvalMetrics>,
    /// The base it trained.
    pub base: BaseParams,
}

/// From devices that share a machine: the mean of their bases, weighted by their samples, and what each measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Together {
    /// The round they answer.
    pub round: u32,
    /// Each device's part but for its base; those that failed are not in it.
    pub answers: Vec<Answer>,
    /// The mean of the bases they trained.
    pub base: BaseParams,
}

/// An [`Upload`] without its base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// Whose.
    pub device: DeviceId,
    /// n_j: how many training samples the device holds.
    pub samples: u64,
    /// What its training measured.
    pub train: TrainMetrics,
    /// Its own test right after training, if it was asked for.
    pub test: Option<EvalMetrics>,
}

/// What is wrong with a message that came in.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// It does not begin as it should.
    #[error("not a message of this kind: it begins with {0:?}")]
    Magic([u8; 4]),
    /// It is too short or too long.
    #[error("a message of {found} bytes, expected {expected}")]
    Length {
        /// What the layout makes of it.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// The sender has cut another network, or this one elsewhere.
    #[error("the sender's base has layout {found:016x}, expected {expected:016x}: model or cut differ")]
    Layout {
        /// Ours.
        expected: u64,
        /// Theirs.
        found: u64,
    },
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Download {}
    impl Sealed for super::Upload {}
}

/// What can be sent. Sealed: the messages of this module are all there is, and none of them holds personal parameters.
pub trait Wire: sealed::Sealed {
    /// How many bytes [`Wire::to_bytes`] returns.
    fn encoded_len(&self) -> u64;

    /// The message as bytes.
    fn to_bytes(&self) -> Vec<u8>;
}

const DOWNLOAD: &[u8; 4] = b"FPD1";
const UPLOAD: &[u8; 4] = b"FPU1";
const DOWNLOAD_HEADER: usize = 24;
const UPLOAD_HEADER: usize = 72;

impl Wire for Download {
    fn encoded_len(&self) -> u64 {
        (DOWNLOAD_HEADER + 4 * self.base.params().values().len()) as u64
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin(DOWNLOAD, self.round, &self.base, self.encoded_len());
        out.extend_from_slice(&u64::from(self.test_locally).to_le_bytes());
        put_values(&mut out, &self.base);
        out
    }
}

impl Download {
    /// Reads a message back.
    ///
    /// # Errors
    /// If it is no download, is cut short, or its base is not laid out as `base`.
    pub fn from_bytes(bytes: &[u8], base: &Arc<Layout>) -> Result<Self, WireError> {
        let (round, mut header, base) = open(bytes, DOWNLOAD, DOWNLOAD_HEADER, base)?;
        Ok(Self { round, test_locally: header.word() != 0, base: Arc::new(base) })
    }
}

impl Wire for Upload {
    fn encoded_len(&self) -> u64 {
        (UPLOAD_HEADER + 4 * self.base.params().values().len()) as u64
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = begin(UPLOAD, self.round, &self.base, self.encoded_len());
        let test = self.test.unwrap_or_default();
        for word in [
            self.device.0,
            self.samples,
            self.train.loss_sum.to_bits(),
            self.train.samples,
            test.correct,
            test.loss_sum.to_bits(),
            test.samples,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        put_values(&mut out, &self.base);
        out
    }
}

impl Upload {
    /// Reads a message back.
    ///
    /// # Errors
    /// If it is no upload, is cut short, or its base is not laid out as `base`.
    pub fn from_bytes(bytes: &[u8], base: &Arc<Layout>) -> Result<Self, WireError> {
        let (round, mut header, base) = open(bytes, UPLOAD, UPLOAD_HEADER, base)?;
        let device = DeviceId(header.word());
        let samples = header.word();
        let train =
            TrainMetrics { loss_sum: f64::from_bits(header.word()), samples: header.word(), steps: 0 };
        let test = EvalMetrics {
            correct: header.word(),
            loss_sum: f64::from_bits(header.word()),
            samples: header.word(),
        };
        Ok(Self { device, round, samples, train, test: (test.samples > 0).then_some(test), base })
    }
}

fn begin(magic: &[u8; 4], round: u32, base: &BaseParams, len: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(len as usize);
    out.extend_from_slice(magic);
    out.extend_from_slice(&round.to_le_bytes());
    out.extend_from_slice(&base.params().layout().fingerprint().to_le_bytes());
    out
}

fn put_values(out: &mut Vec<u8>, base: &BaseParams) {
    out.extend_from_slice(&base.params().to_le_bytes());
}

/// The header's words after magic, round and fingerprint.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn word(&mut self) -> u64 {
        let (word, rest) = self.0.split_first_chunk().expect("open() checked the header's length");
        self.0 = rest;
        u64::from_le_bytes(*word)
    }
}

fn open<'a>(
    bytes: &'a [u8],
    magic: &[u8; 4],
    header: usize,
    base: &Arc<Layout>,
) -> Result<(u32, Header<'a>, BaseParams), WireError> {
    let expected = header + 4 * base.numel();
    if let Some(found) = bytes.first_chunk::<4>()
        && found != magic
    {
        return Err(WireError::Magic(*found));
    }
    if bytes.len() < header {
        return Err(WireError::Length { expected, found: bytes.len() });
    }
    let round = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
    let mut words = Header(&bytes[8..header]);
    let found = words.word();
    if found != base.fingerprint() {
        return Err(WireError::Layout { expected: base.fingerprint(), found });
    }
    if bytes.len() != expected {
        return Err(WireError::Length { expected, found: bytes.len() });
    }
    let values = bytes[header..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")))
        .collect();
    let params = Params::from_values(base.clone(), values).expect("the length was checked");
    Ok((round, words, BaseParams::new(params)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Spec;
    use proptest::prelude::*;

    fn base(values: &[u32]) -> BaseParams {
        let layout = Layout::new(vec![Spec::trainable("w", [values.len()])]).unwrap();
        BaseParams::new(
            Params::from_values(layout, values.iter().map(|&bits| f32::from_bits(bits)).collect()).unwrap(),
        )
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_went(
            values in prop::collection::vec(any::<u32>(), 0..20),
            round: u32, device: u64, samples: u64, trained: u64, flag: bool, correct: u64,
            loss in -1e9f64..1e9, tested in prop::option::of(1u64..),
        ) {
            let base = base(&values);
            let layout = base.params().layout().clone();
            let down = Download { round, test_locally: flag, base: Arc::new(base.clone()) };
            prop_assert_eq!(down.to_bytes().len() as u64, down.encoded_len());
            prop_assert_eq!(&Download::from_bytes(&down.to_bytes(), &layout).unwrap(), &down);
            let up = Upload {
                device: DeviceId(device), round, samples, base,
                train: TrainMetrics { loss_sum: loss, samples: trained, steps: 0 },
                test: tested.map(|samples| EvalMetrics { correct, loss_sum: loss, samples }),
            };
            prop_assert_eq!(up.to_bytes().len() as u64, up.encoded_len());
            prop_assert_eq!(&Upload::from_bytes(&up.to_bytes(), &layout).unwrap(), &up);
        }

        #[test]
        fn foreign_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let layout = base(&[0; 3]).params().layout().clone();
            prop_assert!(Download::from_bytes(&bytes, &layout).is_err());
            prop_assert!(Upload::from_bytes(&bytes, &layout).is_err());
        }
    }

    #[test]
    fn every_malformed_header_has_its_own_error() {
        let download = Download { round: 1, test_locally: true, base: Arc::new(base(&[1, 2])) };
        let layout = download.base.params().layout().clone();
        let bytes = download.to_bytes();
        assert_eq!(Upload::from_bytes(&bytes, &layout).unwrap_err(), WireError::Magic(*b"FPD1"));
        for end in 0..bytes.len() {
            assert_eq!(
                Download::from_bytes(&bytes[..end], &layout).unwrap_err(),
                WireError::Length { expected: 32, found: end }
            );
        }
        let other = base(&[1, 2, 3]).params().layout().clone();
        assert!(matches!(Download::from_bytes(&bytes, &other).unwrap_err(), WireError::Layout { .. }));
    }
}
