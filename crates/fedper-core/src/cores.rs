//! Cores that the caller lends: this crate starts no thread.

/// A piece of work; it writes nothing that another of the same list reads or writes.
pub type Piece<'a> = Box<dyn FnOnce() + Send + 'a>;

/// How many cores there are, and how work gets there. Results do not depend on either, bit for bit.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    count: usize,
    run: fn(Vec<Piece<'_>>),
}

impl Cores {
    /// The caller's own core.
    pub const ONE: Self = Self { count: 1, run: one_by_one };

    /// `run` does every piece of a list, at once or one by one, before it returns. It gets at most `count` of them; no more
    /// than one is useful where `count` is 0 or 1.
    pub fn new(count: usize, run: fn(Vec<Piece<'_>>)) -> Self {
        Self { count: count.max(1), run }
    }

    /// How many values each core gets of `all`, if fewer than `least` are not worth a core of their own; at least 1.
    pub(crate) fn share(self, all: usize, least: usize) -> usize {
        all.div_ceil(self.count.min(all / least).max(1)).max(1)
    }

    /// Does `work` on every part.
    pub fn each<T: Send>(self, parts: impl Iterator<Item = T>, work: impl Fn(T) + Sync) {
        let work = &work;
        (self.run)(parts.map(|part| Box::new(move || work(part)) as Piece<'_>).collect());
    }
}

fn one_by_one(pieces: Vec<Piece<'_>>) {
    pieces.into_iter().for_each(|piece| piece());
}
