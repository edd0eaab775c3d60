use super::*;
use crate::strategy::fedrep::FedRep;

#[test]
fn fedrep_trains_the_head_first_and_the_base_after_it() {
    let cut_at = |personal: &[&str]| Split::by_names(&layout(), personal).unwrap();
    let parts = FedRep { head_epochs: 7 }.parts(&cut_at(&["fc"]));
    let (received, own) = cut(&parts, [10.0, 20.0, 30.0, 99.0], [99.0, 99.0, 99.0, 40.0]);
    let mut device = toy();
    let trained = FedRep { head_epochs: 7 }.train(&mut device, &round(&parts), &received, &own).unwrap();
    assert_eq!(trained.sent.params().values(), [12.0, 22.0, 32.0]);
    assert_eq!(trained.kept.params().values(), [47.0]);
    assert_eq!((trained.metrics.steps, device.passes), (9, 2));
    // Of a network that has but one side, that one trains, as it would alone.
    for (personal, expected, passes) in [
        (&[][..], [12.0, 22.0, 32.0, 101.0], 1),
        (&["conv", "bn.running_mean", "bn.running_var", "fc"], [17.0; 4], 1),
    ] {
        let parts = FedRep { head_epochs: 7 }.parts(&cut_at(personal));
        let (received, own) = cut(&parts, [10.0, 20.0, 30.0, 99.0], [10.0; 4]);
        let mut device = toy();
        FedRep { head_epochs: 7 }.train(&mut device, &round(&parts), &received, &own).unwrap();
        assert_eq!((device.params.values(), device.passes), (&expected[..], passes));
    }
}
