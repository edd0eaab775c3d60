//! Which positions of the input each position of the output reads, tap by tap, with padding left out.

use std::ops::Range;

use crate::kernel::gemm::Start;

/// How windows lie over positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Height and width of the input.
    pub(crate) input: [usize; 2],
    /// Height and width of the kernel.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

/// A position that is read, and the tap through which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    pub(crate) from: usize,
    pub(crate) tap: usize,
}

/// Neighbouring positions that are written from the same taps: position `to + i` reads `from + i` of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) to: usize,
    pub(crate) len: usize,
    pub(crate) taps: Range<usize>,
}

/// Runs and the taps they refer to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    pub(crate) runs: Vec<Run>,
    pub(crate) taps: Vec<Tap>,
}

impl Walk {
    /// Every run with its taps, so many at a time, and what to start from: the first of a run from `start`, the others from
    /// what is there by then.
    pub(crate) fn sums(&self, at_most: usize, start: Start) -> impl Iterator<Item = (&Run, &[Tap], Start)> {
        self.runs.iter().flat_map(move |run| {
            let taps = &self.taps[run.taps.clone()];
            // A run without taps is written too.
            (0..taps.len().max(1)).step_by(at_most).map(move |first| {
                let start = if first == 0 { start } else { Start::Add };
                (run, &taps[first..taps.len().min(first + at_most)], start)
            })
        })
    }
}

/// For weight gradients: neighbouring positions `x + i`, `y + i` that a tap connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) x: usize,
    pub(crate) y: usize,
    pub(crate) len: usize,
}

/// All links of a window, by tap and then by row of outputs.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    links: Vec<Link>,
    /// Where those of each tap's each row begin, and the end.
    starts: Vec<usize>,
    rows: usize,
}

impl Links {
    /// Rows of outputs; 1 if links join across them.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The links of a tap from some rows of outputs.
    pub(crate) fn of(&self, tap: usize, rows: Range<usize>) -> &[Link] {
        &self.links[self.starts[tap * self.rows + rows.start]..self.starts[tap * self.rows + rows.end]]
    }
}

