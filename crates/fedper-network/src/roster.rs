//! Which node hosts which device.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fedper_core::round::DeviceId;

use super::answer::Claim;

/// What a node is known to host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// It was asked and has not answered yet.
    Asked,
    /// These devices.
    Devices(BTreeSet<DeviceId>),
    /// One device; which one is the server's to say. Python nodes, for example.
    Any,
    /// None that could be used.
    Nothing,
    /// It takes no part, since then; so many devices will be missed.
    NoPart(Instant, u64),
}

/// Whoever takes no part is asked again after this time: its owner may have put right what was wrong.
const AGAIN: Duration = Duration::from_secs(60);

/// The nodes that are online, and their devices.
#[derive(Debug, Default)]
pub(super) struct Roster {
    nodes: BTreeMap<u64, Hosts>,
    /// Those that understand questions of few objects.
    compact: BTreeSet<u64>,
    /// Whom the server has given a number: it keeps it as long as nobody claims it.
    given: BTreeMap<u64, DeviceId>,
    /// Devices of the federation, counted from 0.
    devices: u64,
}

impl Roster {
    pub(super) fn new(devices: u64) -> Self {
        Self { devices, ..Self::default() }
    }

    /// Takes over who is online `now`; returns the nodes that are new, or took no part, and are to be asked what they host.
    pub(super) fn update(&mut self, online: &BTreeSet<u64>, now: Instant) -> Vec<u64> {
        let again = |since: Instant| now.duration_since(since) >= AGAIN;
        self.nodes.retain(|node, hosts| {
            online.contains(node) && !matches!(hosts, Hosts::NoPart(since, _) if again(*since))
        });
        self.compact.retain(|node| online.contains(node));
        let new: Vec<u64> = online.iter().copied().filter(|node| !self.nodes.contains_key(node)).collect();
        self.nodes.extend(new.iter().map(|&node| (node, Hosts::Asked)));
        new
    }

    /// A node has said what it hosts.
    ///
    /// # Errors
    /// In words, if it claims what it cannot have. It hosts nothing then.
    pub(super) fn hosts(&mut self, node: u64, claim: Claim) -> Result<(), String> {
        if !self.nodes.contains_key(&node) {
            return Ok(());
        }
        if claim.compact {
            self.compact.insert(node);
        } else {
            self.compact.remove(&node);
        }
        let Some(devices) = claim.devices else {
            self.nodes.insert(node, Hosts::Any);
            return Ok(());
        };
        self.nodes.insert(node, Hosts::Nothing);
        if let Some(device) = devices.iter().find(|device| device.0 >= self.devices) {
            return Err(format!("claims device {device}, and there are only {}, from 0", self.devices));
        }
        for (other, hosts) in &self.nodes {
            if let Hosts::Devices(theirs) = hosts
                && let Some(device) = devices.iter().find(|device| theirs.contains(device))
            {
                return Err(format!("claims device {device}, which is on node {other}"));
            }
        }
        self.nodes.insert(node, Hosts::Devices(devices.into_iter().collect()));
        Ok(())
    }

    /// A node takes no part, and with it these devices; one, if it does not say which.
    pub(super) fn takes_no_part(&mut self, node: u64, devices: usize, now: Instant) {
        if self.nodes.contains_key(&node) {
            self.nodes.insert(node, Hosts::NoPart(now, devices.max(1) as u64));
        }
    }

    /// How many devices take no part.
    pub(super) fn missing(&self) -> u64 {
        let count = |hosts: &Hosts| if let Hosts::NoPart(_, devices) = hosts { *devices } else { 0 };
        self.nodes.values().map(count).sum()
    }

    /// The node is of no use until it is asked again.
    pub(super) fn forget(&mut self, node: u64) {
        self.nodes.remove(&node);
    }

    /// Whether the node understands questions of few objects.
    pub(super) fn is_compact(&self, node: u64) -> bool {
        self.compact.contains(&node)
    }

