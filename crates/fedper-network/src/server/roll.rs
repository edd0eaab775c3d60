//! Who takes part: nodes that come online are asked what they host, and what they have images of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fedper_flower::error::FlowerError;
use fedper_flower::records::{Content, Values};

use super::{LOOK, Server};
use crate::answer::Claim;
use crate::error::Error;
use crate::fit::{self, Images, Wanted};
use crate::one_line;
use crate::session::{Arrived, Kind, Question, Refused};
use crate::settings::{CONFIG, FEDERATION, for_devices};
use fedper_run::experiment::Experiment;

/// The most bytes of an answer to a `query`: it may name many classes.
const MOST_BYTES: u64 = 16 << 20;

/// What the federation asks of devices' images, and what nodes were told of it.
pub(super) struct Roll {
    wanted: Wanted,
    /// Of how many classes the images must be, if all of the same and it is not known which.
    open: Option<usize>,
    /// Nodes that were told all that is wanted.
    told: BTreeSet<u64>,
    /// Why a node takes no part, as it was said last.
    said: BTreeMap<u64, String>,
}

impl Roll {
    /// For `experiment`. Its images have the classes that devices must have, if they must have the same; where nobody has
    /// named a dataset (`named`), those of the first device count, or `known` from before.
    pub(super) fn new(experiment: &Experiment, named: bool, known: Option<Vec<String>>) -> Self {
        let Images { classes, shape } = Images::of(experiment);
        let (count, travel) = (classes.len(), fit::classes_travel(experiment));
        let wanted = if named { Some(classes) } else { known };
        let wanted = Wanted { classes: wanted.filter(|_| travel), shape: Some(shape) };
        let open = (travel && wanted.classes.is_none()).then_some(count);
        Self { wanted, open, told: BTreeSet::new(), said: BTreeMap::new() }
    }

    /// Checks what a node has images of. The first one's classes become everybody's where they are not known yet.
    fn check(&mut self, images: &Images) -> Result<(), String> {
        self.wanted.check(images)?;
        if let Some(count) = self.open {
            if images.classes.len() != count {
                return Err(format!(
                    "this device's classes are {}, and the server's network is for {count}: name a folder with a few \
                     images of each class in the server's configuration (dataset, data_dir)",
                    fit::list(&images.classes)
                ));
            }
            (self.wanted.classes, self.open) = (Some(images.classes.clone()), None);
            self.told.clear();
        }
        Ok(())
    }
}

