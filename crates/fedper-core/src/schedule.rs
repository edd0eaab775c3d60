//! How the learning rate changes over a federation's rounds.
//!
//! A round's rate is the same for all devices and all steps of the round, so a device needs to know nothing but the
//! round's number.

use std::f64::consts::PI;

/// The course of the learning rate once it is warm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// The same in every round.
    Constant,
    /// Half a cosine, from the full rate towards 0, which the round after the last would have (I. Loshchilov, F. Hutter,
    /// *SGDR*, arXiv:1608.03983, equation 5 without restarts; PyTorch's `CosineAnnealingLR`, stepped once a round).
    Cosine,
    /// Times `factor` after every so many rounds (PyTorch's `StepLR`, stepped once a round).
    Step {
        /// Rounds from one step to the next.
        rounds: u32,
        /// What the rate is multiplied with.
        factor: f64,
    },
}

/// The learning rate of every round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The full rate.
    pub rate: f64,
    /// The course after the warm-up.
    pub course: Course,
    /// Rounds of warm-up: the rate of round r of W is r / (W + 1) of the full one (P. Goyal et al., arXiv:1706.02677,
    /// section 2.2).
    pub warmup: u32,
    /// Rounds in all.
    pub rounds: u32,
}

impl Schedule {
    /// The learning rate in `round`, counted from 1.
    pub fn rate_in(&self, round: u32) -> f64 {
        if round <= self.warmup {
            return self.rate * f64::from(round) / (f64::from(self.warmup) + 1.0);
        }
        let done = round - self.warmup - 1;
        match self.course {
            Course::Constant => self.rate,
            Course::Cosine => {
                let all = self.rounds.saturating_sub(self.warmup).max(1);
                let part = (f64::from(done) / f64::from(all)).min(1.0);
                self.rate * 0.5 * (1.0 + libm::cos(PI * part))
            }
            Course::Step { rounds, factor } => self.rate * libm::pow(factor, f64::from(done / rounds.max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(course: Course, warmup: u32, rounds: u32) -> Vec<f64> {
        let schedule = Schedule { rate: 0.4, course, warmup, rounds };
        (1..=rounds).map(|round| schedule.rate_in(round)).collect()
    }

    fn assert_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} and {expected}");
        }
    }

    #[test]
    fn constant_is_the_very_rate() {
        assert_eq!(rates(Course::Constant, 0, 3), [0.4; 3]);
    }

    #[test]
    fn pytorch_s_courses() {
        // CosineAnnealingLR(SGD(lr=0.4), T_max=4), and StepLR(SGD(lr=0.4), step_size=2, gamma=0.5), before each step().
        let half = 0.5f64.sqrt();
        assert_near(&rates(Course::Cosine, 0, 4), &[0.4, 0.2 * (1.0 + half), 0.2, 0.2 * (1.0 - half)]);
        assert_near(&rates(Course::Step { rounds: 2, factor: 0.5 }, 0, 6), &[0.4, 0.4, 0.2, 0.2, 0.1, 0.1]);
    }

    #[test]
    fn warm_up_comes_first_and_the_course_begins_after_it() {
        // SequentialLR of LinearLR(start_factor=1/4, total_iters=3) and CosineAnnealingLR(T_max=2), milestone 3.
        assert_near(&rates(Course::Cosine, 3, 5), &[0.1, 0.2, 0.3, 0.4, 0.2]);
        assert_near(&rates(Course::Constant, 1, 3), &[0.2, 0.4, 0.4]);
        assert_near(&rates(Course::Step { rounds: 1, factor: 0.1 }, 1, 3), &[0.2, 0.4, 0.04]);
    }
}
