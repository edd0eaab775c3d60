//! Sizes as people type them: `64MiB`, `2GB`, `1000000`.

use crate::campaign::PERSONAL_MEMORY;
use crate::error::Error;

/// The value of `--personal-memory`, in bytes.
///
/// # Errors
/// [`Error::Config`] if it is not a size.
pub(super) fn memory(text: Option<&str>) -> Result<u64, Error> {
    let Some(text) = text else { return Ok(PERSONAL_MEMORY) };
    parse(text).ok_or_else(|| {
        Error::Config(format!("personal-memory is `{text}`: give a size such as 64MiB, 2GB or 1000000"))
    })
}

/// A number, and kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024), in any case. The B may be missing.
fn parse(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let (prefix, thousand) = match unit.strip_suffix('i') {
        Some(prefix) => (prefix, 1024f64),
        None => (unit, 1000f64),
    };
    let power = match prefix {
        "" if thousand == 1000.0 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * thousand.powi(power);
    (bytes <= 2f64.powi(63)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_type_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1000000", 1_000_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("2GB", 2_000_000_000),
            ("1.5k", 1500),
            ("7b", 7),
            ("1Ti", 1 << 40),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1XB", "1ib", "1.2.3", "1e9", "lots", "99999999TB"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(memory(None).unwrap(), 256 << 20);
        assert_eq!(memory(Some("1 potato")).unwrap_err().exit_code(), 2);
    }
}
