//! The server's average: bases of many devices, one after the other, through the real aggregator.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use fedper_core::aggregate::Aggregator;
use fedper_core::params::{Layout, Params};
use fedper_core::round::DeviceId;
use serde::Serialize;

use super::{Figures, median};
use crate::cores;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `seconds` is the time of one whole average: taking in every device's base, and the division at the end, without
    /// `release_seconds`. `workers` is the number of cores, all of which the aggregator uses for large bases.
    #[serde(flatten)]
    pub figures: Figures,
    /// Bytes of one device's base.
    pub base_bytes: u64,
    /// How many devices' bases were averaged.
    pub devices: u64,
    /// Seconds that giving the memory of all bases back to the system takes, which the aggregator does on the way.
    pub release_seconds: f64,
    /// 10^9 bytes of base parameters averaged per second.
    pub gigabytes_per_second: f64,
    /// 10^9 bytes read and written per second when as many threads copy the same bases (`memcpy`), each its part: every
    /// byte counts twice.
    pub copy_gigabytes_per_second: f64,
    /// Time of copying every base once / time of averaging them: 1 if averaging is as fast as a plain copy.
    pub copy_ratio: f64,
}

/// Averages `devices` copies of `base`, `rounds` times.
///
/// Bases come one by one; making one is not in the time. Each is first copied into a buffer, for comparison, so that both
/// times see the same state of machine and memory. What giving a base's memory back takes is measured on every tenth.
///
/// # Panics
/// If `base` is empty, or there is no device or round.
pub fn measure(base: &Params, devices: u64, rounds: u32) -> Report {
    let layout: &Arc<Layout> = base.layout();
    let workers = cores::available();
    let lent = cores::lend(workers);
    let share = base.values().len().div_ceil(workers);
    let mut buffer = base.values().to_vec();
    let mut averaging = Vec::new();
    let mut copying = Vec::new();
    let mut releasing = Vec::new();
    for _ in 0..rounds {
        let (mut average, mut copy) = (0.0, 0.0);
        let (seconds, mut aggregator) =
            timed(|| Aggregator::new(layout.clone(), (0..devices).map(DeviceId)).on(lent));
        average += seconds;
        for device in 0..devices {
            if device % 10 == 0 {
                let twin = base.clone();
                releasing.push(timed(|| drop(twin)).0);
            }
            let answer = base.clone();
            let parts = black_box(&mut buffer).chunks_mut(share).zip(answer.values().chunks(share));
            copy += timed(|| lent.each(parts, |(to, from): (&mut [f32], &[f32])| to.copy_from_slice(from))).0;
            average += timed(|| aggregator.add(DeviceId(device), answer, 500.0)).0;
        }
        let (seconds, mean) = timed(|| aggregator.finish());
        average += seconds;
        assert!(mean.as_ref() == Some(base), "the mean of equal bases is that base");
        averaging.push(average);
        copying.push(copy);
    }
    let release_seconds = devices as f64 * median(releasing);
    averaging.iter_mut().for_each(|seconds| *seconds -= release_seconds);
    let ratios = copying.iter().zip(&averaging).map(|(copy, average)| copy / average).collect();
    let base_bytes = 4 * layout.numel() as u64;
    let gigabytes = (base_bytes * devices) as f64 / 1e9;
    let seconds = median(averaging);
    Report {
        figures: Figures {
            images_per_second: None,
            gflops_nominal: None,
            seconds,
            workers,
            peak_rss_bytes: crate::rundir::peak_rss_bytes(),
        },
        base_bytes,
        devices,
        release_seconds,
        gigabytes_per_second: gigabytes / seconds,
        copy_gigabytes_per_second: 2.0 * gigabytes / median(copying),
        copy_ratio: median(ratios),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}
