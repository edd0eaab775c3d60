//! Which datasets there are, where they come from and what their files are called.

/// Which reader a dataset needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatasetKind {
    /// Part of the program.
    Embedded,
    /// Four IDX files: images and labels for training and test.
    Idx,
    /// The binary version of CIFAR-10.
    Cifar10,
    /// The binary version of CIFAR-100, with its fine classes.
    Cifar100,
    /// The same files with their coarse classes.
    Cifar100Coarse,
    /// Photos that users gave scores, and the file of those.
    FlickrAes,
    /// A folder of image files.
    Folder,
}

/// One file to download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where it is.
    pub url: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: &'static str,
}

/// What is known of a dataset before it is read.
#[derive(Clone, Copy, Debug)]
pub struct DatasetInfo {
    /// What `--dataset` calls it.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    /// Which reader it needs.
    pub kind: DatasetKind,
    /// Where its files are looked for, in words.
    pub looked_for: &'static str,
    /// The folder its official archive unpacks to; its files may lie there or one level up.
    pub subfolder: Option<&'static str>,
    /// Where packages of the operating system install its files.
    pub system_folder: Option<&'static str>,
    /// The official files; empty if there is nothing to download.
    pub archives: &'static [Archive],
    /// Under which licence or terms.
    pub licence: &'static str,
    /// The names of its classes, by label; empty if the files say.
    pub classes: &'static [&'static str],
}

impl DatasetInfo {
    /// The folder of the cache that its files are kept in; datasets made of the same files share one.
    pub fn cache_folder(&self) -> &'static str {
        match self.kind {
            DatasetKind::Cifar100Coarse => "cifar100",
            _ => self.name,
        }
    }
}

/// Every dataset, the default one first.
pub fn catalogue() -> &'static [DatasetInfo] {
    &CATALOGUE
}

const IN_DATA_DIR: &str = "--data-dir, the cache directory ($XDG_CACHE_HOME/fedper or ~/.cache/fedper)";

static CATALOGUE: [DatasetInfo; 8] = [
    DatasetInfo {
        name: "fashion-mnist-small",
        description: "10,000 grey 28x28 images of clothes, 10 classes; part of the program",
        kind: DatasetKind::Embedded,
        looked_for: "nowhere: it is part of the program",
        subfolder: None,
        system_folder: None,
        archives: &[],
        licence: "MIT (Zalando SE)",
        classes: &FASHION,
    },
    DatasetInfo {
        name: "fashion-mnist",
        description: "60,000 + 10,000 grey 28x28 images of clothes, 10 classes",
        kind: DatasetKind::Idx,
        looked_for: "--data-dir, the cache directory ($XDG_CACHE_HOME/fedper or ~/.cache/fedper), \
                     /usr/share/datasets/fashion-mnist (Debian: dataset-fashion-mnist)",
        subfolder: None,
        system_folder: Some("/usr/share/datasets/fashion-mnist"),
        archives: &[
            Archive {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz",
                bytes: 26_421_880,
                sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            },
            Archive {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz",
                bytes: 29_515,
                sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            },
            Archive {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz",
                bytes: 4_422_102,
                sha256: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            },
            Archive {
                url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz",
                bytes: 5_148,
                sha256: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            },
        ],
        licence: "MIT (Zalando SE)",
        classes: &FASHION,
    },
    DatasetInfo {
        name: "mnist",
        description: "60,000 + 10,000 grey 28x28 images of handwritten digits, 10 classes",
        kind: DatasetKind::Idx,
        looked_for: "--data-dir, the cache directory ($XDG_CACHE_HOME/fedper or ~/.cache/fedper), \
                     /usr/share/datasets/mnist",
        subfolder: None,
        system_folder: Some("/usr/share/datasets/mnist"),
        archives: &[
            Archive {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
                bytes: 9_912_422,
                sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            },
            Archive {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
                bytes: 28_881,
                sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            },
            Archive {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
                bytes: 1_648_877,
                sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            },
            Archive {
                url: "https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
                bytes: 4_542,
                sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            },
        ],
        licence: "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. Burges)",
        classes: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    },
    DatasetInfo {
        name: "cifar10",
        description: "50,000 + 10,000 colour 32x32 photographs, 10 classes",
        kind: DatasetKind::Cifar10,
        looked_for: IN_DATA_DIR,
        subfolder: Some("cifar-10-batches-bin"),
        system_folder: None,
        archives: &[Archive {
            url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            bytes: 170_052_171,
            sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        }],
        licence: "no licence stated; its authors ask to cite Krizhevsky (2009)",
        classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    },
    DatasetInfo {
        name: "cifar100",
        description: "50,000 + 10,000 colour 32x32 photographs, 100 classes",
        kind: DatasetKind::Cifar100,
        looked_for: IN_DATA_DIR,
        subfolder: Some("cifar-100-binary"),
        system_folder: None,
        archives: &[CIFAR100_ARCHIVE],
        licence: "no licence stated; its authors ask to cite Krizhevsky (2009)",
        classes: &CIFAR100,
    },
    DatasetInfo {
        name: "cifar100-coarse",
        description: "the same photographs as cifar100 by its 20 coarse classes, five fine ones each",
        kind: DatasetKind::Cifar100Coarse,
        looked_for: IN_DATA_DIR,
        subfolder: Some("cifar-100-binary"),
        system_folder: None,
        archives: &[CIFAR100_ARCHIVE],
        licence: "no licence stated; its authors ask to cite Krizhevsky (2009)",
        classes: &CIFAR100_COARSE,
    },
    DatasetInfo {
        name: "flickr-aes",
        description: "40,988 photographs of any size with 193,208 scores from 1 to 5 by 210 users, each user a device",
        kind: DatasetKind::FlickrAes,
        looked_for: "--data-dir, the cache directory ($XDG_CACHE_HOME/fedper or ~/.cache/fedper); its authors give it \
                     out at https://github.com/alanspike/personalizedImageAesthetics, and `fedper data make flickr-aes` \
                     makes a small set in its form",
        subfolder: None,
        system_folder: None,
        archives: &[],
        licence: "its authors'; the photographs are under Creative Commons licences",
        classes: &["1", "2", "3", "4", "5"],
    },
    DatasetInfo {
        name: "folder",
        description: "your own JPEG, PNG and WebP files: DIR/train/CLASS/* and DIR/test/CLASS/*, DIR/CLASS/*, DIR/DEVICE/CLASS/* or \
                      DIR/DEVICE/train/CLASS/*",
        kind: DatasetKind::Folder,
        looked_for: "--data-dir",
        subfolder: None,
        system_folder: None,
        archives: &[],
        licence: "yours",
        classes: &[],
    },
];

const CIFAR100_ARCHIVE: Archive = Archive {
    url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    bytes: 168_513_733,
    sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
};

#[rustfmt::skip]
static FASHION: [&str; 10] = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
];

#[rustfmt::skip]
static CIFAR100: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

#[rustfmt::skip]
static CIFAR100_COARSE: [&str; 20] = [
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals",
    "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_checksums_look_like_sha256() {
        for (i, info) in catalogue().iter().enumerate() {
            assert!(catalogue()[..i].iter().all(|other| other.name != info.name));
            for archive in info.archives {
                assert_eq!(archive.sha256.len(), 64);
                assert!(archive.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
                assert!(archive.bytes > 0);
            }
        }
        assert!(CIFAR100.is_sorted(), "CIFAR-100 numbers its fine classes alphabetically");
        assert!(CIFAR100_COARSE.is_sorted(), "and its coarse ones");
    }
}
