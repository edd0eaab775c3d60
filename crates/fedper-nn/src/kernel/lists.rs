//! Lists of the values that are not zero in the gradient of what a 2x2 max-pool left: by the position that each came
//! from, or by its channel.

use std::ops::Range;

use super::simd::Simd;
use super::window::POSITIONS;
use super::{BLOCK, vectorised};

/// Lists of values and of what each belongs to.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    values: Vec<f32>,
    at: Vec<u32>,
    /// Where each list begins and ends.
    parts: Vec<[usize; 2]>,
    /// How many lists there are; further parts are of other lists.
    count: usize,
    /// All places are below it.
    reach: usize,
}

/// Values that are not zero, and the place that each belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    values: &'a [f32],
    at: &'a [u32],
    reach: usize,
}

impl<'a> List<'a> {
    #[cfg(test)]
    pub(crate) fn new(values: &'a [f32], at: &'a [u32]) -> Self {
        assert_eq!(values.len(), at.len());
        Self { values, at, reach: at.iter().max().map_or(0, |&at| at as usize + 1) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every place is below it.
    pub(crate) fn reach(&self) -> usize {
        self.reach
    }

    /// Values with their places.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (f32, usize)> + use<'a> {
        self.values.iter().zip(self.at).map(|(&value, &at)| (value, at as usize))
    }
}

impl Lists {
    /// With memory for `count` lists of `total` values in all, each of which may need a vector's room more.
    pub(crate) fn reserve(&mut self, count: usize, total: usize) {
        let len = total + count * BLOCK;
        self.values.resize(self.values.len().max(len), 0.0);
        self.at.resize(self.at.len().max(len), 0);
        self.parts.resize(self.parts.len().max(count), [0; 2]);
    }

    pub(crate) fn get(&self, list: usize) -> List<'_> {
        let [start, end] = self.parts[..self.count][list];
        List { values: &self.values[start..end], at: &self.at[start..end], reach: self.reach }
    }

    /// Writes those of 16 values that are in `mask` and not zero, and returns the end of what was written.
    ///
    /// # Safety
    /// The machine must have `S`.
    #[inline(always)]
    unsafe fn append<S: Simd>(
        &mut self,
        end: usize,
        values: &[f32; BLOCK],
        at: &[u32; BLOCK],
        mask: u16,
    ) -> usize {
        let (to_values, to_at) = (&mut self.values[end..end + BLOCK], &mut self.at[end..end + BLOCK]);
        // SAFETY: the caller has `S`; there is room for 16 of each.
        end + unsafe { S::compress(values, at, mask, to_values.as_mut_ptr(), to_at.as_mut_ptr()) }
    }
}

/// The gradient of what a pool left, and which of a window's positions each value came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pooled<'a> {
    /// `[block][window][sample][16]`
    pub(crate) dy: &'a [f32],
    pub(crate) winner: &'a [u8],
    /// From one block to the next.
    pub(crate) plane: usize,
    pub(crate) blocks: usize,
    pub(crate) windows: usize,
    pub(crate) samples: usize,
}

impl Pooled<'_> {
    #[inline(always)]
    fn row(&self, block: usize, window: usize, sample: usize) -> (&[f32; BLOCK], &[u8; BLOCK]) {
        let at = block * self.plane + (window * self.samples + sample) * BLOCK;
        (
            self.dy[at..].first_chunk().expect("whole rows"),
            self.winner[at..].first_chunk().expect("whole rows"),
        )
    }
}

vectorised! {
    /// A list for each window, sample of `group` and position, in this order: places are channels.
    pub(crate) fn list_by_position<S>(pooled: &Pooled<'_>, group: Range<usize>, lists: &mut Lists) {
        (lists.count, lists.reach) = (pooled.windows * group.len() * POSITIONS, pooled.blocks * BLOCK);
        let (mut list, mut end) = (0, 0);
        for window in 0..pooled.windows {
            for sample in group.clone() {
                // One list after the other, so that all of them take little of the cache.
                for position in 0..POSITIONS {
                    let start = end;
                    for block in 0..pooled.blocks {
                        let (dy, winner) = pooled.row(block, window, sample);
                        let at = std::array::from_fn(|lane| (block * BLOCK + lane) as u32);
                        end = lists.append::<S>(end, dy, &at, S::equal(winner, position as u8));
                    }
                    lists.parts[list] = [start, end];
                    list += 1;
                }
            }
        }
    }
}

/// Where positions lie in the samples' own images of one block of channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    /// The number of each window's first position.
    pub(crate) corners: &'a [usize],
    /// Positions in a row of an image.
    pub(crate) line: usize,
    /// From one image to the next.
    pub(crate) image: usize,
}

