//! Slow start: an endpoint that is new, or has recovered, takes a growing part of its share of sessions. Pure.
//!
//! It wraps any algorithm. A choice that is not warm yet is deferred with a probability that decreases as it warms up, and
//! follows after the warm ones. No session is refused because of slow start.

use std::time::Duration;

use super::rng::{below, mix};

/// The warmth of an endpoint that takes its full share.
pub const WARM: u32 = 1000;

/// The maximum number of choices deferred in one pick. When that many are cold, all are assumed to be, and are taken in order.
const DEFERRED_MAX: usize = 16;

/// Returns the warmth of an endpoint of this age, of [`WARM`].
pub fn warmth(age: Duration, slow_start: Duration) -> u32 {
    if age >= slow_start {
        return WARM;
    }
    let part = age.as_nanos() * u128::from(WARM) / slow_start.as_nanos().max(1);
    u32::try_from(part).unwrap_or(WARM)
}

/// An order whose cold endpoints are deferred.
pub(super) struct SlowStart<I> {
    order: I,
    seed: u64,
    deferred: Vec<usize>,
    /// How many of `deferred` were yielded. `None` while more may be deferred.
    yielded: Option<usize>,
}

impl<I: Iterator<Item = usize>> SlowStart<I> {
    pub(super) fn new(order: I, seed: u64) -> SlowStart<I> {
        SlowStart { order, seed, deferred: Vec::new(), yielded: None }
    }

    pub(super) fn next_of(&mut self, warmth: impl Fn(usize) -> u32) -> Option<usize> {
        while self.yielded.is_none() {
            match self.order.next() {
                Some(index) if self.is_deferred(index, warmth(index)) => self.deferred.push(index),
                Some(index) => return Some(index),
                None => self.yielded = Some(0),
            }
            if self.deferred.len() == DEFERRED_MAX {
                self.yielded = Some(0);
            }
        }
        let yielded = self.yielded.as_mut()?;
        match self.deferred.get(*yielded) {
            Some(index) => {
                *yielded += 1;
                Some(*index)
            }
            None => self.order.next(),
        }
    }

    /// For a given seed this is monotonic: an endpoint that is not deferred stays so as it warms up.
    fn is_deferred(&self, index: usize, warmth: u32) -> bool {
        warmth < WARM && below(mix(self.seed ^ mix(index as u64)), u64::from(WARM)) >= u64::from(warmth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u64, count: usize, warmth: impl Fn(usize) -> u32) -> Vec<usize> {
        let mut slow_start = SlowStart::new(0..count, seed);
        std::iter::from_fn(|| slow_start.next_of(&warmth)).collect()
    }

    #[test]
    fn warmth_grows_from_zero_to_full() {
        let ten = Duration::from_secs(10);
        let at = |millis| warmth(Duration::from_millis(millis), ten);
        assert_eq!([0, 1, 10, 5_000, 9_999, 10_000, 99_999].map(at), [0, 0, 1, 500, 999, WARM, WARM]);
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), WARM);
    }

    #[test]
    fn cold_endpoints_follow_warm_ones() {
        for seed in 0..50 {
            assert_eq!(order(seed, 3, |index| if index == 0 { 0 } else { WARM }), [1, 2, 0]);
            assert_eq!(order(seed, 3, |_| 0), [0, 1, 2], "all are cold: in order");
            assert_eq!(order(seed, 40, |_| 0), (0..40).collect::<Vec<_>>());
            assert_eq!(order(seed, 3, |_| WARM), [0, 1, 2]);
        }
    }

    #[test]
    fn share_is_proportional_to_warmth() {
        for warm in [100, 500, 900] {
            let firsts = (0..10_000u64)
                .filter(|seed| order(mix(*seed), 2, |index| if index == 0 { warm } else { WARM })[0] == 0);
            let share = firsts.count() as u64 / 10;
            assert!(share.abs_diff(u64::from(warm)) < 20, "{share} of {warm}");
        }
    }
}
