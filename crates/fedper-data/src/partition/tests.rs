//! What every partition promises.

use proptest::prelude::*;

use super::*;
use crate::Images;

/// `train` and `test` are the numbers of samples of each class in either split.
fn dataset(train: &[usize], test: &[usize]) -> Dataset {
    let labels: Vec<u16> = [train, test]
        .iter()
        .flat_map(|counts| {
            counts.iter().enumerate().flat_map(|(class, &n)| std::iter::repeat_n(class as u16, n))
        })
        .collect();
    Dataset {
        name: "test".into(),
        classes: (0..train.len()).map(|class| class.to_string()).collect(),
        images: Images::new([1, 1, 1], vec![0; labels.len()], labels).unwrap(),
        train_len: train.iter().sum(),
        devices: None,
        left_out: crate::LeftOut::default(),
        note: None,
    }
}

fn options(scheme: Scheme, devices: usize, test: TestSplit) -> PartitionOptions {
    PartitionOptions { scheme, devices, samples_per_device: None, with_replacement: false, test, seed: 1 }
}

/// The numbers of samples of each device's train and test; panics if what every partition promises is not so.
fn check(dataset: &Dataset, partition: &Partition, own: bool) -> ClassTable {
    let mut seen = vec![false; dataset.images.len()];
    for shard in partition.shards() {
        assert!(!shard.train.is_empty());
        assert!(shard.test.is_sorted());
        for &sample in shard.train.iter().chain(&shard.test) {
            assert!(
                !std::mem::replace(&mut seen[sample as usize], true),
                "sample {sample} goes to two places"
            );
        }
        if own {
            assert!(shard.train.iter().all(|&sample| (sample as usize) < dataset.train_len));
            assert!(shard.test.iter().all(|&sample| sample as usize >= dataset.train_len));
        }
    }
    let table = ClassTable::new(dataset, partition);
    for (train, test) in table.train.iter().zip(&table.test) {
        assert!(
            train.iter().zip(test).all(|(&train, &test)| test == 0 || train > 0),
            "tested on a class it never saw"
        );
    }
    table
}

fn spread(counts: impl IntoIterator<Item = usize> + Clone) -> usize {
    counts.clone().into_iter().max().unwrap_or(0) - counts.into_iter().min().unwrap_or(0)
}

fn splits() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    (1usize..8).prop_flat_map(|classes| {
        (prop::collection::vec(30usize..90, classes), prop::collection::vec(5usize..30, classes))
    })
}

fn test_split() -> impl Strategy<Value = TestSplit> {
    prop_oneof![Just(TestSplit::Own), (0.05..0.9).prop_map(TestSplit::Fraction)]
}

