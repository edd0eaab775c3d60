use super::*;

fn experiment(seed: u64) -> Experiment {
    let settings = Settings {
        model: Some("mlp".into()),
        clients: Some(3),
        samples_per_client: Some(crate::config::Samples::Count(20)),
        seed: Some(seed),
        ..Settings::default()
    };
    Experiment::prepare(&settings).unwrap()
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = RunDir::create(dir.path(), &experiment(1)).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("not empty"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_run_killed_before_its_configuration_was_written_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml.tmp"), "model = 'm").unwrap();
    drop(RunDir::create(dir.path(), &experiment(1)).unwrap());
    assert!(!dir.path().join("config.toml.tmp").exists());
    let error = RunDir::create(dir.path(), &experiment(1)).err().unwrap().to_string();
    assert!(error.contains("fedper run --resume"), "{error}");
}

#[test]
fn what_a_crash_appended_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    drop(RunDir::create(&path, &experiment(1)).unwrap());
    fs::write(path.join(ROUNDS), "{\"half a rec").unwrap();
    drop(RunDir::resume(&path, &experiment(1)).unwrap());
    assert_eq!(fs::read(path.join(ROUNDS)).unwrap(), b"");
}

#[test]
fn a_run_goes_on_only_as_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    drop(RunDir::create(&path, &experiment(1)).unwrap());
    let error = RunDir::resume(&path, &experiment(2)).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("seed is 2 here and 1 there"), "{error}");
    let whole = fs::read(path.join(PARTITION)).unwrap();
    let more = [&whole[..], b"\n"].concat();
    for changed in [&b"{}"[..], &whole[..whole.len() - 1], &more] {
        fs::write(path.join(PARTITION), changed).unwrap();
        let error = RunDir::resume(&path, &experiment(1)).err().unwrap();
        assert!(error.to_string().contains("no longer dealt"), "{error}");
    }
    fs::write(path.join(PARTITION), &whole).unwrap();
    assert_eq!(RunDir::resume(&path, &experiment(1)).unwrap().samples().train, 60);
}

#[test]
fn a_configuration_in_an_older_form_is_the_same_configuration() {
    let now = Config::resolve(&Settings::default()).unwrap().to_toml();
    let before = now.replace("augment = \"none\"", "augment = false");
    assert_ne!(now, before);
    assert_eq!(as_written_now(&before), now);
    assert_eq!(as_written_now(&now), now);
    assert_eq!(as_written_now("lr = 'fast'"), "lr = 'fast'");
}

#[test]
fn two_processes_cannot_hold_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let held = RunDir::create(&path, &experiment(1)).unwrap();
    let error = RunDir::resume(&path, &experiment(1)).err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(held);
    assert!(RunDir::resume(&path, &experiment(1)).is_ok());
}

#[test]
fn a_damaged_checkpoint_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    drop(RunDir::create(&path, &experiment(1)).unwrap());
    fs::write(path.join("checkpoint/state.redb"), b"not a database at all").unwrap();
    let error = RunDir::resume(&path, &experiment(1)).err().unwrap();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().contains("state.redb"), "{error}");
}
