use std::collections::BTreeSet;

use super::*;

fn settings(text: &str) -> Settings {
    toml::from_str(text).unwrap()
}

fn resolve(text: &str) -> Result<Config, Error> {
    Config::resolve(&settings(text))
}

#[test]
fn a_written_configuration_resolves_to_itself() {
    for text in [
        "",
        "dirichlet = 0.5\npersonal_pattern = ['fc.*']\nlr = 0.005\nbatch_norm = 'local'",
        "iid = true\nwith_replacement = true\nshuffle = false\naugment = 'crop-flip'\neval_devices = 5\ntest_fraction = 0.25\nimage_size = 32",
        "lr_schedule = 'step'\nwarmup_rounds = 2\nclip_norm = 0.5\npatience = 3",
        "lr_schedule = 'step'\nlr_step_rounds = 4\nlr_step_factor = 0.5\npatience = 3\nmin_delta = 0.01",
        "new_clients = 2\nnew_client_epochs = 3\nnew_client_layers = 'all'",
        "new_clients = 1",
        "dataset = 'flickr-aes'\nclients = 30\nmin_photos = 20",
        "dataset = 'folder'\nskip_broken = true",
        "by_folder = true\nsamples_per_client = 7\nparticipation = 0.1\nstem = 'cifar'\nmodel = 'cnn'",
        "dataset = 'cifar10'",
        "dataset = 'cifar10'\nsamples_per_client = 'all'\nown_labels = true",
        "iid = true",
        "model = 'mobilenet_v1'\ntest_fraction = 0.1",
    ] {
        let config = resolve(text).unwrap();
        assert_eq!(resolve(&config.to_toml()).unwrap(), config, "{text}");
    }
}

#[test]
fn flags_override_the_file() {
    let file = settings("lr = 0.5\nrounds = 3\nclasses_per_client = 2\npersonal_layers = 4");
    let flags = Settings {
        lr: Some(0.1),
        dirichlet: Some(1.0),
        personal_pattern: Some(vec!["fc.*".into()]),
        shuffle: Some(false),
        ..Settings::default()
    };
    let config = Config::resolve(&flags.over(file)).unwrap();
    assert_eq!((config.lr, config.rounds, config.shuffle), (0.1, 3, false));
    assert_eq!(config.scheme(), Scheme::Dirichlet { alpha: 1.0 });
    assert_eq!(config.personal_layers, None);
}

