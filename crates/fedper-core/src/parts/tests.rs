use super::*;
use crate::params::{Layout, Spec};

fn layout() -> Arc<Layout> {
    Layout::new(vec![
        Spec::trainable("conv", [2]),
        Spec::buffer("bn.running_mean", [1]),
        Spec::trainable("fc", [1]),
    ])
    .unwrap()
}

fn parts() -> Parts {
    let control = Slot::new("control/", Like::Trainable);
    let alpha = Slot::new("alpha", Like::Values(2)).begins(Begin::Value(0.5));
    Parts::of(Split::by_names(&layout(), &["fc"]).unwrap())
        .remembering(control)
        .sending(control)
        .collecting(control, Fold::Sum)
        .remembering(alpha)
        .keeping(control)
        .keeping(alpha)
        .keeping(Slot::new("own/", Like::Whole).begins(Begin::Received))
}

fn names(layout: &Layout) -> Vec<&str> {
    layout.specs().iter().map(|spec| spec.name.as_str()).collect()
}

fn counted(layout: &Arc<Layout>) -> Params {
    Params::from_values(layout.clone(), (0..layout.numel()).map(|v| v as f32).collect()).unwrap()
}

#[test]
fn slots_stand_one_after_the_other_under_their_prefixes() {
    let parts = parts();
    assert_eq!(
        names(parts.server.layout()),
        ["conv", "bn.running_mean", "control/conv", "control/fc", "alpha"]
    );
    assert_eq!(names(parts.down.layout()), ["conv", "bn.running_mean", "control/conv", "control/fc"]);
    assert_eq!(
        names(parts.kept.layout()),
        ["fc", "control/conv", "control/fc", "alpha", "own/conv", "own/bn.running_mean", "own/fc"]
    );
    let state = Arc::new(parts.adopt_state(counted(parts.server.layout())).unwrap());
    assert_eq!(parts.downloaded(&state).params().values(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let control = parts.server.take(state.params(), "control/");
    assert_eq!((names(control.layout()), control.values()), (vec!["conv", "fc"], &[3.0, 4.0, 5.0][..]));
}

#[test]
fn fedpers_parts_are_the_two_sides_of_the_cut() {
    let split = Split::by_names(&layout(), &["fc"]).unwrap();
    let parts = Parts::of(split.clone());
    assert!(
        Arc::ptr_eq(parts.down.layout(), split.base()) && Arc::ptr_eq(parts.kept.layout(), split.personal())
    );
    let state = Arc::new(parts.adopt_state(counted(split.base())).unwrap());
    assert!(Arc::ptr_eq(&parts.downloaded(&state), &state), "nothing is copied");
}

#[test]
fn packing_undoes_unpacking_with_slots_left_out() {
    let up = parts().up;
    for slots in [&["", "control/"][..], &[""], &["control/"], &[]] {
        let packed = slots.iter().map(|prefix| (*prefix, up.take(&counted(up.layout()), prefix)));
        let packed = up.pack(packed.collect()).unwrap();
        let unpacked = up.unpack(packed).unwrap();
        for (slot, found) in up.slots().iter().zip(unpacked) {
            let expected = slots.contains(&slot.prefix).then(|| up.take(&counted(up.layout()), slot.prefix));
            assert_eq!(found, expected);
        }
    }
    let foreign = Params::zeros(Layout::new(vec![Spec::trainable("conv", [2])]).unwrap());
    assert!(up.unpack(foreign.clone()).is_err(), "a part of a slot");
    assert_eq!(up.pack(vec![("", foreign)]).unwrap_err(), ParamsError::Missing("bn.running_mean".into()));
    assert_eq!(up.pack(vec![("x/", counted(&layout()))]).unwrap_err(), ParamsError::Unknown("x/".into()));
}

#[test]
fn each_slot_begins_as_it_says() {
    let parts = parts();
    let drawn = |layout: &Arc<Layout>, begin| {
        assert_eq!(begin, Begin::Drawn);
        Params::from_values(layout.clone(), vec![9.0; layout.numel()]).unwrap()
    };
    let received = Params::from_values(layout(), vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    let begun = parts.kept.begin(drawn, Some(&received));
    assert_eq!(begun.values(), [9.0, 0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 2.0, 3.0, 4.0]);
    assert!(parts.kept.begins_received() && !parts.server.begins_received());
}

#[test]
fn the_model_is_joined_from_its_own_slots() {
    let parts = parts();
    let received = parts.adopt_received(counted(parts.down.layout())).unwrap();
    let own = parts.adopt_kept(counted(parts.kept.layout())).unwrap();
    assert_eq!(parts.join(&received, &own).values(), [0.0, 1.0, 2.0, 0.0]);
    let other = parts.cut(Split::all_base(&layout()));
    assert_eq!(names(other.server.layout())[..3], ["conv", "bn.running_mean", "fc"]);
    assert_eq!(names(other.kept.layout())[..2], ["control/conv", "control/fc"]);
}

#[test]
fn stored_parameters_are_matched_by_name_not_by_position() {
    let layout =
        Layout::new(vec![Spec::trainable("fc.weight", [3]), Spec::trainable("fc.bias", [1])]).unwrap();
    let parts = Parts::of(Split::all_personal(&layout));
    let swapped =
        Layout::new(vec![Spec::trainable("fc.bias", [1]), Spec::trainable("fc.weight", [3])]).unwrap();
    let stored = Params::from_values(swapped, vec![9.0, 1.0, 2.0, 3.0]).unwrap();
    assert_eq!(parts.adopt_kept(stored.clone()).unwrap().params().values(), [1.0, 2.0, 3.0, 9.0]);
    assert!(matches!(parts.adopt_state(stored), Err(ParamsError::Unknown(_))));
    let half = Params::zeros(Layout::new(vec![Spec::trainable("fc.bias", [1])]).unwrap());
    assert_eq!(parts.adopt_kept(half).unwrap_err(), ParamsError::Missing("fc.weight".into()));
}