    /// How many devices there are.
    pub(super) fn count(&self) -> u64 {
        let count = |hosts: &Hosts| match hosts {
            Hosts::Devices(devices) => devices.len() as u64,
            Hosts::Any => 1,
            Hosts::Asked | Hosts::Nothing | Hosts::NoPart(..) => 0,
        };
        self.nodes.values().map(count).sum::<u64>().min(self.devices)
    }

    /// Which node to ask for each device.
    pub(super) fn places(&mut self) -> BTreeMap<DeviceId, u64> {
        let mut places = BTreeMap::new();
        for (&node, hosts) in &self.nodes {
            if let Hosts::Devices(devices) = hosts {
                places.extend(devices.iter().map(|&device| (device, node)));
            }
        }
        let any: Vec<u64> =
            self.nodes.iter().filter(|(_, hosts)| **hosts == Hosts::Any).map(|(&node, _)| node).collect();
        // First those that have a number, so that they keep it.
        self.given.retain(|node, device| any.contains(node) && !places.contains_key(device));
        places.extend(self.given.iter().map(|(&node, &device)| (device, node)));
        for node in any {
            if !self.given.contains_key(&node)
                && let Some(free) =
                    (0..self.devices).map(DeviceId).find(|device| !places.contains_key(device))
            {
                self.given.insert(node, free);
                places.insert(free, node);
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Claim {
        Claim {
            devices: Some(ids.iter().copied().map(DeviceId).collect()),
            compact: true,
            ..Claim::default()
        }
    }

    fn places(roster: &mut Roster) -> Vec<(u64, u64)> {
        roster.places().into_iter().map(|(device, node)| (device.0, node)).collect()
    }

    #[test]
    fn nodes_come_go_and_claim() {
        let mut roster = Roster::new(4);
        let now = Instant::now();
        assert_eq!(roster.update(&[10, 11, 12].into(), now), [10, 11, 12]);
        assert_eq!(roster.count(), 0);
        roster.hosts(10, ids(&[0, 2])).unwrap();
        assert!(roster.hosts(11, ids(&[2, 3])).unwrap_err().contains("on node 10"));
        assert!(roster.hosts(11, ids(&[4])).unwrap_err().contains("only 4"));
        roster.hosts(12, Claim::default()).unwrap();
        assert_eq!([10, 12].map(|node| roster.is_compact(node)), [true, false]);
        assert_eq!((roster.count(), places(&mut roster)), (3, vec![(0, 10), (1, 12), (2, 10)]));
        // A claim comes before what was given away.
        roster.hosts(11, ids(&[1])).unwrap();
        assert_eq!(places(&mut roster), [(0, 10), (1, 11), (2, 10), (3, 12)]);
        // What was given stays, though a smaller number gets free.
        assert!(roster.update(&[11, 12].into(), now).is_empty());
        assert_eq!(places(&mut roster), [(1, 11), (3, 12)]);
        assert!(!roster.is_compact(10));
        assert_eq!(roster.update(&[10, 11, 12].into(), now), [10]);
        roster.hosts(99, ids(&[0])).unwrap();
        assert_eq!(roster.count(), 2);
    }

    #[test]
    fn whoever_takes_no_part_is_asked_again_later() {
        let (mut roster, start) = (Roster::new(3), Instant::now());
        let online = [10, 11].into();
        roster.update(&online, start);
        roster.hosts(10, ids(&[0, 1])).unwrap();
        roster.takes_no_part(11, 0, start);
        roster.takes_no_part(99, 5, start);
        assert_eq!((roster.count(), roster.missing(), places(&mut roster).len()), (2, 1, 2));
        assert!(roster.update(&online, start + AGAIN / 2).is_empty());
        assert_eq!(roster.update(&online, start + AGAIN), [11]);
        assert_eq!(roster.missing(), 0);
        // It was put right, or not.
        roster.takes_no_part(11, 2, start + AGAIN);
        assert_eq!(roster.missing(), 2);
        roster.hosts(11, ids(&[2])).unwrap();
        assert_eq!((roster.count(), roster.missing()), (3, 0));
    }
}