proptest! {
    #[test]
    fn classes_are_dealt_evenly(
        (train, test) in splits(), devices in 1usize..25, k in 1usize..8, how in test_split(), seed in any::<u64>(),
    ) {
        let dataset = dataset(&train, &test);
        let per_device = k.min(train.len());
        let options = PartitionOptions { seed, ..options(Scheme::Classes { per_device }, devices, how) };
        let parts = partition(&dataset, &options).unwrap();
        let table = check(&dataset, &parts, how == TestSplit::Own);
        for row in &table.train {
            prop_assert_eq!(row.iter().filter(|&&n| n > 0).count(), per_device);
        }
        let held = |class: usize| (0..devices).filter(|&d| table.train[d][class] > 0).count();
        prop_assert!(spread((0..train.len()).map(held)) <= 1);
        for class in 0..train.len() {
            let holders = (0..devices).filter(|&d| table.train[d][class] > 0);
            let sizes: Vec<usize> = holders
                .map(|d| (table.train[d][class] + if how == TestSplit::Own { 0 } else { table.test[d][class] }) as usize)
                .collect();
            prop_assert!(spread(sizes.iter().copied()) <= 1);
            if !sizes.is_empty() {
                let all = train[class] + if how == TestSplit::Own { 0 } else { test[class] };
                prop_assert_eq!(sizes.iter().sum::<usize>(), all, "the whole class is dealt");
            }
        }
        prop_assert_eq!(&parts, &partition(&dataset, &options).unwrap());
        if devices > 1 {
            prop_assert_ne!(parts, partition(&dataset, &PartitionOptions { seed: !seed, ..options }).unwrap());
        }
    }

    #[test]
    fn iid_and_dirichlet_deal_everything(
        (train, test) in splits(), devices in 1usize..12, alpha in prop_oneof![Just(None), (-3.0..3.0).prop_map(Some)],
        how in test_split(), seed in any::<u64>(),
    ) {
        let dataset = dataset(&train, &test);
        let scheme = alpha.map_or(Scheme::Iid, |log: f64| Scheme::Dirichlet { alpha: libm::exp10(log) });
        let options = PartitionOptions { seed, ..options(scheme, devices, how) };
        let parts = partition(&dataset, &options).unwrap();
        let table = check(&dataset, &parts, how == TestSplit::Own);
        let sum = |table: &[Vec<u32>]| table.iter().flatten().sum::<u32>() as usize;
        let sizes: Vec<usize> = parts.shards().map(|s| s.train.len() + if how == TestSplit::Own { 0 } else { s.test.len() }).collect();
        if how == TestSplit::Own {
            prop_assert_eq!(sum(&table.train), train.iter().sum::<usize>());
            for (class, &all) in test.iter().enumerate() {
                let dealt: u32 = table.test.iter().map(|row| row[class]).sum();
                prop_assert_eq!(dealt as usize, if train[class] > 0 { all } else { 0 });
            }
        } else {
            prop_assert_eq!(sum(&table.train) + sum(&table.test), dataset.images.len());
        }
        if scheme == Scheme::Iid {
            prop_assert!(spread(sizes.iter().copied()) <= 1);
        } else {
            let dealt: usize = sizes.iter().sum();
            prop_assert!(sizes.iter().all(|&size| size >= (dealt / (2 * devices)).clamp(1, 10)));
        }
        prop_assert_eq!(&parts, &partition(&dataset, &options).unwrap());
        if devices > 1 {
            prop_assert_ne!(parts, partition(&dataset, &PartitionOptions { seed: !seed, ..options }).unwrap());
        }
    }

    #[test]
    fn a_cap_is_kept_to_the_sample(
        (train, test) in splits(), devices in 1usize..10, cap in 1usize..300, how in test_split(),
    ) {
        let dataset = dataset(&train, &test);
        for scheme in [Scheme::Classes { per_device: 1 + train.len() / 2 }, Scheme::Dirichlet { alpha: 0.5 }, Scheme::Iid] {
            let uncapped = options(scheme, devices, how);
            let whole = partition(&dataset, &uncapped).unwrap();
            let capped = partition(&dataset, &PartitionOptions { samples_per_device: Some(cap), ..uncapped }).unwrap();
            for (shard, whole) in capped.shards().zip(whole.shards()) {
                prop_assert_eq!(shard.train.len(), cap);
                prop_assert!(shard.train.iter().all(|sample| whole.train.contains(sample)));
                prop_assert!(shard.test.iter().all(|sample| whole.test.contains(sample)));
                prop_assert!(shard.test.len() <= whole.test.len());
            }
        }
    }
}

#[test]
fn twenty_devices_of_two_classes_keep_a_quarter_for_testing() {
    // Fashion-MNIST's sizes: 70,000 samples in all, as PFLlib splits them.
    let dataset = dataset(&[6000; 10], &[1000; 10]);
    let parts =
        partition(&dataset, &options(Scheme::Classes { per_device: 2 }, 20, TestSplit::Fraction(0.25)))
            .unwrap();
    check(&dataset, &parts, false);
    assert_eq!(parts.shards().map(|shard| shard.train.len()).sum::<usize>(), 52_500);
    assert!(parts.shards().all(|shard| (shard.train.len(), shard.test.len()) == (2625, 875)));
}

#[test]
fn the_own_test_split_follows_the_train_classes() {
    let dataset = dataset(&[5000; 10], &[1000; 10]);
    let parts = partition(&dataset, &options(Scheme::Classes { per_device: 4 }, 30, TestSplit::Own)).unwrap();
    let table = check(&dataset, &parts, true);
    // 30 devices of 4 classes are 120 places: each class has 12 holders, so 416 or 417 and 83 or 84 samples each.
    for (train, test) in table.train.iter().zip(&table.test) {
        for (&train, &test) in train.iter().zip(test) {
            assert!(matches!((train, test), (0, 0) | (416 | 417, 83 | 84)), "{train} {test}");
        }
    }
    assert_eq!(table.test.iter().flatten().sum::<u32>(), 10_000);
}

