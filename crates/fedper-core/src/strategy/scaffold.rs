//! SCAFFOLD: drift corrected by control variates.
//!
//! S. P. Karimireddy, S. Kale, M. Mohri, S. Reddi, S. Stich, A. T. Suresh, *SCAFFOLD: Stochastic Controlled Averaging for
//! Federated Learning*, arXiv:1910.06378, algorithm 1, option II. In a round a device
//!
//! 1. trains the received x to y with the gradient + c - c_i, plain SGD, K steps (a last batch that is not full is one),
//! 2. sets c_i+ = c_i - c + (x - y) / (K rate), sends y and c_i+ - c_i, keeps c_i+.
//!
//! The server sets x += server_lr * mean(y - x), each device counting the same, and c += sum(c_i+ - c_i) / N over all N
//! devices, whoever was asked.
//!
//! Choices where the paper leaves one: controls are of what the optimizer changes and begin at zero; batch norm's running
//! statistics are averaged as they are; weight decay is a part of the gradient. With momentum K rate is not the way that a
//! device has gone, so it must be 0.

use std::sync::Arc;

use super::{
    About, Entry, FedAvg, Folded, LearnError, Learner, LocalRound, ServerRound, Setting, Strategy, Tilt,
    Trained,
};
use crate::params::{Kind, Params};
use crate::parts::{Fold, Like, Parts, Slot, part_of};
use crate::split::{Kept, Shared, Split};

/// c on the server and c_i on a device; a device sends what c_i has changed by.
const CONTROL: Slot = Slot::new("control/", Like::Trainable);

/// Federated averaging whose devices know in which direction they drift.
pub struct Scaffold {
    /// The server's step: 1 is the mean.
    pub server_lr: f64,
}

impl Scaffold {
    pub(super) const ENTRY: Entry = Entry::new(
        "scaffold",
        &[Setting::number(
            "server_lr",
            "how far the server goes towards the mean of the devices; 1 is the mean",
            1.0,
        )],
        |values| Arc::new(Scaffold { server_lr: values.get("server_lr") }),
    );
}

impl Strategy for Scaffold {
    fn name(&self) -> &'static str {
        "scaffold"
    }

    fn about(&self) -> About {
        About {
            line: "fedavg with each device's drift corrected by control variates",
            source: "1910.06378",
            kept: "a control for each weight",
            learns: "the network that a device has trained, and its mean gradient",
        }
    }

    fn parts(&self, cut: &Split) -> Parts {
        FedAvg
            .parts(cut)
            .folding_model(Fold::Uniform)
            .remembering(CONTROL)
            .sending(CONTROL)
            .collecting(CONTROL, Fold::Sum)
            .keeping(CONTROL)
    }

    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<Trained, LearnError> {
        let x = round.assemble(received, own);
        let c = round.received(received, CONTROL.prefix);
        let c_i = round.own(own, CONTROL.prefix);
        device.load(&x)?;
        let correction = c.clone().zip(&c_i, |c, c_i| c - c_i);
        let metrics = device.train(&round.pass().tilted(Tilt::adding(&correction)))?;
        let y = device.params()?;
        let gone = part_of(c.layout(), &x)?.zip(&part_of(c.layout(), &y)?, |x, y| x - y);
        let steps = (metrics.steps as f64 * round.rate) as f32;
        let change = gone.zip(&c, |gone, c| gone / steps - c);
        let (base, statistics) = round.cut(&y);
        let c_i = c_i.zip(&change, |c_i, change| c_i + change);
        round.answer(
            vec![("", base), (CONTROL.prefix, change)],
            vec![("", statistics), (CONTROL.prefix, c_i)],
            metrics,
        )
    }

    fn server(&self, state: &Shared, mut folded: Folded, round: &ServerRound) -> Shared {
        let x = round.state(state, "");
        let c = round.state(state, CONTROL.prefix);
        let x = match folded.take("") {
            Some(mean) => step(&x, mean, self.server_lr),
            None => x,
        };
        let c = match folded.take(CONTROL.prefix) {
            Some(sum) => c.zip(&sum, |c, sum| (f64::from(c) + f64::from(sum) / round.devices as f64) as f32),
            None => c,
        };
        round.parts.state(vec![("", x), (CONTROL.prefix, c)])
    }

    fn takes_momentum(&self) -> bool {
        false
    }
}

/// x + rate (mean - x), written so that a rate of 1 is the mean exactly; statistics are the mean's.
fn step(x: &Params, mut mean: Params, rate: f64) -> Params {
    for position in 0..x.layout().len() {
        if x.layout().specs()[position].kind == Kind::Trainable {
            for (mean, &x) in mean.at_mut(position).iter_mut().zip(x.at(position)) {
                *mean = (f64::from(*mean) + (rate - 1.0) * (f64::from(*mean) - f64::from(x))) as f32;
            }
        }
    }
    mean
}
