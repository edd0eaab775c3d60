//! The machine's cores, for work that needs no network of its own.

use fedper_core::cores::{Cores, Piece};

/// How many cores this process may use.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// `count` cores to lend.
pub fn lend(count: usize) -> Cores {
    Cores::new(count, at_once)
}

/// The first piece on this thread, the others on one thread each.
fn at_once(pieces: Vec<Piece<'_>>) {
    let mut pieces = pieces.into_iter();
    let own = pieces.next();
    std::thread::scope(|scope| {
        for piece in pieces {
            scope.spawn(piece);
        }
        if let Some(piece) = own {
            piece();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn pieces_are_done_at_once() {
        for count in [0, 1, 2, 5] {
            // Each waits for all the others: one by one they would wait for ever.
            let barrier = Barrier::new(count);
            let mut done = vec![false; count];
            lend(count).each(done.iter_mut(), |done| {
                barrier.wait();
                *done = true;
            });
            assert!(done.iter().all(|&done| done), "{count}");
        }
    }
}