impl Window {
    pub(crate) fn output(&self) -> [usize; 2] {
        [0, 1].map(|d| (self.input[d] + 2 * self.padding - self.kernel[d]) / self.stride + 1)
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The input position that output position `(oh, ow)` reads through tap `(kh, kw)`, unless it is padding.
    fn read(&self, output: [usize; 2], tap: [usize; 2]) -> Option<usize> {
        let at = |d: usize| {
            (output[d] * self.stride + tap[d]).checked_sub(self.padding).filter(|&i| i < self.input[d])
        };
        Some(at(0)? * self.input[1] + at(1)?)
    }

    /// Every (output position, tap, input position), output-major.
    fn reads(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let (window, [height, width]) = (*self, self.output());
        (0..height * width).flat_map(move |to| {
            (0..window.taps()).filter_map(move |tap| {
                let from = window
                    .read([to / width, to % width], [tap / window.kernel[1], tap % window.kernel[1]])?;
                Some((to, tap, from))
            })
        })
    }

    /// The walk that computes outputs from inputs.
    pub(crate) fn forward(&self) -> Walk {
        let [height, width] = self.output();
        let mut by_position = vec![Vec::new(); height * width];
        for (to, tap, from) in self.reads() {
            by_position[to].push(Tap { from, tap });
        }
        merge(&by_position)
    }

    /// The walk that computes input gradients from output gradients: the same taps, the other way.
    pub(crate) fn backward(&self) -> Walk {
        let mut by_position = vec![Vec::new(); self.input[0] * self.input[1]];
        for (to, tap, from) in self.reads() {
            by_position[from].push(Tap { from: to, tap });
        }
        for taps in &mut by_position {
            taps.sort_by_key(|t: &Tap| t.tap);
        }
        merge(&by_position)
    }

    /// What weight gradients are summed over.
    pub(crate) fn links(&self) -> Links {
        let [height, width] = self.output();
        // With one tap, rows of outputs may join across the end of a row.
        let rows = if self.taps() == 1 { 1 } else { height };
        let mut lists = vec![Vec::<Link>::new(); self.taps() * rows];
        for (y, tap, x) in self.reads() {
            let list = &mut lists[tap * rows + y / width * rows / height];
            match list.last_mut() {
                Some(last) if last.x + last.len == x && last.y + last.len == y => last.len += 1,
                _ => list.push(Link { x, y, len: 1 }),
            }
        }
        let mut starts = vec![0];
        starts.extend(lists.iter().scan(0, |end, list| {
            *end += list.len();
            Some(*end)
        }));
        Links { links: lists.concat(), starts, rows }
    }
}

/// Joins neighbouring positions whose taps move along with them.
fn merge(by_position: &[Vec<Tap>]) -> Walk {
    let mut walk = Walk::default();
    for (to, taps) in by_position.iter().enumerate() {
        if let Some(last) = walk.runs.last_mut() {
            let previous = &walk.taps[last.taps.clone()];
            let follows = previous.len() == taps.len()
                && previous.iter().zip(taps).all(|(p, t)| p.tap == t.tap && p.from + last.len == t.from);
            if follows {
                last.len += 1;
                continue;
            }
        }
        let start = walk.taps.len();
        walk.taps.extend(taps);
        walk.runs.push(Run { to, len: 1, taps: start..walk.taps.len() });
    }
    walk
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(input: [usize; 2], kernel: [usize; 2], stride: usize, padding: usize) -> Window {
        Window { input, kernel, stride, padding }
    }

    #[test]
    fn a_pointwise_convolution_is_one_run() {
        let w = window([3, 5], [1, 1], 1, 0);
        assert_eq!(w.forward().runs, [Run { to: 0, len: 15, taps: 0..1 }]);
        assert_eq!(w.backward().runs, [Run { to: 0, len: 15, taps: 0..1 }]);
        assert_eq!(w.links().of(0, 0..1), [Link { x: 0, y: 0, len: 15 }]);
    }

    #[test]
    fn taps_on_padding_are_left_out() {
        // 1x1 input, 3x3 kernel, padding 1: only the middle tap remains.
        let w = window([1, 1], [3, 3], 1, 1);
        assert_eq!(w.forward().taps, [Tap { from: 0, tap: 4 }]);
        assert_eq!(w.links().of(4, 0..1), [Link { x: 0, y: 0, len: 1 }]);
        assert!((0..9).filter(|&tap| tap != 4).all(|tap| w.links().of(tap, 0..1).is_empty()));
    }

    #[test]
    fn every_walk_holds_the_same_reads() {
        for w in [
            window([5, 7], [3, 3], 1, 1),
            window([6, 4], [3, 2], 2, 1),
            window([5, 5], [5, 5], 1, 0),
            window([7, 3], [1, 1], 2, 0),
            window([2, 9], [3, 3], 3, 2),
        ] {
            let [height, width] = w.output();
            let mut expected = Vec::new();
            for to in 0..height * width {
                for tap in 0..w.taps() {
                    let row = (to / width * w.stride + tap / w.kernel[1]) as isize - w.padding as isize;
                    let col = (to % width * w.stride + tap % w.kernel[1]) as isize - w.padding as isize;
                    if (0..w.input[0] as isize).contains(&row) && (0..w.input[1] as isize).contains(&col) {
                        expected.push((to, tap, row as usize * w.input[1] + col as usize));
                    }
                }
            }
            let unroll = |walk: Walk| {
                let mut reads = Vec::new();
                for run in &walk.runs {
                    for i in 0..run.len {
                        reads.extend(
                            walk.taps[run.taps.clone()].iter().map(|t| (run.to + i, t.tap, t.from + i)),
                        );
                    }
                }
                reads
            };
            let sorted = |mut reads: Vec<(usize, usize, usize)>| {
                reads.sort_unstable();
                reads
            };
            assert_eq!(sorted(unroll(w.forward())), expected);
            let back = unroll(w.backward()).into_iter().map(|(x, tap, y)| (y, tap, x)).collect();
            assert_eq!(sorted(back), expected);
            let links = w.links();
            let reads = (0..w.taps())
                .flat_map(|tap| links.of(tap, 0..links.rows()).iter().map(move |link| (tap, link)))
                .flat_map(|(tap, l)| (0..l.len).map(move |i| (l.y + i, tap, l.x + i)))
                .collect();
            assert_eq!(sorted(reads), expected);
        }
    }
}
