use super::*;
use crate::strategy::ditto::Ditto;

#[test]
fn ditto_sends_what_fedavg_sends_and_keeps_a_model_that_is_pulled() {
    let ditto = Ditto { lambda: 0.5, personal_epochs: Some(1) };
    let parts = ditto.parts(&Split::by_names(&layout(), &["fc"]).unwrap());
    let (received, nothing) = FedAvg.parts(&parts.split).split.cut(&whole([1.0, 2.0, 3.0, 4.0]));
    let fedavg = FedAvg.parts(&parts.split);
    let alone = FedAvg.train(&mut toy(), &round(&fedavg), &received, &nothing).unwrap();
    let own = parts
        .adopt_kept(parts.kept.begin(|_, _| unreachable!(), Some(&whole([5.0, 2.0, 3.0, 0.0]))))
        .unwrap();
    let trained = ditto.train(&mut toy(), &round(&parts), &received, &own).unwrap();
    assert_eq!(trained.sent, alone.sent);
    // One epoch: v - (-1 + 0.5 (v - w)).
    assert_eq!(trained.kept.params().values(), [4.0, 3.0, 4.0, 3.0]);
    assert_eq!(trained.metrics.steps, 3);
    let tested = network(&ditto, &mut toy(), &round(&parts), &received, &trained.kept);
    assert_eq!(tested, [4.0, 3.0, 4.0, 3.0]);
    // Without a pull it is local training; without epochs of its own as many as the round's.
    let free = Ditto { lambda: 0.0, personal_epochs: None };
    let trained = free.train(&mut toy(), &round(&parts), &received, &own).unwrap();
    assert_eq!(trained.kept.params().values(), [7.0, 4.0, 5.0, 2.0]);
}
