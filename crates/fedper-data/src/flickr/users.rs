//! Which users qualify, and in which order they are drawn.

use fedper_core::seed::{self, Purpose, SERVER};

use super::ratings::{Rating, Ratings, SCORES};
use crate::RaterOptions;

impl RaterOptions {
    /// Why a user with these ratings does not qualify, if so.
    pub(super) fn objection(&self, ratings: &[Rating]) -> Option<String> {
        if ratings.len() > self.max_photos {
            return Some(format!("{} rated photos, more than {}", ratings.len(), self.max_photos));
        }
        self.shortage(ratings)
    }

    /// The same for what is left of them after broken photos were taken out.
    pub(super) fn shortage(&self, ratings: &[Rating]) -> Option<String> {
        if ratings.len() < self.min_photos {
            return Some(format!("{} rated photos, fewer than {}", ratings.len(), self.min_photos));
        }
        let mut counts = [0; SCORES];
        ratings.iter().for_each(|rating| counts[usize::from(rating.score) - 1] += 1);
        let short = counts.iter().position(|&count| count < self.min_per_score)?;
        Some(format!("{} photos of score {}, fewer than {}", counts[short], short + 1, self.min_per_score))
    }

    /// The rules in words.
    pub(super) fn rules(&self) -> String {
        let Self { min_photos, max_photos, min_per_score, .. } = self;
        format!("{min_photos} to {max_photos} rated photos and at least {min_per_score} of each score")
    }
}

/// The users who qualify, in the order in which they are drawn: sorted by name, then shuffled by
/// `seed::named(seed, Purpose::Partition, SERVER, 0, "users")`. And those who do not, with the reason, by name.
pub(super) fn draw<'a>(
    ratings: &'a Ratings,
    options: &RaterOptions,
) -> (Vec<&'a str>, Vec<(String, String)>) {
    let (mut qualified, mut left_out) = (Vec::new(), Vec::new());
    for (user, own) in &ratings.users {
        match options.objection(own) {
            None => qualified.push(user.as_str()),
            Some(why) => left_out.push((user.clone(), why)),
        }
    }
    seed::shuffle(&mut seed::named(options.seed, Purpose::Partition, SERVER, 0, "users"), &mut qualified);
    (qualified, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rated(scores: &[u8]) -> Vec<Rating> {
        (0..).zip(scores).map(|(photo, &score)| Rating { photo, score }).collect()
    }

    #[test]
    fn too_few_too_many_and_too_few_of_a_score() {
        let options =
            RaterOptions { min_photos: 6, max_photos: 7, min_per_score: 1, ..RaterOptions::default() };
        for (scores, objection) in [
            (&[1, 2, 3, 4, 5][..], Some("5 rated photos, fewer than 6")),
            (&[1, 2, 3, 4, 5, 5], None),
            (&[1, 2, 3, 4, 5, 5, 1], None),
            (&[1, 2, 3, 4, 5, 5, 1, 1], Some("8 rated photos, more than 7")),
            (&[1, 2, 3, 3, 5, 5], Some("0 photos of score 4, fewer than 1")),
        ] {
            assert_eq!(options.objection(&rated(scores)).as_deref(), objection);
        }
        // Photos that break may leave a user with too few, not with too many.
        assert_eq!(options.shortage(&rated(&[1, 2, 3, 4, 5, 5, 1, 1])), None);
    }

    #[test]
    fn users_are_drawn_by_the_seed() {
        let mut ratings = Ratings::default();
        for user in 0..20 {
            ratings.users.insert(format!("u{user:02}"), rated(&[1, 2, 3, 4, 5][..5 - user % 2]));
        }
        let of = |seed| {
            let options = RaterOptions { min_photos: 1, min_per_score: 1, seed, ..RaterOptions::default() };
            let (qualified, left_out) = draw(&ratings, &options);
            assert_eq!((qualified.len(), left_out.len()), (10, 10));
            assert_eq!(left_out[0], ("u01".into(), "0 photos of score 5, fewer than 1".into()));
            qualified.into_iter().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
