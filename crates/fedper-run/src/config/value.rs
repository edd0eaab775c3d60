//! Types of a key's value: how each is typed as text, on the command line as elsewhere.

use std::path::PathBuf;

/// What a key's value can be, and how it is read from text.
pub trait Value: Sized {
    /// The words that are its only values, if it has such.
    const WORDS: &'static [Word] = &[];

    /// Reads it.
    ///
    /// # Errors
    /// What would be right.
    fn read(text: &str) -> Result<Self, String>;

    /// The number that a key's range is about, if it is one.
    fn number(&self) -> Option<f64> {
        None
    }
}

/// A value that is one of a few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// As it is typed.
    pub name: &'static str,
    /// What it means, as in its documentation comment.
    pub(super) help: &'static str,
}

impl Word {
    /// What it means, without the full stop.
    pub fn help(&self) -> &'static str {
        self.help.trim().trim_end_matches('.')
    }
}

impl Value for String {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("it is empty: give a path".to_owned()),
            _ => Ok(text.into()),
        }
    }
}

impl Value for bool {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
    }
}

/// A list is typed with commas.
impl Value for Vec<String> {
    fn read(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::to_owned).collect())
    }
}

impl Value for f64 {
    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not a number, such as 0.5"))
    }

    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => { $(
        impl Value for $type {
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| whole_number(text, Self::MAX as u64))
            }

            fn number(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )* };
}

whole_numbers!(u32 u64 usize);

fn whole_number(text: &str, most: u64) -> String {
    match !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        true => format!("{text} is too large: it can be at most {most}"),
        false => format!("`{text}` is not a whole number, such as 10"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_what_would_be_right() {
        assert_eq!(u32::read("7"), Ok(7));
        assert_eq!(
            u32::read("4294967296").unwrap_err(),
            "4294967296 is too large: it can be at most 4294967295"
        );
        for text in ["", "x", "-1", "1.5", "1e3"] {
            assert_eq!(u64::read(text).unwrap_err(), format!("`{text}` is not a whole number, such as 10"));
        }
        assert_eq!(f64::read("1e-3"), Ok(1e-3));
        assert_eq!(f64::read("0,1").unwrap_err(), "`0,1` is not a number, such as 0.5");
        assert_eq!(bool::read("yes").unwrap_err(), "`yes` is neither true nor false");
        assert_eq!(Vec::<String>::read("a,b").unwrap(), ["a", "b"]);
        assert!(PathBuf::read("").is_err());
    }
}
