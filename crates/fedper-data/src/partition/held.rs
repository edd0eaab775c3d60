//! A partition as it is kept: each device's samples when somebody asks for them.

use std::borrow::Cow;

use super::Shard;
use super::deal::Hand;
use super::draw::Drawn;
use super::split;

/// The samples of every device.
///
/// Where devices hold all that they were dealt, their samples are listed: no more than the dataset has. Where each holds
/// a number of its own, they are derived from the seed whenever they are asked for, so that many devices cost little.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    kind: Kind,
    note: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Listed(Vec<Shard>),
    Capped(Capped),
    Drawn(Drawn),
}

/// What devices were dealt, of which each takes a number of samples.
#[derive(Clone, Debug, PartialEq)]
struct Capped {
    train: Hands,
    test: Hands,
    cap: usize,
    even: bool,
    seed: u64,
}

/// Every device's hand in one array.
#[derive(Clone, Debug, PartialEq)]
struct Hands {
    samples: Vec<u32>,
    /// Where device d's samples of class c end: at `d * classes + c`.
    ends: Vec<usize>,
    classes: usize,
}

impl Hands {
    fn new(hands: &[Hand]) -> Self {
        let classes = hands.first().map_or(0, Vec::len);
        let mut samples = Vec::with_capacity(hands.iter().flatten().map(Vec::len).sum());
        let mut ends = Vec::with_capacity(hands.len() * classes);
        for class in hands.iter().flatten() {
            samples.extend_from_slice(class);
            ends.push(samples.len());
        }
        Self { samples, ends, classes }
    }

    fn len(&self) -> usize {
        self.ends.len() / self.classes.max(1)
    }

    fn hand(&self, device: usize) -> Hand {
        let first = device * self.classes;
        let mut from = if first == 0 { 0 } else { self.ends[first - 1] };
        let ends = self.ends[first..first + self.classes].iter();
        ends.map(|&to| self.samples[std::mem::replace(&mut from, to)..to].to_vec()).collect()
    }
}

impl Partition {
    fn of(kind: Kind) -> Self {
        Self { kind, note: None }
    }

    /// The same, with something to say about it.
    pub(super) fn noting(self, note: Option<String>) -> Self {
        Self { note, ..self }
    }

    /// What a reader should know who takes the options at their word.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// These samples, one shard a device.
    pub fn new(shards: Vec<Shard>) -> Self {
        Self::of(Kind::Listed(shards))
    }

    /// All that each device was dealt, or `cap` train samples of it.
    pub(super) fn dealt(
        mut train: Vec<Hand>,
        mut test: Vec<Hand>,
        cap: Option<usize>,
        even: bool,
        seed: u64,
    ) -> Self {
        if let Some(cap) = cap {
            let (train, test) = (Hands::new(&train), Hands::new(&test));
            return Self::of(Kind::Capped(Capped { train, test, cap, even, seed }));
        }
        let shard = |(device, (train, test))| split::shard(train, test, None, even, seed, device);
        Self::new(train.iter_mut().zip(&mut test).enumerate().map(shard).collect())
    }

    pub(super) fn drawn(drawn: Drawn) -> Self {
        Self::of(Kind::Drawn(drawn))
    }

    /// How many devices there are.
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::Listed(shards) => shards.len(),
            Kind::Capped(capped) => capped.train.len(),
            Kind::Drawn(drawn) => drawn.devices,
        }
    }

    /// Whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples of one device. Takes time in proportion to what it was dealt.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn shard(&self, device: usize) -> Cow<'_, Shard> {
        match &self.kind {
            Kind::Listed(shards) => Cow::Borrowed(&shards[device]),
            Kind::Capped(Capped { train, test, cap, even, seed }) => Cow::Owned(split::shard(
                &mut train.hand(device),
                &mut test.hand(device),
                Some(*cap),
                *even,
                *seed,
                device,
            )),
            Kind::Drawn(drawn) => Cow::Owned(drawn.shard(device)),
        }
    }

    /// The samples of every device, in order.
    pub fn shards(&self) -> impl Iterator<Item = Cow<'_, Shard>> {
        (0..self.len()).map(|device| self.shard(device))
    }

    /// How many samples a device trains on, without making them.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn train_len(&self, device: usize) -> usize {
        assert!(device < self.len(), "there is no device {device}");
        match &self.kind {
            Kind::Listed(shards) => shards[device].train.len(),
            Kind::Capped(capped) => capped.cap,
            Kind::Drawn(drawn) => drawn.samples,
        }
    }

    /// Whether each device drew its own from the whole dataset, so that several may hold one sample.
    pub fn shares_samples(&self) -> bool {
        matches!(self.kind, Kind::Drawn(_))
    }
}
