//! Ditto: a personal model beside the global one, held near it.
//!
//! T. Li, S. Hu, A. Beirami, V. Smith, *Ditto: Fair and Robust Federated Learning Through Personalization*,
//! arXiv:2012.04221, algorithm 1. In a round a device
//!
//! 1. trains the received model w for e epochs and sends it: FedAvg, bit for bit,
//! 2. trains its own model v for s epochs with the gradient + lambda (v - w), w as it was *received*, and keeps it.
//!
//! Choices where the paper leaves one: v begins as what the device first received; both passes see the same batches; v has
//! batch-norm statistics of its own; s = e unless `personal_epochs` says otherwise. The training loss is over both. lambda = 0
//! is local training from a common start.

use std::sync::Arc;

use super::{About, Entry, FedAvg, LearnError, Learner, LocalRound, Pass, Setting, Strategy, Tilt, Trained};
use crate::parts::{Begin, Like, Parts, Slot};
use crate::split::{Kept, Shared, Split};

/// v: never sent, nor is anything that follows from it.
const OWN: Slot = Slot::new("own/", Like::Whole).begins(Begin::Received).private();

/// FedAvg, and on each device a model of its own that is pulled towards it.
pub struct Ditto {
    /// How strongly.
    pub lambda: f64,
    /// s: epochs of the personal model, if they are others than the round's.
    pub personal_epochs: Option<u32>,
}

impl Ditto {
    pub(super) const ENTRY: Entry = Entry::new(
        "ditto",
        &[
            Setting::number(
                "lambda",
                "pull of the personal model towards the global one; 0 is training alone",
                1.0,
            ),
            Setting::whole("personal_epochs", "epochs of the personal model [default: --local-epochs]", None),
        ],
        |values| {
            let personal_epochs = values.given("personal_epochs").map(|epochs| epochs as u32);
            Arc::new(Ditto { lambda: values.get("lambda"), personal_epochs })
        },
    );
}

impl Strategy for Ditto {
    fn name(&self) -> &'static str {
        "ditto"
    }

    fn about(&self) -> About {
        About {
            line: "fedavg, and on each device a model of its own that is pulled towards it",
            source: "2012.04221",
            kept: "a whole network",
            ..FedAvg.about()
        }
    }

    fn parts(&self, cut: &Split) -> Parts {
        FedAvg.parts(cut).keeping(OWN)
    }

    fn train(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        received: &Shared,
        own: &Kept,
    ) -> Result<Trained, LearnError> {
        let w = round.parts.join(received, own);
        device.load(&round.assemble(received, own))?;
        let mut metrics = device.train(&round.pass())?;
        let (base, statistics) = round.cut(&device.params()?);
        device.load(&round.own(own, OWN.prefix))?;
        let epochs = self.personal_epochs.unwrap_or(round.epochs);
        let pass = Pass { epochs, ..round.pass() }.tilted(Tilt::toward(self.lambda, &w));
        metrics.merge(device.train(&pass)?);
        round.answer(vec![("", base)], vec![("", statistics), (OWN.prefix, device.params()?)], metrics)
    }

    fn work(&self, epochs: u32) -> f64 {
        f64::from(epochs) + f64::from(self.personal_epochs.unwrap_or(epochs))
    }

    /// v, as it is.
    fn network(
        &self,
        device: &mut dyn Learner,
        round: &LocalRound,
        _received: &Shared,
        own: &Kept,
    ) -> Result<(), LearnError> {
        device.load(&round.own(own, OWN.prefix))
    }
}
