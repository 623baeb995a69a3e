//! Slow start: an endpoint that is new, or well again, takes a growing part of the sessions that fall to it.
//!
//! Above any balancer: a choice that is not warm yet is passed over as often as it is cold, and stays in the order,
//! behind those that were not. So nothing is refused for the sake of slow start.

use std::time::Duration;

use super::chance::{below, mix};

/// As warm as can be.
pub const WARM: u32 = 1000;

/// Passed over in one pick, at most. When this many were cold, all are: then they are taken as they come.
const PASSED_MAX: usize = 16;

/// How warm an endpoint is that has been there for so long.
pub fn warmth(age: Duration, slow_start: Duration) -> u32 {
    if age >= slow_start {
        return WARM;
    }
    let part = age.as_nanos() * u128::from(WARM) / slow_start.as_nanos().max(1);
    u32::try_from(part).unwrap_or(WARM)
}

/// An order, and of it those that were passed over.
pub(super) struct Thinned<I> {
    order: I,
    luck: u64,
    passed: Vec<usize>,
    /// How many of `passed` were yielded. `None` while more may be passed over.
    yielded: Option<usize>,
}

impl<I: Iterator<Item = usize>> Thinned<I> {
    pub(super) fn new(order: I, luck: u64) -> Thinned<I> {
        Thinned { order, luck, passed: Vec::new(), yielded: None }
    }

    pub(super) fn next_of(&mut self, warmth: impl Fn(usize) -> u32) -> Option<usize> {
        while self.yielded.is_none() {
            match self.order.next() {
                Some(index) if self.is_passed_over(index, warmth(index)) => self.passed.push(index),
                Some(index) => return Some(index),
                None => self.yielded = Some(0),
            }
            if self.passed.len() == PASSED_MAX {
                self.yielded = Some(0);
            }
        }
        let yielded = self.yielded.as_mut()?;
        match self.passed.get(*yielded) {
            Some(index) => {
                *yielded += 1;
                Some(*index)
            }
            None => self.order.next(),
        }
    }

    /// As one endpoint warms, the lucky ones are always lucky still.
    fn is_passed_over(&self, index: usize, warmth: u32) -> bool {
        warmth < WARM && below(mix(self.luck ^ mix(index as u64)), u64::from(WARM)) >= u64::from(warmth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(luck: u64, count: usize, warmth: impl Fn(usize) -> u32) -> Vec<usize> {
        let mut thinned = Thinned::new(0..count, luck);
        std::iter::from_fn(|| thinned.next_of(&warmth)).collect()
    }

    #[test]
    fn warmth_grows_from_nothing_to_all() {
        let ten = Duration::from_secs(10);
        let at = |millis| warmth(Duration::from_millis(millis), ten);
        assert_eq!([0, 1, 10, 5_000, 9_999, 10_000, 99_999].map(at), [0, 0, 1, 500, 999, WARM, WARM]);
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), WARM);
    }

    #[test]
    fn what_is_cold_waits_behind_what_is_warm_and_is_there_still() {
        for luck in 0..50 {
            assert_eq!(order(luck, 3, |index| if index == 0 { 0 } else { WARM }), [1, 2, 0]);
            assert_eq!(order(luck, 3, |_| 0), [0, 1, 2], "all are cold: as they come");
            assert_eq!(order(luck, 40, |_| 0), (0..40).collect::<Vec<_>>());
            assert_eq!(order(luck, 3, |_| WARM), [0, 1, 2]);
        }
    }

    #[test]
    fn its_share_is_as_large_as_it_is_warm() {
        for warm in [100, 500, 900] {
            let firsts = (0..10_000u64)
                .filter(|luck| order(mix(*luck), 2, |index| if index == 0 { warm } else { WARM })[0] == 0);
            let share = firsts.count() as u64 / 10;
            assert!(share.abs_diff(u64::from(warm)) < 20, "{share} of {warm}");
        }
    }
}
