//! What a reader left out of a dataset, so that nobody has to guess.

/// Photos, ratings and users that were left out, each with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Photos whose files are not there.
    pub missing: Vec<String>,
    /// Photos whose files are not images, and what the decoder says.
    pub broken: Vec<(String, String)>,
    /// How many ratings of photos that their user had rated before.
    pub repeated: usize,
    /// Users who do not qualify, and why.
    pub users: Vec<(String, String)>,
    /// Files and folders that are no images of the dataset, a sentence for each kind.
    pub files: Vec<String>,
}

impl LeftOut {
    /// What is wrong with the data, a line each: every photo by name, up to `most`, then how many more there are. Users
    /// are not among it: that some do not qualify is no fault.
    pub fn warnings(&self, most: usize) -> Vec<String> {
        let missing = self.missing.iter().map(|name| format!("photo {name} is missing: it is left out"));
        let broken = self.broken.iter().map(|(name, why)| format!("photo {name} is left out: {why}"));
        let photos = self.missing.len() + self.broken.len();
        let mut lines: Vec<String> = missing.chain(broken).take(most).collect();
        if photos > 0 {
            let more =
                if photos > most { format!(", {} not named here", photos - most) } else { String::new() };
            lines.push(format!("{}{more}", self.photo_counts()));
        }
        if self.repeated > 0 {
            lines.push(format!("{} ratings left out: their users had rated the photo before", self.repeated));
        }
        lines.extend(self.files.iter().cloned());
        lines
    }

    fn photo_counts(&self) -> String {
        let (missing, broken) = (self.missing.len(), self.broken.len());
        let count = missing + broken;
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} photo{plural} left out: {missing} missing, {broken} broken")
    }

    /// The counts, to go behind a sentence; empty if nothing was left out.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        if self.missing.len() + self.broken.len() > 0 {
            text += &format!("; {}", self.photo_counts());
        }
        if self.repeated > 0 {
            text += &format!("; {} repeated ratings left out", self.repeated);
        }
        self.files.iter().for_each(|sentence| text += &format!("; {sentence}"));
        text
    }

    /// Some users who do not qualify, in brackets, and what became of photos. The last users are those whose photos are
    /// missing or broken.
    pub(crate) fn example(&self) -> String {
        let some: Vec<String> =
            self.users.iter().rev().take(3).map(|(user, why)| format!("'{user}' has {why}")).collect();
        let more = if self.users.len() > some.len() { ", ..." } else { "" };
        let mut text = String::new();
        if !some.is_empty() {
            text += &format!(" ({}{more})", some.join(", "));
        }
        if let Some(name) = self.broken.first().map(|(name, _)| name).or(self.missing.first()) {
            text += &format!("; {}, such as {name}", self.photo_counts());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_photo_is_named_or_counted() {
        assert!(LeftOut::default().warnings(5).is_empty());
        let left_out = LeftOut {
            missing: vec!["a.jpg".into(), "b.jpg".into()],
            broken: vec![("c.jpg".into(), "no end".into())],
            repeated: 7,
            users: vec![("ann".into(), "2 rated photos, fewer than 60".into())],
            files: vec!["2 .heic files left out".into()],
        };
        assert_eq!(
            left_out.warnings(2),
            [
                "photo a.jpg is missing: it is left out",
                "photo b.jpg is missing: it is left out",
                "3 photos left out: 2 missing, 1 broken, 1 not named here",
                "7 ratings left out: their users had rated the photo before",
                "2 .heic files left out",
            ]
        );
        assert_eq!(left_out.warnings(9)[2], "photo c.jpg is left out: no end");
        assert_eq!(
            left_out.example(),
            " ('ann' has 2 rated photos, fewer than 60); 3 photos left out: 2 missing, 1 broken, such as c.jpg"
        );
    }
}
