//! A method of one's own: `cargo run --release --example own_method`
use fedper::prelude::*;
/// FedAvg whose devices are held near what they received (arXiv:1812.06127), and whose server has momentum (arXiv:1909.06335).
struct Mine {
    mu: f64,
    beta: f32,
}

/// What the server remembers beside the model: as large as what trains, and 0 at first.
const VELOCITY: Slot = Slot::new("velocity/", Like::Trainable);
impl Strategy for Mine {
    fn name(&self) -> &'static str {
        "mine"
    }
    fn about(&self) -> About {
        About { line: "fedavg with a pull and a momentum", ..FedAvg.about() }
    }
    fn settings(&self) -> String {
        format!("mu = {}, beta = {}", self.mu, self.beta)
    }
    fn parts(&self, cut: &Split) -> Parts {
        FedAvg.parts(cut).remembering(VELOCITY)
    }
    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<Trained, LearnError> {
        let start = round.assemble(received, own);
        device.load(&start)?;
        let metrics = device.train(&round.pass().tilted(Tilt::toward(self.mu, &start)))?;
        round.answer_with_model(device, metrics)
    }
    fn server(&self, state: &Shared, mut folded: Folded, round: &ServerRound) -> Shared {
        let (old, mut velocity) = (round.state(state, ""), round.state(state, VELOCITY.prefix));
        let Some(mut new) = folded.take("") else { return state.clone() };
        for (nth, spec) in velocity.layout().clone().specs().iter().enumerate() {
            let at = old.layout().position(&spec.name).expect("what trains is a part of the model");
            for ((v, new), old) in velocity.at_mut(nth).iter_mut().zip(new.at_mut(at)).zip(old.at(at)) {
                *v = self.beta * *v + (*new - old);
                *new = old + *v;
            }
        }
        round.parts.state(vec![("", new), (VELOCITY.prefix, velocity)])
    }
}
fn main() -> Result<(), Error> {
    let federation =
        Experiment::builder().model("mlp").partition(Scheme::Dirichlet { alpha: 0.3 }).clients(20);
    let run = federation.algorithm(&["fedavg"]).method(Mine { mu: 0.1, beta: 0.5 }).run()?;
    for round in run.rounds() {
        let accuracy = round.accuracy.map_or(f64::NAN, |over_devices| over_devices.mean);
        println!("round {:>2} of {:>6}: {:.1}%", round.round, round.algorithm, 100.0 * accuracy);
    }
    assert!(run.server("mine")?.is_some() && run.accuracy("mine") > Some(0.3));
    Ok(())
}
