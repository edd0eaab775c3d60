//! Dealing a pool of samples to devices.

use std::ops::Range;

use fedper_core::seed::{self, Purpose, Random, SERVER};

/// What one device, or a pool, holds of each class: sample indices by label.
pub(super) type Hand = Vec<Vec<u32>>;

/// The federation's stream of this name.
pub(super) fn stream(seed: u64, name: &str) -> Random {
    seed::named(seed, Purpose::Partition, SERVER, 0, name)
}

/// The samples of `range` by label, ascending.
pub(super) fn by_class(labels: &[u16], range: Range<usize>, classes: usize) -> Hand {
    let mut hand = vec![Vec::new(); classes];
    for sample in range {
        hand[usize::from(labels[sample])].push(sample as u32);
    }
    hand
}

/// Which classes each device holds: `per_device` for device 0, then as many for device 1, and so on.
///
/// Device after device takes the classes that the fewest devices hold so far, at random among equals: so the numbers of
/// holders never differ by more than one, and a device never holds a class twice.
pub(super) fn holdings(classes: usize, devices: usize, per_device: usize, seed: u64) -> Vec<u16> {
    let mut rng = stream(seed, "classes");
    let mut holders = vec![0usize; classes];
    let mut held = Vec::with_capacity(devices * per_device);
    let mut order = Vec::with_capacity(classes);
    for _ in 0..devices {
        order.clear();
        order.extend(0..classes);
        seed::shuffle(&mut rng, &mut order);
        order.sort_by_key(|&class| holders[class]);
        for &class in &order[..per_device] {
            holders[class] += 1;
            held.push(class as u16);
        }
    }
    held
}

/// Deals `per_device` classes to each device ([`holdings`]) and each class's samples to its holders.
pub(super) fn classes(pool: Hand, devices: usize, per_device: usize, seed: u64) -> Vec<Hand> {
    let held = holdings(pool.len(), devices, per_device, seed);
    deal_by_weight(pool, devices, seed, "class", |class| {
        let holds = |held: &[u16]| held.iter().any(|&h| usize::from(h) == class);
        held.chunks(per_device).map(|held| if holds(held) { 1.0 } else { 0.0 }).collect()
    })
}

/// Deals all samples regardless of class, in equal numbers or one more.
pub(super) fn iid(
    labels: &[u16],
    range: Range<usize>,
    classes: usize,
    devices: usize,
    seed: u64,
) -> Vec<Hand> {
    let mut samples: Vec<u32> = range.map(|sample| sample as u32).collect();
    seed::shuffle(&mut stream(seed, "iid"), &mut samples);
    (0..devices)
        .map(|device| {
            let mut hand = vec![Vec::new(); classes];
            let bound = |device: usize| device * samples.len() / devices;
            for &sample in &samples[bound(device)..bound(device + 1)] {
                hand[usize::from(labels[sample as usize])].push(sample);
            }
            hand
        })
        .collect()
}

/// Deals the test pool so that of each class a device's share is its share of the train samples.
pub(super) fn follow(train: &[Hand], pool: Hand, seed: u64) -> Vec<Hand> {
    deal_by_weight(pool, train.len(), seed, "test class", |class| {
        train.iter().map(|hand| hand[class].len() as f64).collect()
    })
}

/// Deals each class's samples, shuffled, in proportion to its weights over the devices.
fn deal_by_weight(
    pool: Hand,
    devices: usize,
    seed: u64,
    name: &str,
    weights: impl Fn(usize) -> Vec<f64>,
) -> Vec<Hand> {
    let mut hands = vec![vec![Vec::new(); pool.len()]; devices];
    // What a device is owed of the classes dealt so far, so that it is not always the same ones that get less.
    let mut owed = vec![0.0; devices];
    for (class, mut samples) in pool.into_iter().enumerate() {
        let mut rng = stream(seed, &format!("{name} {class}"));
        seed::shuffle(&mut rng, &mut samples);
        let mut ties: Vec<usize> = (0..devices).collect();
        seed::shuffle(&mut rng, &mut ties);
        let mut rest = &samples[..];
        for (device, count) in
            apportion(samples.len(), &weights(class), &mut owed, &ties).into_iter().enumerate()
        {
            let (dealt, left) = rest.split_at(count);
            hands[device][class] = dealt.to_vec();
            rest = left;
        }
    }
    hands
}

/// Splits `total` in proportion to `weights`: each gets its quota rounded down, or one more. Who gets one more is
/// decided by what is owed from earlier calls, this one included, and among equals by their order in `ties`. Who has
/// weight 0 gets nothing; if all have, nobody gets anything.
pub(super) fn apportion(total: usize, weights: &[f64], owed: &mut [f64], ties: &[usize]) -> Vec<usize> {
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        return vec![0; weights.len()];
    }
    let quotas: Vec<f64> = weights.iter().map(|weight| weight * total as f64 / sum).collect();
    let mut counts: Vec<usize> = quotas.iter().map(|quota| *quota as usize).collect();
    owed.iter_mut().zip(&quotas).for_each(|(owed, quota)| *owed += quota.fract());
    let left = total - counts.iter().sum::<usize>();
    let mut order: Vec<usize> = ties.iter().copied().filter(|&i| weights[i] > 0.0).collect();
    order.sort_by(|&a, &b| {
        (quotas[b].fract() > 0.0).cmp(&(quotas[a].fract() > 0.0)).then(owed[b].total_cmp(&owed[a]))
    });
    for &i in &order[..left] {
        counts[i] += 1;
        owed[i] -= 1.0;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apportioning_by_hand() {
        let mut owed = [0.0; 3];
        assert_eq!(apportion(10, &[1.0, 1.0, 1.0], &mut owed, &[2, 0, 1]), [3, 3, 4]);
        assert_eq!(apportion(10, &[1.0, 1.0, 1.0], &mut owed, &[2, 0, 1]), [4, 3, 3]);
        assert_eq!(apportion(10, &[1.0, 1.0, 1.0], &mut owed, &[2, 0, 1]), [3, 4, 3]);
        let mut owed = [0.0; 4];
        assert_eq!(apportion(8, &[3.0, 0.0, 1.0, 4.0], &mut owed, &[0, 1, 2, 3]), [3, 0, 1, 4]);
        assert_eq!(apportion(1, &[0.0, 0.3, 0.0, 0.7], &mut owed, &[0, 1, 2, 3]), [0, 0, 0, 1]);
        assert_eq!(apportion(5, &[0.0; 4], &mut owed, &[0, 1, 2, 3]), [0; 4]);
    }
}
