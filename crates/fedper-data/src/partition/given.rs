//! A partition that somebody has made: a shard for each device, checked.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::{Partition, Shard};
use crate::{DataError, Dataset};

impl Partition {
    /// These shards of `dataset`, device by device. Two devices may share a sample, and a device may train on one more than
    /// once.
    ///
    /// # Errors
    /// [`DataError::Shards`] if there is no device, one has nothing to train on, a sample is not in the dataset, or a device would
    /// be tested on what it trains on.
    pub fn given(dataset: &Dataset, shards: Vec<Shard>) -> Result<Self, DataError> {
        let wrong = |problem: String| Err(DataError::Shards { problem });
        if shards.is_empty() {
            return wrong("there is no device: give one shard for each".into());
        }
        let count = dataset.images.len();
        for (device, shard) in shards.iter().enumerate() {
            if shard.train.is_empty() {
                return wrong(format!(
                    "device {device} has no sample to train on: give it one, or leave it out"
                ));
            }
            let mut all = shard.train.iter().chain(&shard.test);
            if let Some(sample) = all.find(|&&sample| sample as usize >= count) {
                return wrong(format!(
                    "device {device} holds sample {sample}, and `{}` has {count}: they count from 0",
                    dataset.name
                ));
            }
            let train: HashSet<u32> = shard.train.iter().copied().collect();
            if let Some(sample) = shard.test.iter().find(|sample| train.contains(sample)) {
                return wrong(format!(
                    "device {device} is to train and to be tested on sample {sample}: leave it out of one of them"
                ));
            }
        }
        Ok(Self::new(shards))
    }
}

impl Shard {
    /// The SHA-256 of who holds what, in hexadecimal digits.
    pub fn sha256(shards: &[Self]) -> String {
        let mut hash = Sha256::new();
        for list in shards.iter().flat_map(|shard| [&shard.train, &shard.test]) {
            hash.update((list.len() as u64).to_le_bytes());
            list.iter().for_each(|sample| hash.update(sample.to_le_bytes()));
        }
        crate::hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(train: &[u32], test: &[u32]) -> Shard {
        Shard { train: train.to_vec(), test: test.to_vec() }
    }

    #[test]
    fn shards_that_cannot_be_are_refused() {
        let dataset = Dataset::from_memory("mine", &["a"], [1, 1, 1], vec![0; 4], vec![0; 4]).unwrap();
        for (shards, said) in [
            (vec![], "there is no device"),
            (vec![shard(&[0], &[]), shard(&[], &[1])], "device 1 has no sample to train on"),
            (vec![shard(&[0, 4], &[])], "device 0 holds sample 4, and `mine` has 4"),
            (vec![shard(&[0], &[9])], "device 0 holds sample 9"),
            (vec![shard(&[0, 1], &[2, 1])], "device 0 is to train and to be tested on sample 1"),
        ] {
            let error = Partition::given(&dataset, shards).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let shards = vec![shard(&[0, 0, 1], &[2]), shard(&[1], &[])];
        assert_eq!(Partition::given(&dataset, shards.clone()).unwrap(), Partition::new(shards));
    }

    #[test]
    fn the_hash_tells_who_holds_what() {
        let one = [shard(&[0, 1], &[2])];
        let others = [vec![shard(&[0], &[1, 2])], vec![shard(&[0, 1], &[]), shard(&[2], &[])], vec![]];
        assert!(others.iter().all(|other| Shard::sha256(other) != Shard::sha256(&one)));
    }
}
