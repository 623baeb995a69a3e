//! How long things took, counted into buckets. No lock: a session adds, a scrape reads.

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
/// From a request on a connection of its own to a connection pool's day.
const DURATION_US: &[u64] =
    &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000, 600_000_000, 3_600_000_000, 86_400_000_000];

/// Of the sessions of one cluster.
#[derive(Debug)]
pub struct Timings {
    /// Connects that succeeded.
    pub connect: Histogram,
    /// Sessions that were held, for how long all in all.
    pub hold: Histogram,
    /// All sessions, from accepted to ended.
    pub duration: Histogram,
}

#[derive(Debug)]
pub struct Histogram {
    bounds_us: &'static [u64],
    /// One for each bound, and one for what is above all.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// A histogram as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Each bound with the number of values up to it.
    pub up_to: Vec<(Duration, u64)>,
    pub count: u64,
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
    /// Counts a session that ended. One that was never held is not in the histogram of those that were.
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

    pub fn observe(&self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_us.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

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
    fn a_value_is_in_its_bucket_and_in_all_above() {
        let histogram = Histogram::new(&[10, 100]);
        for us in [1, 10, 11, 100, 101, 5_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let Reading { up_to, count, sum } = histogram.read();
        assert_eq!(up_to, [(Duration::from_micros(10), 2), (Duration::from_micros(100), 4)]);
        assert_eq!((count, sum), (6, Duration::from_micros(5_223)));
    }

    #[test]
    fn who_was_not_held_is_not_in_the_histogram_of_those_who_were() {
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
