//! What is done to pixels before a network sees them, for whoever has to do the same.

use serde::{Deserialize, Serialize};

use crate::Images;

/// From a byte to a network's input: (byte / scale - mean) / std, by channel, as torchvision's `ToTensor` and `Normalize` do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    /// What a byte is divided by first.
    pub scale: f64,
    /// What is subtracted then, of each channel.
    pub mean: Vec<f64>,
    /// What is divided by at last, of each channel.
    pub std: Vec<f64>,
}

impl Images {
    /// What [`normalise`](crate::normalise) does to these images.
    pub fn normalisation(&self) -> Normalisation {
        Normalisation { scale: 255.0, mean: vec![0.5; self.channels], std: vec![0.5; self.channels] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise;

    #[test]
    fn it_is_what_batches_are_made_with() {
        let images = Images::new([1, 1, 3], vec![0; 3], vec![0]).unwrap();
        let Normalisation { scale, mean, std } = images.normalisation();
        assert_eq!((mean.len(), std.len()), (3, 3));
        for byte in 0..=255u8 {
            for (mean, std) in mean.iter().zip(&std) {
                let value = (f64::from(byte) / scale - mean) / std;
                assert!((value - f64::from(normalise(byte))).abs() < 1e-6, "{byte}");
            }
        }
    }
}
