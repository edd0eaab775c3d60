//! How many training samples a device has: a number, or all that it is dealt.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::Value;

/// The key `samples_per_client`, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// All that it is dealt.
    All,
    /// So many.
    Count(usize),
}

impl Samples {
    /// The number, if it is one.
    pub fn count(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Count(count) => Some(count),
        }
    }
}

const ALL: &str = "all";

impl Value for Samples {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            ALL => Ok(Self::All),
            _ => {
                text.parse().map(Self::Count).map_err(|_| format!("`{text}` is neither a number nor `{ALL}`"))
            }
        }
    }

    fn number(&self) -> Option<f64> {
        self.count().map(|count| count as f64)
    }
}

impl<'de> Deserialize<'de> for Samples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "samples_per_client is a number or \"all\"")]
        enum Written {
            Count(usize),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) => Ok(Self::Count(count)),
            Written::Word(word) => Self::read(&word).map_err(serde::de::Error::custom),
        }
    }
}

/// For a field that is `None` where a device has all that it is dealt.
pub(super) fn written<S: Serializer>(count: &Option<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    match count {
        Some(count) => count.serialize(serializer),
        None => serializer.serialize_str(ALL),
    }
}
