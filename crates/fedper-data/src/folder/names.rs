//! Names of classes that people take for the same.

/// What is left of a name without upper case, spaces around it, and the two ways in which Unicode writes an accent.
pub(super) fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for c in name.trim().to_lowercase().chars() {
        match ACCENTED.iter().find_map(|(mark, letters, bases)| {
            let at = letters.chars().position(|letter| letter == c)?;
            Some((bases.chars().nth(at)?, *mark))
        }) {
            Some((base, mark)) => key.extend([base, mark]),
            None => key.push(c),
        }
    }
    key
}

/// The accented small letters of European languages: the accent as a character of its own, the letters, and the same ones
/// without it. macOS writes names in the long form, everybody else in the short one.
const ACCENTED: [(char, &str, &str); 11] = [
    ('\u{300}', "àèìòùǹẁỳ", "aeiounwy"),
    ('\u{301}', "áćéíĺńóŕśúẃýź", "aceilnorsuwyz"),
    ('\u{302}', "âĉêĝĥîĵôŝûŵŷ", "aceghijosuwy"),
    ('\u{303}', "ãĩñõũỹẽ", "ainouye"),
    ('\u{304}', "āēīōū", "aeiou"),
    ('\u{306}', "ăĕğĭŏŭ", "aegiou"),
    ('\u{307}', "ċėġż", "cegz"),
    ('\u{308}', "äëïöüÿ", "aeiouy"),
    ('\u{30a}', "åů", "au"),
    ('\u{30b}', "őű", "ou"),
    ('\u{30c}', "čďěňřšťžǎǐǒǔ", "cdenrstzaiou"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_to_people() {
        for (a, b) in [("cat", "Cat"), ("cat", "cat "), ("Käse", "ka\u{308}se"), ("ÉTÉ", "e\u{301}te\u{301}")]
        {
            assert_eq!(key(a), key(b), "{a} {b}");
        }
        for (a, b) in [("cat", "cats"), ("resume", "résumé"), ("a b", "ab"), ("1", "01")] {
            assert_ne!(key(a), key(b), "{a} {b}");
        }
        for (_, letters, bases) in ACCENTED {
            assert_eq!(letters.chars().count(), bases.chars().count(), "{letters}");
        }
    }
}
