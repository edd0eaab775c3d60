use super::*;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        // A name that ends in / is an empty folder.
        if file.ends_with('/') {
            std::fs::create_dir_all(path).unwrap();
            continue;
        }
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    dir
}

fn scanned(files: &[&str]) -> (Scan, Vec<(String, u16)>) {
    let dir = tree(files);
    let scan = scan(dir.path()).unwrap();
    let relative = |file: &ImageFile| file.path.strip_prefix(dir.path()).unwrap().display().to_string();
    let files = scan.files.iter().map(|file| (relative(file), file.label)).collect();
    (scan, files)
}

fn refused(files: &[&str]) -> String {
    let message = scan(tree(files).path()).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn owned(files: &[(&str, u16)]) -> Vec<(String, u16)> {
    files.iter().map(|&(path, label)| (path.into(), label)).collect()
}

#[test]
fn train_and_test_folders() {
    let (scan, files) = scanned(&[
        "train/dog/2.JPG",
        "train/dog/10.png",
        "train/cat/1.jpeg",
        "train/cat/2.webp",
        "test/ant/1.png",
        "test/dog/.hidden.png",
        "test/dog/3.png",
        "train/dog/notes.txt",
        "train/dog/Thumbs.db",
        "extra/x/1.png",
        "train/.git/x.png",
    ]);
    assert_eq!(scan.classes, ["ant", "cat", "dog"]);
    assert_eq!(
        files,
        owned(&[
            ("train/cat/1.jpeg", 1),
            ("train/cat/2.webp", 1),
            ("train/dog/10.png", 2),
            ("train/dog/2.JPG", 2),
            ("test/ant/1.png", 0),
            ("test/dog/3.png", 2),
        ])
    );
    assert_eq!((scan.train_len, scan.devices), (4, None));
    assert_eq!(scan.notes, ["trained on 'train', tested on 'test'", "left out, no images: 1 .txt file"]);
    let left_out = scan.left_out.join("\n");
    assert!(left_out.contains("'extra' left out"), "{left_out}");
    assert!(
        left_out.contains("without training images left out") && left_out.contains("'ant' (1)"),
        "{left_out}"
    );
}

#[test]
fn splits_by_whatever_name() {
    for (train, test) in [
        ("Training", Some("Testing")),
        ("Train", Some("Test")),
        ("train", Some("val")),
        ("train", Some("validation")),
        ("TRAIN", Some("valid")),
        ("training_set", Some("test_set")),
        ("train", None),
    ] {
        let mut files = vec![format!("{train}/a/1.png"), format!("{train}/b/1.png")];
        files.extend(test.iter().flat_map(|test| [format!("{test}/a/1.png"), format!("{test}/b/1.png")]));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let (scan, _) = scanned(&files);
        assert_eq!((scan.train_len, scan.files.len()), (2, files.len()), "{train}");
        assert_eq!(scan.classes, ["a", "b"]);
        assert!(scan.notes[0].contains(&format!("trained on '{train}'")), "{:?}", scan.notes);
        assert!(
            test.is_none_or(|test| scan.notes[0].contains(&format!("tested on '{test}'"))),
            "{:?}",
            scan.notes
        );
        assert!(scan.left_out.is_empty());
    }
    let (scan, files) = scanned(&["train/a/1.png", "val/a/2.png", "test/a/3.png"]);
    assert_eq!(files, owned(&[("train/a/1.png", 0), ("test/a/3.png", 0)]));
    assert_eq!(scan.left_out, ["'val' left out: devices are tested on 'test'"]);
    for (files, said) in [
        (&["train/a/1.png", "Train/a/1.png"][..], "'Train' and 'train' could be the same split"),
        (
            &["train/a/1.png", "test/a/1.png", "Testing/a/1.png"],
            "'Testing' and 'test' could be the same split",
        ),
        (&["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "'val' and 'valid' could be the same split"),
        (&["photos/a/1.png", "test/a/1.png"], "no folder beside it is called 'train'"),
        (&["ann/test/a/1.png"], "in 'ann': 'test' looks like test images"),
    ] {
        let message = refused(files);
        assert!(message.contains(said), "{message}");
    }
    // A class may be called as a split is.
    let (scan, _) = scanned(&["train/1.png", "bus/1.png"]);
    assert_eq!(
        (scan.classes, &scan.notes[0][..]),
        (vec!["bus".into(), "train".into()], "a folder for each class")
    );
}

#[test]
fn a_folder_for_each_device() {
    let (scan, files) =
        scanned(&["phone-2/a/1.png", "phone-1/b/1.png", "phone-1/a/2.png", "phone-1/a/1.png", "README.md"]);
    assert_eq!(scan.classes, ["a", "b"]);
    let expected =
        [("phone-1/a/1.png", 0), ("phone-1/a/2.png", 0), ("phone-1/b/1.png", 1), ("phone-2/a/1.png", 0)];
    assert_eq!(files, owned(&expected));
    let device = |name: &str, train| DeviceFolder { name: name.into(), train, test: 0..0 };
    assert_eq!(scan.devices.unwrap(), [device("phone-1", 0..3), device("phone-2", 3..4)]);
    assert_eq!((scan.train_len, &scan.notes[0][..]), (4, "a folder for each of 2 devices"));
}

#[test]
fn a_folder_for_each_device_as_devices_on_a_network_have_it() {
    let (scan, files) = scanned(&[
        "ward-1/train/a/1.png",
        "ward-1/train/b/1.png",
        "ward-1/test/a/2.png",
        "ward-1/test/c/2.png",
        "ward-2/Train/b/1.png",
        "ward-2/Val/b/2.png",
        "ward-3/train/a/1.png",
    ]);
    assert_eq!(
        files,
        owned(&[
            ("ward-1/train/a/1.png", 0),
            ("ward-1/train/b/1.png", 1),
            ("ward-2/Train/b/1.png", 1),
            ("ward-3/train/a/1.png", 0),
            ("ward-1/test/a/2.png", 0),
            ("ward-1/test/c/2.png", 2),
            ("ward-2/Val/b/2.png", 1),
        ])
    );
    assert_eq!(scan.train_len, 4);
    let device = |name: &str, train, test| DeviceFolder { name: name.into(), train, test };
    assert_eq!(
        scan.devices.unwrap(),
        [device("ward-1", 0..2, 4..6), device("ward-2", 2..3, 6..7), device("ward-3", 3..4, 7..7)]
    );
    assert_eq!(
        scan.notes,
        ["a folder for each of 3 devices, trained on 'Train' and 'train', tested on 'Val' and 'test'"]
    );
    assert!(scan.left_out[0].ends_with("'c' of 'ward-1' (1)"), "{:?}", scan.left_out);
    let message = refused(&["ann/train/a/1.png", "bob/a/1.png"]);
    assert!(message.contains("'ann' has a folder of training images, and 'bob' has none"), "{message}");
}

#[test]
fn a_folder_for_each_class() {
    let (scan, files) = scanned(&["b/1.png", "a/1.png"]);
    assert_eq!(files, owned(&[("a/1.png", 0), ("b/1.png", 1)]));
    assert_eq!((scan.train_len, scan.devices), (2, None));
}

#[test]
fn no_class_is_left_out_in_silence() {
    for (files, said) in [
        (
            &["train/cat/1.png", "train/owl/1.heic", "train/owl/2.heic"][..],
            "'train/owl' holds 2 .heic files; convert",
        ),
        (&["train/cat/1.png", "train/owl/1.HEIC"], "mogrify -format png '*.HEIC'"),
        (
            &["train/cat/1.png", "train/owl/1.tiff", "train/owl/a.txt"],
            "'train/owl' holds 1 .tiff file, 1 .txt file",
        ),
        (
            &["train/cat/1.png", "train/owl/x/1.png"],
            "'train/owl' holds 1 folder; put images there, or remove",
        ),
        (&["train/cat/1.png", "train/docs/readme"], "'train/docs' holds 1 file whose name has no ending"),
        (&["train/cat/1.png", "test/cat/1.gif"], "'test/cat' holds 1 .gif file"),
        (&["cat/1.png", "owl/1.avif"], "'owl' holds 1 .avif file"),
        (&["cat/1.gif", "owl/1.bmp"], "'cat' holds 1 .gif file; convert them"),
        (&["ann/cat/1.png", "bob/cat/1.jxl"], "'bob/cat' holds 1 .jxl file"),
        (&["ann/train/cat/1.png", "ann/test/cat/1.dcm"], "'ann/test/cat' holds 1 .dcm file"),
        (&["train/cat/1.png", "train/owl/"], "'train/owl' is empty, and no other folder"),
    ] {
        let message = refused(files);
        assert!(message.contains(said), "{message}");
    }
    // Nothing is lost where a device has nothing of a class.
    let (scan, _) = scanned(&["ann/cat/1.png", "ann/owl/1.png", "bob/cat/1.png", "bob/owl/"]);
    assert_eq!((scan.files.len(), &scan.notes[1][..]), (3, "nothing in bob/owl"));
}

#[test]
fn what_is_left_out_is_said() {
    let (scan, files) = scanned(&[
        "train/cat/1.jpg",
        "train/cat/2.heic",
        "train/cat/3.heic",
        "train/cat/more/4.jpg",
        "train/owl/1.png",
        "train/loose.jpg",
        // These were converted, and the original was kept.
        "train/cat/1.heic",
        "train/owl/1.gif",
    ]);
    assert_eq!(files.len(), 2);
    assert_eq!(
        scan.left_out,
        [
            "2 .heic files left out, such as in train/cat: convert them, for example with ImageMagick in their folder: \
             magick mogrify -format png '*.heic'",
            "1 image outside of class folders left out, such as train/loose.jpg",
            "folders inside of class folders left out: train/cat/more",
        ]
    );
}

#[test]
fn names_that_differ_only_in_writing_are_no_two_classes() {
    for files in [
        ["train/cat/1.png", "test/Cat/1.png"],
        ["train/cat/1.png", "test/cat /1.png"],
        ["ann/K\u{e4}se/1.png", "bob/Ka\u{308}se/1.png"],
        ["cat/1.png", "CAT/1.png"],
    ] {
        let message = refused(&files);
        assert!(message.contains("would be two classes") && message.contains("the same name"), "{message}");
    }
}

#[test]
fn other_structures_are_refused() {
    for (files, said) in [
        (&[][..], "no class folder"),
        (&["1.png"], "no class folder"),
        (&["a/1.png", "b/x/1.png"], "'b' holds no image file, while 'a' does"),
        (&["train/1.png"], "'train' has no class folder"),
        (&["a/x/1.png", "b/"], "'b' has no class folder"),
    ] {
        let message = refused(files);
        assert!(message.contains(said) && message.contains("DIR/train/CLASS"), "{files:?}: {message}");
    }
    assert!(refused(&["a/b/c/1.png"]).contains("'a/b' holds 1 folder"));
    let missing = tempfile::tempdir().unwrap().path().join("nothing");
    assert!(scan(&missing).unwrap_err().to_string().contains("nothing"));
}