vectorised! {
    /// A list for each channel, over all windows and in them the samples of `group`: places are those of the positions.
    pub(crate) fn list_by_channel<S>(
        pooled: &Pooled<'_>,
        group: Range<usize>,
        places: Places<'_>,
        lists: &mut Lists,
    ) {
        let Places { corners, line, image } = places;
        let corners = &corners[..pooled.windows];
        let last = corners.iter().max().map_or(0, |corner| corner + line + 1) * BLOCK;
        let reach = last + group.len().saturating_sub(1) * image + 1;
        assert!(u32::try_from(reach).is_ok());
        (lists.count, lists.reach) = (pooled.blocks * BLOCK, reach);
        let room = pooled.windows * group.len() + BLOCK;
        for (channel, part) in lists.parts[..lists.count].iter_mut().enumerate() {
            *part = [channel * room; 2];
        }
        let (right, down) = (BLOCK as u32, (line * BLOCK) as u32);
        for block in 0..pooled.blocks {
            let mut rows = corners.iter().enumerate().flat_map(|(window, corner)| {
                group.clone().enumerate().map(move |(i, sample)| (window, sample, corner * BLOCK + i * image))
            });
            let mut left = pooled.windows * group.len();
            while left > 0 {
                // What is left of the tile stays zero and is not listed.
                let (mut values, mut at) = ([[0.0; BLOCK]; BLOCK], [[0; BLOCK]; BLOCK]);
                for ((values, at), (window, sample, corner)) in
                    values.iter_mut().zip(&mut at).zip(rows.by_ref().take(BLOCK))
                {
                    let (dy, winner) = pooled.row(block, window, sample);
                    *values = *dy;
                    for (at, &winner) in at.iter_mut().zip(winner) {
                        let winner = u32::from(winner);
                        *at = corner as u32 + (winner & 1) * right + (winner >> 1 & 1) * down;
                    }
                }
                left = left.saturating_sub(BLOCK);
                let (mut by_channel, mut places) = ([[0.0; BLOCK]; BLOCK], [[0; BLOCK]; BLOCK]);
                S::transpose(values.as_ptr().cast(), BLOCK, by_channel.as_mut_ptr().cast(), BLOCK);
                // Moved as they are, whatever they would be as floats.
                S::transpose(at.as_ptr().cast(), BLOCK, places.as_mut_ptr().cast(), BLOCK);
                for (lane, (values, at)) in by_channel.iter().zip(&places).enumerate() {
                    let channel = block * BLOCK + lane;
                    lists.parts[channel][1] = lists.append::<S>(lists.parts[channel][1], values, at, u16::MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    struct Case {
        dy: Vec<f32>,
        winner: Vec<u8>,
        pooled: [usize; 4],
    }

    impl Case {
        fn new(blocks: usize, windows: usize, samples: usize, gap: usize) -> Self {
            let plane = windows * samples * BLOCK + gap;
            let mut dy = noise(blocks * plane, 1);
            dy.iter_mut().step_by(3).for_each(|value| *value = 0.0);
            dy[1] = f32::NAN;
            let winner = noise(blocks * plane, 2).iter().map(|value| (value.to_bits() % 4) as u8).collect();
            Self { dy, winner, pooled: [plane, blocks, windows, samples] }
        }

        fn pooled(&self) -> Pooled<'_> {
            let [plane, blocks, windows, samples] = self.pooled;
            Pooled { dy: &self.dy, winner: &self.winner, plane, blocks, windows, samples }
        }

        /// Values that are not zero, as (window, sample, position, channel, value), channels first.
        fn values(&self) -> Vec<(usize, usize, usize, usize, f32)> {
            let [plane, blocks, windows, samples] = self.pooled;
            let mut all = Vec::new();
            for channel in 0..blocks * BLOCK {
                for window in 0..windows {
                    for sample in 0..samples {
                        let at =
                            channel / BLOCK * plane + (window * samples + sample) * BLOCK + channel % BLOCK;
                        if self.dy[at] != 0.0 {
                            all.push((window, sample, self.winner[at].into(), channel, self.dy[at]));
                        }
                    }
                }
            }
            all
        }
    }

    fn assert_same(found: List<'_>, expected: &[(f32, usize)]) {
        let found: Vec<(u32, usize)> = found.iter().map(|(value, at)| (value.to_bits(), at)).collect();
        let expected: Vec<(u32, usize)> = expected.iter().map(|&(value, at)| (value.to_bits(), at)).collect();
        assert_eq!(found, expected);
    }

    const SHAPES: [([usize; 3], Range<usize>); 5] =
        [([1, 1, 1], 0..1), ([2, 6, 5], 0..5), ([4, 16, 10], 8..10), ([3, 5, 7], 2..5), ([1, 33, 3], 1..1)];

    #[test]
    fn lists_by_position_hold_what_plain_loops_find() {
        for ([blocks, windows, samples], group) in SHAPES {
            let case = Case::new(blocks, windows, samples, 7);
            let mut lists = Lists::default();
            lists.reserve(windows * samples * POSITIONS, windows * samples * blocks * BLOCK);
            list_by_position(&case.pooled(), group.clone(), &mut lists);
            let values = case.values();
            for list in 0..windows * group.len() * POSITIONS {
                let (row, position) = (list / POSITIONS, list % POSITIONS);
                let (window, sample) = (row / group.len(), group.start + row % group.len());
                let here = values.iter().filter(|v| (v.0, v.1, v.2) == (window, sample, position));
                assert_same(lists.get(list), &here.map(|v| (v.4, v.3)).collect::<Vec<_>>());
                assert_eq!(lists.get(list).reach(), blocks * BLOCK);
            }
        }
    }

    #[test]
    fn lists_by_channel_hold_what_plain_loops_find() {
        for ([blocks, windows, samples], group) in SHAPES {
            let case = Case::new(blocks, windows, samples, 7);
            let corners: Vec<usize> = (0..windows).map(|window| window * window).collect();
            let (line, image) = (50, 100_000);
            let mut lists = Lists::default();
            lists.reserve(blocks * BLOCK, windows * samples * blocks * BLOCK);
            let places = Places { corners: &corners, line, image };
            list_by_channel(&case.pooled(), group.clone(), places, &mut lists);
            let values = case.values();
            for channel in 0..blocks * BLOCK {
                let here = values.iter().filter(|v| v.3 == channel && group.contains(&v.1));
                let place = |v: &(usize, usize, usize, usize, f32)| {
                    (corners[v.0] + v.2 % 2 + v.2 / 2 * line) * BLOCK + (v.1 - group.start) * image
                };
                let expected: Vec<(f32, usize)> = here.map(|v| (v.4, place(v))).collect();
                assert!(expected.iter().all(|&(_, at)| at < lists.get(channel).reach()));
                assert_same(lists.get(channel), &expected);
            }
        }
    }
}