impl Server<'_> {
    /// Waits until enough devices are online, and all nodes have said what they host.
    pub(super) fn wait_for_devices(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let mut said = None;
        // The last round's will do at first.
        let mut fresh = 2 * LOOK;
        while !self.is_stopped() {
            self.look_for_nodes(fresh)?;
            fresh = Duration::from_millis(500);
            for arrived in self.session.collect(MOST_BYTES)? {
                self.roster_answer(arrived);
            }
            let (count, missing) = (self.roster.count(), self.roster.missing());
            // Whoever says that it takes no part is not waited for, unless so many must answer.
            let all = self.experiment.config.clients.saturating_sub(missing);
            let needed = self.options.min_devices.unwrap_or(all.max(self.options.min_answers)).max(1);
            let patience = Duration::from_secs(10);
            let without = match missing {
                0 => String::new(),
                1 => "; 1 takes no part".to_owned(),
                missing => format!("; {missing} take no part"),
            };
            if count >= needed && (!self.session.is_asking() || start.elapsed() > patience) {
                if missing > 0 && said.is_some() {
                    (self.tell)(&format!("going on with {count} devices{without}"));
                }
                return Ok(());
            }
            if count < needed && said != Some((count, missing)) && start.elapsed() > Duration::from_secs(2) {
                (self.tell)(&format!("{count} devices are online; waiting for {needed}{without}"));
                said = Some((count, missing));
            }
            std::thread::sleep(self.session.pause());
        }
        Err(FlowerError::Interrupted.into())
    }

    /// Asks who is online, if it was asked longer than `fresh` ago, and whoever is new what it hosts.
    pub(super) fn look_for_nodes(&mut self, fresh: Duration) -> Result<(), Error> {
        if self.looked.is_some_and(|at| at.elapsed() < fresh) {
            return Ok(());
        }
        // A node that is killed while it answers is asked again after that time.
        let ttl = self.options.round_timeout.min(Duration::from_secs(60));
        let online = self.session.nodes()?;
        self.looked = Some(Instant::now());
        for node in self.roster.update(&online, Instant::now()) {
            let mut config = Values::default();
            config.set_text(CONFIG, for_devices(&self.experiment.config));
            config.set_text(FEDERATION, self.network.federation.clone());
            self.roll.wanted.write(&mut config);
            if self.roll.open.is_none() {
                self.roll.told.insert(node);
            }
            let content = Content { config: Some(config), ..Content::default() }.pack();
            let question = Question { node, kind: Kind::Query, devices: Vec::new() };
            if self.session.ask(question, 0, &content, ttl)?.is_none() {
                self.roster.forget(node);
            }
        }
        Ok(())
    }

    pub(super) fn roster_answer(&mut self, arrived: Arrived) {
        let node = arrived.question.node;
        let claim = match arrived.result {
            Ok(content) => Claim::of(&content),
            // It is asked again.
            Err(Refused::Lost(_)) => return self.roster.forget(node),
            // A node that does not know the question hosts one device.
            Err(Refused::Error(_)) => Claim::default(),
            Err(Refused::Malformed(reason)) => {
                (self.tell)(&format!("node {node} refused: {}", one_line(&reason)));
                Claim { devices: Some(Vec::new()), ..Claim::default() }
            }
        };
        if let Some(reason) = &claim.refusal {
            return self.takes_no_part(node, &claim, reason);
        }
        if let Some(images) = &claim.images {
            let was_open = self.roll.open.is_some();
            if let Err(reason) = self.roll.check(images) {
                // It did not know what is wanted: asked again, it says itself, on its own side too, that it takes no part.
                if !self.roll.told.contains(&node) && !was_open {
                    return self.roster.forget(node);
                }
                return self.takes_no_part(node, &claim, &reason);
            }
            if was_open && self.roll.open.is_none() {
                self.network.classes.clone_from(&self.roll.wanted.classes);
                if let Err(error) = self.network.write(&self.path) {
                    (self.tell)(&error.to_string());
                }
            }
        }
        self.roll.said.remove(&node);
        if let Err(reason) = self.roster.hosts(node, claim) {
            (self.tell)(&format!("node {node} {reason}"));
        }
    }

    fn takes_no_part(&mut self, node: u64, claim: &Claim, reason: &str) {
        let devices = claim.devices.as_deref().unwrap_or_default();
        let reason = one_line(reason);
        if self.roll.said.get(&node) != Some(&reason) {
            let of = match devices {
                [] => String::new(),
                [one] => format!("device {one}, "),
                [first, ..] => format!("device {first} and {} others, ", devices.len() - 1),
            };
            (self.tell)(&format!("{of}node {node}, takes no part: {reason}"));
            self.roll.said.insert(node, reason);
        }
        self.roster.takes_no_part(node, devices.len(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedper_run::config::Settings;

    fn images(classes: &[&str]) -> Images {
        Images { classes: classes.iter().map(ToString::to_string).collect(), shape: [28, 28, 1] }
    }

    fn roll(text: &str, named: bool, known: Option<Vec<String>>) -> Roll {
        let settings: Settings = toml::from_str(text).unwrap();
        Roll::new(&Experiment::prepare(&settings).unwrap(), named, known)
    }

    #[test]
    fn the_first_devices_classes_count_where_no_dataset_is_named() {
        let travel = "model = 'mlp'\nalgorithm = ['fedavg']";
        let ten = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let mut other = ten;
        other[9] = "z";
        let mut open = roll(travel, false, None);
        assert!(open.check(&images(&["a", "b"])).unwrap_err().contains("network is for 10"));
        assert_eq!(open.check(&images(&ten)), Ok(()));
        assert!(open.check(&images(&other)).unwrap_err().contains("classes are a, b, c"));
        // Known from before the server was killed.
        let mut resumed = roll(travel, false, open.wanted.classes.clone());
        assert!(resumed.check(&images(&other)).is_err());
        assert_eq!(resumed.check(&images(&ten)), Ok(()));
        // Its own, where it names them.
        assert!(roll(travel, true, None).check(&images(&ten)).is_err());
        // And nobody's, where that layer stays on the device.
        let mut own = roll("model = 'mlp'\npersonal_layers = 1\nalgorithm = ['fedper']", true, None);
        assert_eq!(own.check(&images(&["a", "b"])), Ok(()));
        assert_eq!(own.check(&images(&ten)), Ok(()));
        let wrong = Images { shape: [28, 28, 3], ..images(&ten) };
        assert!(own.check(&wrong).unwrap_err().contains("in colour"));
    }
}
