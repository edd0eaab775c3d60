use fedper_core::params::{Layout, Spec};
use fedper_core::split::Split;

use super::*;

const SCOPE: Scope<'_> = Scope { federation: "f", algorithm: "fedper" };

#[test]
fn a_kill_in_the_making_of_the_file_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    // The database's own header, all but the mark that it writes last.
    drop(Store::open(dir.path()).unwrap());
    let mut made = fs::read(&path).unwrap();
    made[..9].fill(0);
    fs::write(&path, &made).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(Store::open(dir.path()).err().unwrap().to_string().contains("another process"));
    drop(store);
    // What is not ours stays.
    fs::write(&path, "years of work").unwrap();
    assert!(Store::open(dir.path()).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"years of work");
}

#[test]
fn a_round_asked_for_again_begins_where_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(vec![Spec::trainable("fc", [2])]).unwrap();
    let parts = Parts::of(Split::all_personal(&layout));
    let own =
        |value: f32| parts.adopt_kept(Params::from_values(layout.clone(), vec![value; 2]).unwrap()).unwrap();
    let device = DeviceId(3);
    let begins = |round: u32| {
        let store = Store::open(dir.path()).unwrap();
        store.at_the_beginning_of(round, SCOPE, device, &parts).unwrap()
    };
    let keep = |round: u32, value: f32| {
        Store::open(dir.path()).unwrap().keep(round, SCOPE, [(device, None, &own(value))]).unwrap();
    };
    assert_eq!(begins(1), None);
    keep(1, 1.0);
    assert_eq!((begins(1), begins(2)), (None, Some(own(1.0))));
    keep(1, 1.5);
    assert_eq!((begins(1), begins(2)), (None, Some(own(1.5))));
    keep(2, 2.0);
    keep(2, 2.5);
    assert_eq!((begins(2), begins(3), begins(7)), (Some(own(1.5)), Some(own(2.5)), Some(own(2.5))));

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.state(SCOPE, device, &parts).unwrap().unwrap().round, 2);
    let other = Scope { federation: "g", ..SCOPE };
    assert_eq!(store.state(other, device, &parts).unwrap(), None);
    let error = store.state(SCOPE, device, &Parts::of(Split::all_base(&layout))).unwrap_err().to_string();
    assert!(error.contains("another network"), "{error}");
    assert!(Store::open(dir.path()).err().unwrap().to_string().contains("another process"));
}

#[test]
fn a_round_that_did_not_count_never_was() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(vec![Spec::trainable("fc", [2])]).unwrap();
    let parts = Parts::of(Split::all_personal(&layout));
    let own =
        |value: f32| parts.adopt_kept(Params::from_values(layout.clone(), vec![value; 2]).unwrap()).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let device = DeviceId(3);
    let after = |counted: u32| store.after(counted, SCOPE, device, &parts).unwrap();
    let keep = |round: u32, counted: u32, value: f32| {
        store.keep(round, SCOPE, [(device, Some(counted), &own(value))]).unwrap();
    };
    assert_eq!(after(0), None);
    keep(1, 0, 1.0);
    assert_eq!((after(0), after(1)), (None, Some(own(1.0))));
    // Round 1 did not count, nor did 2 and 4: the device goes on from the beginning.
    keep(2, 0, 2.0);
    assert_eq!((after(0), after(2)), (None, Some(own(2.0))));
    keep(4, 0, 4.0);
    keep(5, 4, 5.0);
    // Round 4 counted. 5 did not, however often it was asked for, nor 6.
    keep(5, 4, 5.5);
    assert_eq!((after(4), after(5)), (Some(own(4.0)), Some(own(5.5))));
    keep(6, 4, 6.0);
    keep(6, 4, 6.5);
    assert_eq!((after(4), after(6)), (Some(own(4.0)), Some(own(6.5))));
    keep(7, 6, 7.0);
    assert_eq!((after(6), after(7)), (Some(own(6.5)), Some(own(7.0))));
    // What is lost is not made up for with something newer.
    assert_eq!((after(5), after(9)), (None, Some(own(7.0))));
}

#[test]
fn a_federation_keeps_its_classes() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Store::open(dir.path()).unwrap();
    assert_eq!(store().classes("f").unwrap(), None);
    let classes = ["cat", "dog"].map(ToOwned::to_owned);
    store().set_classes("f", &classes).unwrap();
    assert_eq!(store().classes("f").unwrap().unwrap(), classes);
    assert_eq!(store().classes("g").unwrap(), None);
    store().identity().unwrap();
    assert_eq!(store().count_federations().unwrap(), 1);
    store().set_classes("f", &classes[..1]).unwrap();
    store().set_classes("", &classes).unwrap();
    assert_eq!(store().count_federations().unwrap(), 2);
}

#[test]
fn the_identity_stays() {
    let dir = tempfile::tempdir().unwrap();
    let key = || Store::open(dir.path()).unwrap().identity().unwrap().public_openssh();
    assert_eq!(key(), key());
    let store = Store::open(dir.path()).unwrap();
    store.set_pending(Some(b"x")).unwrap();
    store.set_node(7).unwrap();
    assert_eq!((store.pending().unwrap(), store.node().unwrap()), (Some(b"x".to_vec()), Some(7)));
    store.set_pending(None).unwrap();
    store.set_pending(None).unwrap();
    assert_eq!(store.pending().unwrap(), None);
}

/// A private key and personal layers are in it.
#[cfg(unix)]
#[test]
fn a_new_folder_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    drop(Store::open(&folder).unwrap());
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
}
