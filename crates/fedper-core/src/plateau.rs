//! When a curve has stopped rising.

/// Differences of this size between two means are rounding.
pub const ROUNDING: f64 = 1e-12;

/// Ends a federation whose accuracy does not rise any more: `patience` rounds after the last one that was better than
/// every round before it by more than `min_delta`.
///
/// A rise by less than [`ROUNDING`] is none: two sums of the same accuracies in another order differ by as much.
///
/// What it looks at is accuracy on test samples, so where it stops was chosen on them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plateau {
    patience: u32,
    min_delta: f64,
    /// The accuracy to beat, and its round.
    best: Option<(f64, u32)>,
    stopped: Option<u32>,
}

impl Plateau {
    /// Before the first round.
    pub fn new(patience: u32, min_delta: f64) -> Self {
        Self { patience, min_delta, best: None, stopped: None }
    }

    /// Takes note of an evaluated round, in ascending order of rounds.
    pub fn observe(&mut self, round: u32, accuracy: f64) {
        match self.best {
            Some((best, at)) if accuracy <= best + self.min_delta + ROUNDING => {
                if round - at >= self.patience && self.stopped.is_none() {
                    self.stopped = Some(round);
                }
            }
            _ => self.best = Some((accuracy, round)),
        }
    }

    /// The round after which the curve counts as flat.
    pub fn stopped(&self) -> Option<u32> {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(patience: u32, min_delta: f64, curve: &[(u32, f64)]) -> Option<u32> {
        let mut plateau = Plateau::new(patience, min_delta);
        curve.iter().for_each(|&(round, accuracy)| plateau.observe(round, accuracy));
        plateau.stopped()
    }

    #[test]
    fn patience_is_counted_in_rounds_from_the_best_one() {
        let curve = [(1, 0.2), (2, 0.5), (3, 0.5), (4, 0.4), (5, 0.5)];
        assert_eq!(stops(3, 0.0, &curve), Some(5));
        assert_eq!(stops(2, 0.0, &curve), Some(4));
        assert_eq!(stops(4, 0.0, &curve), None);
        // Evaluated every second round.
        assert_eq!(stops(3, 0.0, &[(2, 0.5), (4, 0.4), (6, 0.3)]), Some(6));
        assert_eq!(stops(1, 0.0, &[]), None);
    }

    #[test]
    fn rounding_is_no_rise() {
        // 0.1 + 0.2 and 0.3 in f64.
        assert_eq!(stops(1, 0.0, &[(1, 0.3), (2, 0.1 + 0.2)]), Some(2));
        assert_eq!(stops(1, 0.1, &[(1, 0.2), (2, 0.1 + 0.2)]), Some(2));
        assert_eq!(stops(1, 0.0, &[(1, 0.3), (2, 0.3 + 1e-9)]), None);
    }

    #[test]
    fn a_rise_within_min_delta_is_none_and_small_rises_add_up() {
        assert_eq!(stops(2, 0.05, &[(1, 0.5), (2, 0.53), (3, 0.55)]), Some(3));
        assert_eq!(stops(2, 0.05, &[(1, 0.5), (2, 0.53), (3, 0.56), (4, 0.6)]), None);
    }
}
