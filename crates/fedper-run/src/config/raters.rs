//! What only a dataset of users' ratings needs: which users are drawn, and the FedPer paper's defaults.

use fedper_data::{LoadOptions, RaterOptions};

use super::{Config, wrong};
use crate::error::Error;

const RATINGS: &str = "flickr-aes";

/// Defaults of the dataset of ratings, the paper's; of any other dataset none.
#[derive(Default)]
pub(super) struct Rated {
    pub(super) image_size: Option<usize>,
    pub(super) test_fraction: Option<f64>,
    pub(super) min_photos: Option<usize>,
    pub(super) max_photos: Option<usize>,
    pub(super) min_per_score: Option<usize>,
}

impl Rated {
    pub(super) fn defaults(dataset: &str) -> Self {
        if dataset != RATINGS {
            return Self::default();
        }
        let paper = RaterOptions::default();
        Self {
            image_size: Some(224),
            test_fraction: Some(0.2),
            min_photos: Some(paper.min_photos),
            max_photos: Some(paper.max_photos),
            min_per_score: Some(paper.min_per_score),
        }
    }
}

impl Config {
    /// Whether what is said of users fits the dataset and itself.
    pub(super) fn check_raters(&self) -> Result<(), Error> {
        let keys = [
            ("min_photos", self.min_photos),
            ("max_photos", self.max_photos),
            ("min_per_score", self.min_per_score),
        ];
        match keys.into_iter().find(|(_, value)| value.is_some()) {
            Some((key, _)) if self.dataset != RATINGS => {
                wrong(format!("{key} is for the dataset {RATINGS}, and the dataset is {}", self.dataset))
            }
            _ => match (self.min_photos, self.max_photos) {
                (Some(least), Some(most)) if least > most => {
                    wrong(format!("min_photos is {least}: it must be at most max_photos, which is {most}"))
                }
                _ => Ok(()),
            },
        }
    }

    /// How the dataset is read.
    pub fn load_options(&self) -> LoadOptions {
        let paper = RaterOptions::default();
        LoadOptions {
            image_size: self.image_size.map(|size| (size, size)),
            raters: RaterOptions {
                users: usize::try_from(self.clients).unwrap_or(usize::MAX),
                min_photos: self.min_photos.unwrap_or(paper.min_photos),
                max_photos: self.max_photos.unwrap_or(paper.max_photos),
                min_per_score: self.min_per_score.unwrap_or(paper.min_per_score),
                seed: self.seed,
            },
            skip_broken: self.skip_broken,
            ..LoadOptions::default()
        }
    }
}