#[test]
fn devices_are_not_paired_off_with_the_same_classes() {
    let dataset = dataset(&[100; 10], &[]);
    let parts =
        partition(&dataset, &options(Scheme::Classes { per_device: 2 }, 50, TestSplit::Fraction(0.2)))
            .unwrap();
    let table = check(&dataset, &parts, false);
    let mut pairs: Vec<Vec<bool>> =
        table.train.iter().map(|row| row.iter().map(|&n| n > 0).collect()).collect();
    pairs.sort();
    pairs.dedup();
    assert!(pairs.len() > 20, "{} different pairs", pairs.len());
}

#[test]
fn small_cases_work() {
    let tiny = dataset(&[3, 1, 2], &[1, 1, 1]);
    for (scheme, devices) in [
        (Scheme::Classes { per_device: 3 }, 1),
        (Scheme::Classes { per_device: 1 }, 1),
        (Scheme::Classes { per_device: 1 }, 2),
        (Scheme::Dirichlet { alpha: 0.1 }, 6),
        (Scheme::Iid, 6),
        (Scheme::Iid, 1),
    ] {
        for how in [TestSplit::Own, TestSplit::Fraction(0.5)] {
            let parts = partition(&tiny, &options(scheme, devices, how)).unwrap();
            assert_eq!(parts.len(), devices);
            check(&tiny, &parts, how == TestSplit::Own);
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_advice() {
    let whole = dataset(&[10, 10], &[2, 2]);
    let no_test = dataset(&[10, 10], &[]);
    let quarter = TestSplit::Fraction(0.25);
    for (dataset, options, said) in [
        (&whole, options(Scheme::Classes { per_device: 3 }, 4, quarter), "--classes-per-client"),
        (&whole, options(Scheme::Classes { per_device: 0 }, 4, quarter), "--classes-per-client"),
        (&whole, options(Scheme::Dirichlet { alpha: 0.0 }, 4, quarter), "--dirichlet"),
        (&whole, options(Scheme::Dirichlet { alpha: f64::NAN }, 4, quarter), "--dirichlet"),
        (&whole, options(Scheme::Dirichlet { alpha: f64::INFINITY }, 4, quarter), "--dirichlet"),
        (&whole, options(Scheme::Iid, 0, quarter), "--clients"),
        (&whole, options(Scheme::Iid, 25, quarter), "25 devices are to share 24 samples"),
        (&whole, options(Scheme::Iid, 21, TestSplit::Own), "21 devices are to share 20 samples"),
        (&whole, options(Scheme::Folder, 2, quarter), "folder for each device"),
        (&whole, options(Scheme::Iid, 2, TestSplit::Fraction(0.0)), "--test-fraction"),
        (&whole, options(Scheme::Iid, 2, TestSplit::Fraction(1.0)), "--test-fraction"),
        (&whole, options(Scheme::Iid, 2, TestSplit::Fraction(f64::NAN)), "--test-fraction"),
        (&no_test, options(Scheme::Iid, 2, TestSplit::Own), "--test-fraction"),
        (
            &whole,
            PartitionOptions { samples_per_device: Some(0), ..options(Scheme::Iid, 2, quarter) },
            "--samples-per-client",
        ),
        (
            &whole,
            PartitionOptions { with_replacement: true, ..options(Scheme::Iid, 2, quarter) },
            "--samples-per-client",
        ),
        (
            &dataset(&[1, 9], &[]),
            options(Scheme::Classes { per_device: 1 }, 4, quarter),
            "gets no train sample",
        ),
    ] {
        let message = partition(dataset, &options).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn more_devices_than_samples_draw_their_own() {
    let dataset = dataset(&[40, 50, 60], &[8, 10, 12]);
    for scheme in [Scheme::Classes { per_device: 2 }, Scheme::Dirichlet { alpha: 0.3 }, Scheme::Iid] {
        for how in [TestSplit::Own, TestSplit::Fraction(0.2)] {
            let options = PartitionOptions { samples_per_device: Some(10), ..options(scheme, 5000, how) };
            let parts = partition(&dataset, &options).unwrap();
            assert!(parts.shares_samples() && parts.len() == 5000);
            assert_eq!(parts.shard(4321), partition(&dataset, &options).unwrap().shard(4321));
            let (mut trained, mut tested) = (vec![0u32; 180], vec![0u32; 180]);
            for (device, shard) in parts.shards().enumerate() {
                assert_eq!((shard.train.len(), parts.train_len(device)), (10, 10));
                let mut distinct = shard.train.clone();
                distinct.sort_unstable();
                distinct.dedup();
                // 10 samples at most of a class that has more: none twice.
                assert_eq!(distinct.len(), 10);
                // A fifth, rounded up for each class.
                assert!((2..=5).contains(&shard.test.len()) && shard.test.is_sorted(), "{:?}", shard.test);
                shard.train.iter().for_each(|&sample| trained[sample as usize] += 1);
                shard.test.iter().for_each(|&sample| tested[sample as usize] += 1);
                let [train, test] =
                    [&shard.train, &shard.test].map(|samples| class_counts(&dataset, samples));
                assert!(train.iter().zip(&test).all(|(&train, &test)| (train > 0) == (test > 0)));
                if let Scheme::Classes { .. } = scheme {
                    let mut counts: Vec<u32> = train.into_iter().filter(|&count| count > 0).collect();
                    counts.sort_unstable();
                    assert_eq!(counts, [5, 5]);
                }
            }
            // Every sample is used, and none for both.
            assert!(trained.iter().zip(&tested).all(|(&train, &test)| (train > 0) != (test > 0)));
            if let TestSplit::Fraction(_) = how {
                assert_eq!(tested.iter().filter(|&&count| count > 0).count(), 10 + 12 + 14);
            }
        }
    }
}

#[test]
fn a_class_that_is_too_small_is_drawn_from_again() {
    let dataset = dataset(&[3, 90], &[1, 9]);
    let options = PartitionOptions {
        samples_per_device: Some(20),
        with_replacement: true,
        ..options(Scheme::Classes { per_device: 2 }, 2, TestSplit::Own)
    };
    let parts = partition(&dataset, &options).unwrap();
    assert!(parts.shares_samples());
    let shard = parts.shard(1);
    assert_eq!(class_counts(&dataset, &shard.train), [10, 10]);
    assert!((0..3).all(|sample| shard.train.contains(&sample)), "the class is used whole first");
    assert_eq!(class_counts(&dataset, &shard.test), [1, 1]);
}

#[test]
fn what_is_dealt_stays_dealt() {
    // Devices draw with replacement only if that is asked for or if there is no other way.
    let dataset = dataset(&[10, 10], &[2, 2]);
    let with = |devices, with_replacement| PartitionOptions {
        samples_per_device: Some(5),
        with_replacement,
        ..options(Scheme::Iid, devices, TestSplit::Own)
    };
    for (devices, with_replacement, shares) in
        [(20, false, false), (21, false, true), (4, false, false), (4, true, true)]
    {
        let parts = partition(&dataset, &with(devices, with_replacement)).unwrap();
        assert_eq!(parts.shares_samples(), shares, "{devices} {with_replacement}");
    }
}

#[test]
fn folders_are_devices() {
    let mut dataset = dataset(&[8, 8], &[]);
    let folder = |name: &str, train| crate::DeviceFolder { name: name.into(), train, test: 0..0 };
    dataset.devices = Some(vec![folder("a", 0..6), folder("b", 6..16)]);
    for devices in [0, 2] {
        let parts =
            partition(&dataset, &options(Scheme::Folder, devices, TestSplit::Fraction(0.25))).unwrap();
        let table = check(&dataset, &parts, false);
        assert_eq!(table.train, [[4, 0], [1, 6]]);
        assert_eq!(table.test, [[2, 0], [1, 2]]);
    }
    let error = partition(&dataset, &options(Scheme::Folder, 3, TestSplit::Fraction(0.25))).unwrap_err();
    assert!(error.to_string().contains("there are 2 folders"), "{error}");
}

#[test]
fn partitions_are_fixed_forever() {
    // A change here changes every partition that was ever published. The streams are documented in `partition`.
    let dataset = dataset(&[8, 8, 8], &[2, 2, 2]);
    let first = |scheme| {
        let parts = partition(&dataset, &options(scheme, 3, TestSplit::Fraction(0.25))).unwrap();
        parts.shard(0).train.iter().chain(&parts.shard(0).test).copied().collect::<Vec<_>>()
    };
    assert_eq!(
        [Scheme::Classes { per_device: 2 }, Scheme::Dirichlet { alpha: 0.5 }, Scheme::Iid].map(first),
        [
            vec![3, 4, 28, 23, 22, 25, 17, 5, 21, 24],
            vec![3, 16, 23, 19, 22, 29, 20, 28, 17, 21, 25],
            vec![0, 13, 16, 18, 12, 3, 26, 5, 8, 17]
        ]
    );
}
