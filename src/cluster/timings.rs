//! Histograms of durations. Sessions add without a lock; a scrape reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds, in microseconds. A connect takes 0.1 ms on a host, 1 ms in a building, 100 ms across an ocean, and 3 s at
/// most by default.
const CONNECT_US: &[u64] =
    &[100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 3_000_000];
/// A restart takes 0.1 s at best; `hold` is 10 s by default.
const HOLD_US: &[u64] = &[
    10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
    60_000_000,
];
/// From a connection with one request to one that a pool keeps for a day.
const DURATION_US: &[u64] =
    &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000, 600_000_000, 3_600_000_000, 86_400_000_000];

/// The histograms of one cluster.
#[derive(Debug)]
pub struct Timings {
    /// The duration of each successful connect.
    pub connect: Histogram,
    /// The total time that each held session was held.
    pub hold: Histogram,
    /// The duration of each session, from accepted to ended.
    pub duration: Histogram,
}

/// Counts of durations by bucket.
#[derive(Debug)]
pub struct Histogram {
    bounds_us: &'static [u64],
    /// One for each bound, and one for values above the last bound.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// The values of a histogram at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Each bound with the number of values not above it.
    pub up_to: Vec<(Duration, u64)>,
    /// The number of values.
    pub count: u64,
    /// The sum of the values.
    pub sum: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            connect: Histogram::new(CONNECT_US),
            hold: Histogram::new(HOLD_US),
            duration: Histogram::new(DURATION_US),
        }
    }
}

impl Timings {
    /// Counts a session that has ended. `hold` includes it only if it was held.
    pub fn ended(&self, duration: Duration, held: Duration) {
        self.duration.observe(duration);
        if !held.is_zero() {
            self.hold.observe(held);
        }
    }
}

impl Histogram {
    fn new(bounds_us: &'static [u64]) -> Histogram {
        let counts = (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds_us, counts, sum_us: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Returns the current values.
    pub fn read(&self) -> Reading {
        let sum = Duration::from_micros(self.sum_us.load(Relaxed));
        let mut count = 0;
        let mut up_to = Vec::with_capacity(self.bounds_us.len());
        for (n, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Relaxed);
            if let Some(bound) = self.bounds_us.get(n) {
                up_to.push((Duration::from_micros(*bound), count));
            }
        }
        Reading { up_to, count, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_counts_in_its_bucket_and_in_all_above() {
        let histogram = Histogram::new(&[10, 100]);
        for us in [1, 10, 11, 100, 101, 5_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let Reading { up_to, count, sum } = histogram.read();
        assert_eq!(up_to, [(Duration::from_micros(10), 2), (Duration::from_micros(100), 4)]);
        assert_eq!((count, sum), (6, Duration::from_micros(5_223)));
    }

    #[test]
    fn session_that_was_not_held_is_not_in_the_hold_histogram() {
        let timings = Timings::default();
        timings.ended(Duration::from_secs(1), Duration::ZERO);
        timings.ended(Duration::from_secs(1), Duration::from_millis(1));
        assert_eq!((timings.duration.read().count, timings.hold.read().count), (2, 1));
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [CONNECT_US, HOLD_US, DURATION_US] {
            assert!(bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
