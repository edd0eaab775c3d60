use super::*;
use crate::strategy::scaffold::Scaffold;

#[test]
fn scaffold_by_hand() {
    let scaffold = Scaffold { server_lr: 1.0 };
    let parts = scaffold.parts(&Split::by_names(&layout(), &["fc"]).unwrap());
    let names = |bundle: &crate::parts::Bundle| -> Vec<String> {
        bundle.layout().specs().iter().map(|spec| spec.name.clone()).collect()
    };
    assert_eq!(names(&parts.down)[3..], ["fc", "control/conv", "control/fc"]);
    assert_eq!((names(&parts.up), names(&parts.server)), (names(&parts.down), names(&parts.down)));
    assert_eq!(names(&parts.kept), ["control/conv", "control/fc"]);
    let of = |bundle: &crate::parts::Bundle, values: &[f32]| {
        Params::from_values(bundle.layout().clone(), values.to_vec()).unwrap()
    };
    let state = parts.adopt_state(of(&parts.server, &[1.0, 2.0, 3.0, 4.0, 0.5, 0.25])).unwrap();
    let own = parts.adopt_kept(of(&parts.kept, &[0.25, 0.0])).unwrap();
    let local = LocalRound { rate: 1.0, ..round(&parts) };
    let trained = scaffold.train(&mut toy(), &local, &state, &own).unwrap();
    // Two steps of 1 - (c - c_i): y = x + 1.5 (conv, fc), statistics (never corrected: the toy has no such part) + 2.
    // c_i+ - c_i = (x - y) / (2 * 1) - c = -0.75 - c.
    assert_eq!(trained.sent.params().values(), [2.5, 4.0, 5.0, 5.5, -1.25, -1.0]);
    assert_eq!(trained.kept.params().values(), [-1.0, -1.0]);
    // The server: the mean, each device counting the same, and c + the sum over all N devices.
    let (mean, sum) = ([3.0, 4.0, 5.0, 6.0], [-2.0, -1.0]);
    let server = |rate: f64| {
        let part = |prefix: &'static str, values: &[f32]| {
            let layout = parts.up.slot_layout(usize::from(!prefix.is_empty())).clone();
            (prefix, Some(Params::from_values(layout, values.to_vec()).unwrap()))
        };
        let folded = Folded(vec![part("", &mean), part("control/", &sum)]);
        let round = ServerRound { parts: &parts, round: 1, devices: 4, asked: 2, answered: 2 };
        Scaffold { server_lr: rate }.server(&state, folded, &round).params().values().to_vec()
    };
    assert_eq!(server(1.0), [3.0, 4.0, 5.0, 6.0, 0.0, 0.0]);
    assert_eq!(server(0.5), [2.0, 4.0, 5.0, 5.0, 0.0, 0.0]);
    assert!(!scaffold.takes_momentum() && FedAvg.takes_momentum());
}
