//! The last addresses of a name, and how long they are used. Pure: the clock is an argument.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::dns::{Limits, TTL_FLOOR};

impl Limits {
    /// Returns the pause after an answer.
    pub(super) fn pause(&self, ttl: Duration) -> Duration {
        ttl.min(self.max_ttl).max(TTL_FLOOR)
    }

    /// Returns the pause after a failure: not longer than until cached addresses expire.
    pub(super) fn retry(&self, pause: Duration, cached: &Families, now: Instant) -> Duration {
        let left = cached.expires_at(self).map(|at| at.saturating_duration_since(now));
        left.map_or(pause, |left| pause.min(left)).max(TTL_FLOOR)
    }

    /// Returns whether an answer of `then` has expired.
    fn is_stale(&self, then: Instant, now: Instant) -> bool {
        now.saturating_duration_since(then) >= self.stale
    }
}

/// The time since which the servers have denied a name that they had answered before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Denial(Option<Instant>);

impl Denial {
    /// Records a denial. The first of several counts, also if servers failed in between.
    pub(super) fn begin(&mut self, now: Instant) {
        self.0.get_or_insert(now);
    }

    pub(super) fn is_over(self, limits: &Limits, now: Instant) -> bool {
        self.0.is_some_and(|at| now.saturating_duration_since(at) >= limits.nx_stale)
    }

    /// Returns when the denied records are dropped.
    pub(super) fn ends_at(self, limits: &Limits) -> Option<Instant> {
        self.0?.checked_add(limits.nx_stale)
    }
}

/// The addresses of one family, and the time of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CachedAddresses {
    addresses: BTreeSet<IpAddr>,
    at: Option<Instant>,
}

/// The addresses of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: CachedAddresses,
    pub(super) v6: CachedAddresses,
    pub(super) denial: Denial,
}

impl CachedAddresses {
    pub(super) fn new(now: Instant, addresses: BTreeSet<IpAddr>) -> CachedAddresses {
        CachedAddresses { addresses, at: Some(now) }
    }

    fn expire(&mut self, limits: &Limits, now: Instant) {
        if self.at.is_some_and(|at| limits.is_stale(at, now)) {
            *self = CachedAddresses::default();
        }
    }

    /// Returns `None` if there is no address.
    fn expires_at(&self, limits: &Limits) -> Option<Instant> {
        self.at.filter(|_| !self.addresses.is_empty())?.checked_add(limits.stale)
    }
}

impl Families {
    pub(super) fn new(addresses: impl IntoIterator<Item = IpAddr>, now: Instant) -> Families {
        let (v4, v6) = addresses.into_iter().partition(IpAddr::is_ipv4);
        Families {
            v4: CachedAddresses::new(now, v4),
            v6: CachedAddresses::new(now, v6),
            denial: Denial::default(),
        }
    }

    pub(super) fn deny(&mut self, now: Instant) {
        self.denial.begin(now);
    }

    /// Returns the addresses, sorted.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        self.v4.addresses.iter().chain(&self.v6.addresses).copied().collect()
    }

    /// Drops each family that has expired, and both if they have been denied for too long.
    pub(super) fn expire(&mut self, limits: &Limits, now: Instant) {
        self.v4.expire(limits, now);
        self.v6.expire(limits, now);
        if self.denial.is_over(limits, now) {
            *self = Families::default();
        }
    }

    /// Returns when the first address expires, unless it is confirmed before. `None` without an address.
    pub(super) fn expires_at(&self, limits: &Limits) -> Option<Instant> {
        let first = self.v4.expires_at(limits).into_iter().chain(self.v6.expires_at(limits)).min()?;
        Some(self.denial.ends_at(limits).map_or(first, |at| at.min(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ttl_is_limited_to_a_second_and_the_maximum() {
        let limits = Limits { max_ttl: 5 * SECOND, ..Limits::default() };
        for (ttl, pause) in [(0, 1), (1, 1), (3, 3), (5, 5), (600, 5), (u64::from(u32::MAX), 5)] {
            assert_eq!(limits.pause(Duration::from_secs(ttl)), Duration::from_secs(pause), "{ttl}");
        }
        let none = Limits { max_ttl: Duration::ZERO, ..limits };
        assert_eq!(none.pause(600 * SECOND), TTL_FLOOR);
    }

    #[test]
    fn unconfirmed_family_expires_and_the_other_is_kept() {
        let limits = Limits { stale: 10 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let mut families = Families::new(ips(&["fd00::1", "10.0.0.1"]), begun);
        families.v6.at = Some(begun + 5 * SECOND);
        families.expire(&limits, begun + 9 * SECOND);
        assert_eq!(families.addresses(), ips(&["10.0.0.1", "fd00::1"]));
        families.expire(&limits, begun + 10 * SECOND);
        assert_eq!(families.addresses(), ips(&["fd00::1"]));
        families.expire(&limits, begun + 15 * SECOND);
        assert_eq!(families, Families::default());
    }

    #[test]
    fn retry_after_a_failure_is_not_later_than_the_expiry() {
        let limits = Limits { stale: 10 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let known = Families::new(["10.0.0.1".parse().unwrap()], begun);
        for (seconds, pause) in [(0, 5), (5, 5), (7, 3), (9, 1), (10, 1), (20, 1)] {
            let now = begun + seconds * SECOND;
            assert_eq!(limits.retry(5 * SECOND, &known, now), pause * SECOND, "{seconds}");
        }
        assert_eq!(limits.retry(5 * SECOND, &Families::new([], begun), begun + 9 * SECOND), 5 * SECOND);
    }

    #[test]
    fn denied_addresses_expire_after_nx_stale() {
        let limits = Limits { stale: 60 * SECOND, nx_stale: 10 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let mut families = Families::new(["10.0.0.1".parse().unwrap()], begun);
        families.deny(begun + 5 * SECOND);
        families.deny(begun + 9 * SECOND);
        assert_eq!(families.expires_at(&limits), Some(begun + 15 * SECOND), "the first denial counts");
        families.expire(&limits, begun + 14 * SECOND);
        assert_eq!(families.addresses().len(), 1);
        families.expire(&limits, begun + 15 * SECOND);
        assert_eq!((families.addresses().len(), families.expires_at(&limits)), (0, None));
    }

    #[test]
    fn denial_does_not_extend_the_expiry() {
        let limits = Limits { stale: 10 * SECOND, nx_stale: 60 * SECOND, ..Limits::default() };
        let begun = Instant::now();
        let mut families = Families::new(["10.0.0.1".parse().unwrap()], begun);
        families.deny(begun + 5 * SECOND);
        assert_eq!(families.expires_at(&limits), Some(begun + 10 * SECOND));
    }

    #[test]
    fn without_stale_time_addresses_expire_at_once() {
        let limits = Limits { stale: Duration::ZERO, ..Limits::default() };
        let now = Instant::now();
        assert!(limits.is_stale(now, now));
    }
}
