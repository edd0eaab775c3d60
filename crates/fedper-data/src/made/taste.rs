//! Users with hidden tastes, and the scores that follow from them.

use std::cmp::Ordering;

use fedper_core::seed::{self, Purpose};

use super::MakeOptions;
use super::picture::{PROPERTIES, properties};

/// The fewest and the most pictures that a user rates, if there are as many.
const RATED: (usize, usize) = (80, 160);
/// How many properties a pair of users can care for most: shapes count, but for nobody most.
const MAIN: usize = 3;
/// The most that another property counts.
const ASIDE: f64 = 0.25;
/// The standard deviation of a user's mood.
const NOISE: f64 = 0.05;

/// One rating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) photo: usize,
    pub(super) user: usize,
    /// 1 to 5.
    pub(super) score: usize,
}

/// What a user is called.
pub(super) fn user_name(user: usize) -> String {
    format!("made-{:02}", user + 1)
}

/// How much each property pleases a user. Pair p (users 2p and 2p+1) cares most for property p mod 3; what pleases
/// the one displeases the other.
fn taste(seed: u64, user: usize) -> [f64; PROPERTIES] {
    let pair = user / 2;
    let mut rng = seed::named(seed, Purpose::Dataset, pair as u64, 0, "made taste");
    let sign = if user.is_multiple_of(2) { 1.0 } else { -1.0 };
    std::array::from_fn(|property| {
        let aside = ASIDE * (2.0 * seed::uniform(&mut rng) - 1.0);
        sign * if property == pair % MAIN { 1.0 } else { aside }
    })
}

/// All ratings, by picture and then by user.
pub(super) fn ratings(options: &MakeOptions) -> Vec<Row> {
    let &MakeOptions { users, photos, seed, .. } = options;
    let mut rows = Vec::new();
    let mut deck = Deck::new(seed, photos);
    for user in 0..users {
        let mut rng = seed::named(seed, Purpose::Dataset, user as u64, 0, "made ratings");
        let count = (RATED.0 + seed::below(&mut rng, (RATED.1 - RATED.0) as u64 + 1) as usize).min(photos);
        let taste = taste(seed, user);
        let mut liked: Vec<(f64, usize)> = deck
            .take(count)
            .into_iter()
            .map(|photo| {
                let pleasure: f64 = taste.iter().zip(properties(seed, photo)).map(|(t, p)| t * p).sum();
                (pleasure + NOISE * seed::normal_pair(&mut rng)[0], photo)
            })
            .collect();
        liked.sort_unstable_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1)));
        // A fifth of the user's pictures gets each score.
        rows.extend(liked.iter().enumerate().map(|(rank, &(_, photo))| Row {
            photo,
            user,
            score: 1 + rank * 5 / count,
        }));
    }
    rows.sort_unstable_by_key(|row| (row.photo, row.user));
    rows
}

/// Deals pictures so that none is dealt again before all were.
struct Deck {
    rng: seed::Random,
    order: Vec<usize>,
    next: usize,
}

impl Deck {
    fn new(seed: u64, photos: usize) -> Self {
        let rng = seed::named(seed, Purpose::Dataset, seed::SERVER, 0, "made deck");
        Self { rng, order: (0..photos).collect(), next: photos }
    }

    /// `count` different pictures.
    fn take(&mut self, count: usize) -> Vec<usize> {
        let mut taken: Vec<usize> = Vec::with_capacity(count);
        let mut has = vec![false; self.order.len()];
        while taken.len() < count {
            if self.next == self.order.len() {
                seed::shuffle(&mut self.rng, &mut self.order);
                // What this user has already comes last.
                self.order.sort_by_key(|&photo| has[photo]);
                self.next = 0;
            }
            let photo = self.order[self.next];
            self.next += 1;
            has[photo] = true;
            taken.push(photo);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_uses_every_score_and_every_picture_is_rated() {
        let options = MakeOptions { users: 6, photos: 200, width: 16, height: 16, seed: 2 };
        let rows = ratings(&options);
        for user in 0..6 {
            let own: Vec<&Row> = rows.iter().filter(|row| row.user == user).collect();
            assert!((RATED.0..=RATED.1).contains(&own.len()));
            for score in 1..=5 {
                let count = own.iter().filter(|row| row.score == score).count();
                assert!(count.abs_diff(own.len() / 5) <= 1, "{count} of {}", own.len());
            }
        }
        let mut photos: Vec<usize> = rows.iter().map(|row| row.photo).collect();
        assert!(rows.windows(2).all(|pair| (pair[0].photo, pair[0].user) < (pair[1].photo, pair[1].user)));
        photos.dedup();
        assert_eq!(photos, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn neighbours_disagree() {
        let options = MakeOptions { users: 2, photos: 60, width: 16, height: 16, seed: 2 };
        let rows = ratings(&options);
        let scores = |user| rows.iter().filter(move |row| row.user == user).map(|row| row.score);
        let opposite = scores(0).zip(scores(1)).filter(|(a, b)| (a + b).abs_diff(6) <= 1).count();
        assert!(opposite > 50, "{opposite}");
        assert_eq!(taste(2, 0).map(|t| -t), taste(2, 1));
    }
}
