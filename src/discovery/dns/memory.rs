//! What a name said last, and for how long that is believed. Pure: the clock is an argument.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::dns::{Limits, TTL_FLOOR};

impl Limits {
    /// How long after an answer to ask again.
    pub(super) fn pause(&self, ttl: Duration) -> Duration {
        ttl.min(self.max_ttl).max(TTL_FLOOR)
    }

    /// How long after a failure to ask again: not after the moment at which something known gets stale.
    pub(super) fn retry(&self, pause: Duration, known: &Families, now: Instant) -> Duration {
        let left = known.stale_at(self).map(|at| at.saturating_duration_since(now));
        left.map_or(pause, |left| pause.min(left)).max(TTL_FLOOR)
    }

    /// Whether what was said at `then` is no longer to be believed.
    fn is_stale(&self, then: Instant, now: Instant) -> bool {
        now.saturating_duration_since(then) >= self.stale
    }
}

/// When the servers began to deny something that they had answered before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Denial(Option<Instant>);

impl Denial {
    /// The first denial in a row counts. A failure in between changes nothing: the denial is the last answer.
    pub(super) fn begin(&mut self, now: Instant) {
        self.0.get_or_insert(now);
    }

    pub(super) fn is_over(self, limits: &Limits, now: Instant) -> bool {
        self.0.is_some_and(|at| now.saturating_duration_since(at) >= limits.nx_stale)
    }

    /// When what was denied is forgotten.
    pub(super) fn ends_at(self, limits: &Limits) -> Option<Instant> {
        self.0?.checked_add(limits.nx_stale)
    }
}

/// The addresses of one family, and when they were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    addresses: BTreeSet<IpAddr>,
    at: Option<Instant>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: Told,
    pub(super) v6: Told,
    pub(super) denial: Denial,
}

impl Told {
    pub(super) fn at(now: Instant, addresses: BTreeSet<IpAddr>) -> Told {
        Told { addresses, at: Some(now) }
    }

    fn forget_stale(&mut self, limits: &Limits, now: Instant) {
        if self.at.is_some_and(|at| limits.is_stale(at, now)) {
            *self = Told::default();
        }
    }

    /// `None`: there is nothing to be forgotten.
    fn stale_at(&self, limits: &Limits) -> Option<Instant> {
        self.at.filter(|_| !self.addresses.is_empty())?.checked_add(limits.stale)
    }
}

impl Families {
    pub(super) fn told(addresses: impl IntoIterator<Item = IpAddr>, now: Instant) -> Families {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Families { v4: Told::at(now, v4), v6: Told::at(now, v6), denial: Denial::default() }
    }

    pub(super) fn deny(&mut self, now: Instant) {
        self.denial.begin(now);
    }

    /// Sorted, each once.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.v4.addresses.iter().chain(&self.v6.addresses).copied().collect()
    }

    /// Forgets each family that nobody has told of for too long, and both once they have been denied for too long.
    pub(super) fn forget_stale(&mut self, limits: &Limits, now: Instant) {
        self.v4.forget_stale(limits, now);
        self.v6.forget_stale(limits, now);
        if self.denial.is_over(limits, now) {
            *self = Families::default();
        }
    }

    /// When the first of them is forgotten, if nobody tells of it until then. `None` without an address.
    pub(super) fn stale_at(&self, limits: &Limits) -> Option<Instant> {
        let first = self.v4.stale_at(limits).into_iter().chain(self.v6.stale_at(limits)).min()?;
        Some(self.denial.ends_at(limits).map_or(first, |at| at.min(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ttl_is_kept_between_a_second_and_the_ceiling() {
        let limits = Limits { max_ttl: 5 * SECOND, ..Limits::default() };
        for (ttl, pause) in [(0, 1), (1, 1), (3, 3), (5, 5), (600, 5), (u64::from(u32::MAX), 5)] {
            assert_eq!(limits.pause(Duration::from_secs(ttl)), Duration::from_secs(pause), "{ttl}");
        }
        let none = Limits { max_ttl: Duration::ZERO, ..limits };
        assert_eq!(none.pause(600 * SECOND), TTL_FLOOR);
    }

    #[test]
    fn a_family_that_nobody_tells_of_is_believed_for_a_while_and_the_other_stays() {
        let limits = Limits { stale: 10 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mut families = Families::told(ips(&["fd00::1", "10.0.0.1"]), begun);
        families.v6.at = Some(begun + 5 * SECOND);
        families.forget_stale(&limits, begun + 9 * SECOND);
        assert_eq!(families.addresses(), ips(&["10.0.0.1", "fd00::1"]));
        families.forget_stale(&limits, begun + 10 * SECOND);
        assert_eq!(families.addresses(), ips(&["fd00::1"]));
        families.forget_stale(&limits, begun + 15 * SECOND);
        assert_eq!(families, Families::default());
    }

    #[test]
    fn after_a_failure_a_name_is_asked_for_again_by_the_time_that_something_is_stale() {
        let limits = Limits { stale: 10 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let known = Families::told(["10.0.0.1".parse().unwrap()], begun);
        for (seconds, pause) in [(0, 5), (5, 5), (7, 3), (9, 1), (10, 1), (20, 1)] {
            let now = begun + seconds * SECOND;
            assert_eq!(limits.retry(5 * SECOND, &known, now), pause * SECOND, "{seconds}");
        }
        assert_eq!(limits.retry(5 * SECOND, &Families::told([], begun), begun + 9 * SECOND), 5 * SECOND);
    }

    #[test]
    fn denied_addresses_are_forgotten_after_the_short_hold() {
        let limits = Limits { stale: 60 * SECOND, nx_stale: 10 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let mut families = Families::told(["10.0.0.1".parse().unwrap()], begun);
        families.deny(begun + 5 * SECOND);
        families.deny(begun + 9 * SECOND);
        assert_eq!(families.stale_at(&limits), Some(begun + 15 * SECOND), "the first denial counts");
        families.forget_stale(&limits, begun + 14 * SECOND);
        assert_eq!(families.addresses().len(), 1);
        families.forget_stale(&limits, begun + 15 * SECOND);
        assert_eq!((families.addresses().len(), families.stale_at(&limits)), (0, None));
    }

    #[test]
    fn a_denial_does_not_keep_an_address_for_longer_than_a_failure_does() {
        let limits = Limits { stale: 10 * SECOND, nx_stale: 60 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let mut families = Families::told(["10.0.0.1".parse().unwrap()], begun);
        families.deny(begun + 5 * SECOND);
        assert_eq!(families.stale_at(&limits), Some(begun + 10 * SECOND));
    }

    #[test]
    fn nothing_is_believed_when_nothing_shall_be() {
        let limits = Limits { stale: Duration::ZERO, ..Limits::default() };
        let now = Instant::now();
        assert!(limits.is_stale(now, now));
    }
}