#[test]
fn a_schedule_from_the_flags_leaves_nothing_of_the_file_s() {
    let file = settings("lr_schedule = 'step'\nlr_step_rounds = 4\nlr_step_factor = 0.5");
    let over =
        |lr_schedule| Config::resolve(&Settings { lr_schedule, ..Settings::default() }.over(file.clone()));
    assert_eq!(over(None).unwrap().lr_step_rounds, Some(4));
    let cosine = over(Some(LrSchedule::Cosine)).unwrap();
    assert_eq!((cosine.lr_step_rounds, cosine.lr_step_factor), (None, None));
    assert_eq!(over(Some(LrSchedule::Step)).unwrap().lr_step_factor, Some(0.5));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    for (text, expected) in [
        (
            "algorithm = ['fedsgd']",
            "there is no algorithm `fedsgd`; there are fedper, fedavg, local, fedavg-ft",
        ),
        ("algorithm = ['local', 'local']", "algorithm `local` is given twice"),
        ("algorithm = []", "algorithm is empty"),
        ("iid = true\ndirichlet = 1.0", "contradict each other"),
        ("personal_layers = 1\npersonal_pattern = ['fc.*']", "contradict each other"),
        ("clients = 0", "clients is 0: it must be at least 1"),
        ("lr = nan", "lr is NaN: it must be greater than 0"),
        ("lr = -0.5", "lr is -0.5: it must be greater than 0"),
        ("lr = inf", "lr is inf"),
        ("momentum = 1.0", "momentum is 1: it must be from 0 to below 1"),
        ("participation = 0.0", "participation is 0: it must be above 0 and at most 1"),
        ("test_fraction = 1.0", "test_fraction is 1: it must be between 0 and 1"),
        ("rounds = 15\nwarmup_rounds = 15", "warmup_rounds is 15: it must be less than rounds (15)"),
        ("lr_step_rounds = 3", "lr_step_rounds does nothing without lr_schedule = step"),
        ("lr_schedule = 'step'\nlr_step_rounds = 0", "lr_step_rounds is 0"),
        ("lr_schedule = 'step'\nlr_step_factor = -1.0", "lr_step_factor is -1: it must be greater than 0"),
        ("clip_norm = 0.0", "clip_norm is 0: it must be greater than 0"),
        ("clip_norm = nan", "clip_norm is NaN"),
        ("patience = 0", "patience is 0"),
        ("min_delta = 0.1", "min_delta does nothing without patience"),
        ("patience = 1\nmin_delta = -0.1", "min_delta is -0.1: it must be 0 or greater"),
        ("new_clients = 0", "new_clients is 0"),
        ("new_client_epochs = 2", "new_client_epochs does nothing without new_clients"),
        ("new_client_layers = 'all'", "new_client_layers does nothing without new_clients"),
        ("new_clients = 2\nnew_client_epochs = 0", "new_client_epochs is 0"),
        (
            "min_photos = 5",
            "min_photos is for the dataset flickr-aes, and the dataset is fashion-mnist-small",
        ),
        (
            "dataset = 'flickr-aes'\nmax_photos = 50",
            "min_photos is 60: it must be at most max_photos, which is 50",
        ),
        ("model = 'vgg'", "vgg"),
        ("stem = 'tiny'", "tiny"),
    ] {
        let error = resolve(text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn augmentation_is_a_word_and_was_a_switch() {
    for (text, expected) in [
        ("augment = true", Augment::CropFlip),
        ("augment = 'crop-flip'", Augment::CropFlip),
        ("augment = false", Augment::None),
        ("augment = 'none'", Augment::None),
        ("", Augment::None),
    ] {
        let config = resolve(text).unwrap();
        assert_eq!(config.augment, expected);
        assert!(config.to_toml().contains(if expected == Augment::None {
            "augment = \"none\""
        } else {
            "crop-flip"
        }));
    }
    let error = toml::from_str::<Settings>("augment = 'mixup'").unwrap_err().to_string();
    assert!(error.contains("crop-flip"), "{error}");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "lr = 0.1\nlearning = 3\n").unwrap();
    let error = read_settings(&path).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("learning"), "{error}");
}

#[test]
fn differences_name_the_keys() {
    let differences = Config::differences("a = 1\nb = 2\n", "a = 1\nb = 3\nc = 'x'\n");
    assert_eq!(differences, ["b is 2 here and 3 there", "c is not set here and \"x\" there"]);
}

#[test]
fn the_command_repeats_the_configuration() {
    assert_eq!(resolve("").unwrap().command(), "fedper run");
    let config = resolve(
        "lr = 0.005\nshuffle = false\naugment = true\niid = true\nalgorithm = ['fedper', 'fedavg-ft']\n\
         personal_pattern = ['fc.*']\nmodel = 'cnn'",
    )
    .unwrap();
    assert_eq!(
        config.command(),
        "fedper run --algorithm fedper,fedavg-ft --personal-pattern 'fc.*' --iid --lr 0.005 --no-shuffle --augment crop-flip"
    );
    for (text, expected) in [
        ("model = 'mobilenet_v1'", "fedper run --model mobilenet_v1"),
        ("dataset = 'cifar10'", "fedper run --dataset cifar10 --samples-per-client all"),
        (
            "dataset = 'cifar10'\nsamples_per_client = 50",
            "fedper run --dataset cifar10 --samples-per-client 50",
        ),
        (
            "dataset = 'cifar10'\nmodel = 'cnn'\nby_folder = true",
            "fedper run --dataset cifar10 --model cnn --by-folder",
        ),
        ("test_fraction = 0.2", "fedper run --iid --own-labels --test-fraction 0.2"),
        ("dirichlet = 0.3\nclients = 7", "fedper run --clients 7 --dirichlet 0.3"),
    ] {
        let config = resolve(text).unwrap();
        let command = config.command();
        assert_eq!(
            command.split(' ').collect::<BTreeSet<_>>(),
            expected.split(' ').collect::<BTreeSet<_>>(),
            "{command}"
        );
    }
}

/// What is embedded is dealt to devices that name the classes each in its own way, unless a way of dealing is typed.
#[test]
fn a_way_of_dealing_that_is_typed_takes_nothing_of_the_default_one() {
    let default = resolve("").unwrap();
    assert_eq!((default.iid, default.own_labels, default.test_fraction), (true, true, Some(0.5)));
    for typed in ["iid = true", "dirichlet = 0.3", "classes_per_client = 2"] {
        let config = resolve(typed).unwrap();
        assert_eq!((config.own_labels, config.test_fraction), (false, None), "{typed}");
        assert!(resolve(&format!("{typed}\nown_labels = true")).unwrap().own_labels);
    }
    let large = resolve("model = 'resnet34'").unwrap();
    assert_eq!((large.own_labels, large.classes_per_client), (false, Some(3)));
}

/// Configurations that runs wrote before the number of samples had a default say "all" by leaving it away.
#[test]
fn a_complete_configuration_is_not_filled_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let complete = resolve("dataset = 'cifar10'").unwrap().to_toml();
    let older: String = complete
        .lines()
        .filter(|line| !line.starts_with("samples_per_client"))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(&path, &older).unwrap();
    assert_eq!(read_settings(&path).unwrap().samples_per_client, Some(Samples::All));
    std::fs::write(&path, "dataset = 'cifar10'\n").unwrap();
    assert_eq!(read_settings(&path).unwrap().samples_per_client, None);
}

#[test]
fn the_stem_follows_the_images() {
    for (text, expected) in [
        ("model = 'mobilenet_v1'\nimage_size = 32", Stem::Cifar),
        ("model = 'mobilenet_v1'\nimage_size = 63\nstem = 'auto'", Stem::Cifar),
        ("model = 'mobilenet_v1'\nimage_size = 64", Stem::Imagenet),
        ("model = 'mobilenet_v1'\nimage_size = 32\nstem = 'imagenet'", Stem::Imagenet),
        ("model = 'resnet34'\nimage_size = 32", Stem::Imagenet),
    ] {
        assert_eq!(resolve(text).unwrap().stem, expected, "{text}");
    }
}
