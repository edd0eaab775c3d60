//! Text as figures and tables need it: escaped, measured, shortened, and numbers in units a reader expects.

use std::fmt::Write as _;

/// Escapes text for XML and HTML, for use between tags and in quoted attributes alike. Characters that XML forbids
/// (control characters) become U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Advance widths of Helvetica (and of Arial and Liberation Sans, which copy it) for U+0020 to U+007E, in 1/1000 em.
#[rustfmt::skip]
const HELVETICA: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278,
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556,
    1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556,
    333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556,
    556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];

/// The width of a line of text in the figures' font, in the unit of `size`. Exact for ASCII in Helvetica, generous
/// elsewhere.
pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let thousandths: u32 = text
        .chars()
        .map(|c| match u32::from(c) {
            code @ 0x20..=0x7e => u32::from(HELVETICA[code as usize - 0x20]),
            0x300..=0x36f => 0,
            0..=0x2e7f => 667,
            _ => 1000,
        })
        .sum();
    f64::from(thousandths) / 1000.0 * size * if bold { 1.08 } else { 1.0 }
}

/// The text, its end cut with an ellipsis so that it is no wider than `limit`.
pub(super) fn shorten(text: &str, limit: f64, size: f64, bold: bool) -> String {
    cut(text, limit, size, bold, |_| 0)
}

/// The same with the cut in the middle: names of runs often differ only at their end.
pub(super) fn shorten_middle(text: &str, limit: f64, size: f64, bold: bool) -> String {
    cut(text, limit, size, bold, |kept| kept / 2)
}

/// `tail` says how many of the kept characters are the last ones.
fn cut(text: &str, limit: f64, size: f64, bold: bool, tail: fn(usize) -> usize) -> String {
    if width(text, size, bold) <= limit {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    for kept in (1..chars.len()).rev() {
        let tail = tail(kept);
        let head: String = chars[..kept - tail].iter().collect();
        let tail: String = chars[chars.len() - tail..].iter().collect();
        let candidate = format!("{}…{}", head.trim_end(), tail.trim_start());
        if width(&candidate, size, bold) <= limit {
            return candidate;
        }
    }
    "…".to_owned()
}

/// At most `places` decimals, without trailing zeros.
pub(super) fn decimal(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A fraction as a percentage without its sign, one decimal: `81.3`.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1}", fraction * 100.0)
}

/// Bytes in decimal units with up to three significant digits: `1.24 MB`.
pub(super) fn bytes(value: f64) -> String {
    let (scaled, unit) = si(value, &BYTES);
    format!("{} {unit}", significant(scaled))
}

/// A rate or count with up to three significant digits: `12.4 k`.
pub(super) fn quantity(value: f64) -> String {
    let (scaled, unit) = si(value, &["", " k", " M", " G"]);
    format!("{}{unit}", significant(scaled))
}

/// Seconds as a reader says them: `0.41 s`, `12.3 s`, `4 min 07 s`, `3 h 12 min`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 59.95 {
        return format!("{} s", significant(seconds));
    }
    let whole = seconds.round() as u64;
    match whole {
        0..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// An integer with its thousands apart: `50 000` (with thin spaces).
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digits.len() > 4 {
            out.push('\u{2009}');
        }
        let _ = write!(out, "{digit}");
    }
    out
}

/// `1 device`, `2 devices`.
pub(super) fn counted(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

/// The unit for about so many bytes, and how many bytes it is.
pub(super) fn byte_unit(value: f64) -> (f64, &'static str) {
    let (_, unit) = si(value, &BYTES);
    let thousands = BYTES.iter().take_while(|&&smaller| smaller != unit).count();
    (1000f64.powi(thousands as i32), unit)
}

const BYTES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

fn si<'a>(value: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    (scaled, units[unit])
}

fn significant(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => decimal(value, 0),
        v if v >= 9.995 => decimal(value, 1),
        _ => decimal(value, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_stays_text() {
        assert_eq!(
            escape("<b a=\"1\" c='2'>&\u{0}é"),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}é"
        );
    }

    #[test]
    fn widths_are_helveticas() {
        assert!((width("Wi", 10.0, false) - (9.44 + 2.22)).abs() < 1e-9);
        assert!(width("Wi", 10.0, true) > width("Wi", 10.0, false));
        assert_eq!(width("猫", 10.0, false), 10.0);
    }

    #[test]
    fn long_names_are_cut_to_fit() {
        assert_eq!(shorten("cat", 100.0, 10.0, false), "cat");
        let cut = shorten("a very long class name indeed", 60.0, 10.0, false);
        assert!(cut.ends_with('…') && cut.starts_with("a very"), "{cut}");
        assert!(width(&cut, 10.0, false) <= 60.0);
        let cut = shorten_middle("experiment-with-many-settings-kp2", 100.0, 10.0, false);
        assert!(cut.starts_with("exper") && cut.ends_with("kp2") && cut.contains('…'), "{cut}");
        assert!(width(&cut, 10.0, false) <= 100.0);
        assert_eq!(shorten("wide", 0.0, 10.0, false), "…");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(999.9), "1 kB");
        assert_eq!(bytes(1_240_000.0), "1.24 MB");
        assert_eq!(bytes(85_200_000.0), "85.2 MB");
        assert_eq!(quantity(12_400.0), "12.4 k");
        assert_eq!(duration(0.412), "0.41 s");
        assert_eq!(duration(59.97), "1 min 00 s");
        assert_eq!(duration(11_520.0), "3 h 12 min");
        assert_eq!(grouped(4000), "4000");
        assert_eq!(grouped(50_000), "50\u{2009}000");
        assert_eq!(grouped(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(decimal(-0.001, 1), "0");
        assert_eq!(decimal(100.0, 0), "100");
        assert_eq!(counted(1, "device"), "1 device");
    }
}
