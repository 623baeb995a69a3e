//! Which endpoints to report as unreachable, and as reachable again. Pure.
//!
//! ```text
//!            fails                     answers, then PAIR from the report on
//!   in reach ─────► reported as unreachable ─────► reported as reachable ─────► in reach
//! ```
//!
//! An endpoint that flaps is reported once in [`PAIR`] at most, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::reach::Awaited;

/// From one report that an endpoint is unreachable to the next.
const PAIR: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Unreachable,
    Reachable,
}

#[derive(Debug)]
struct Outage {
    is_over: bool,
    quiet_until: Instant,
}

/// The endpoints that were reported, by key.
#[derive(Debug)]
pub(super) struct Outages<K> {
    known: BTreeMap<K, Outage>,
}

impl<K> Default for Outages<K> {
    fn default() -> Outages<K> {
        Outages { known: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Outages<K> {
    /// Looks at all endpoints of the cluster, and only those: others are forgotten. Each with whether its connects fail.
    pub(super) fn judge(&mut self, now: Instant, seen: &[(&K, bool)]) -> Vec<(K, Report)> {
        if !self.known.is_empty() {
            let there: BTreeSet<&K> = seen.iter().map(|(key, _)| *key).collect();
            self.known
                .retain(|key, outage| there.contains(key) && !(outage.is_over && outage.quiet_until <= now));
        }
        let mut reports = Vec::new();
        for (key, is_failing) in seen {
            match self.known.get_mut(*key) {
                None if *is_failing => {
                    let outage = Outage { is_over: false, quiet_until: now + PAIR };
                    self.known.insert((*key).clone(), outage);
                    reports.push(((*key).clone(), Report::Unreachable));
                }
                Some(outage) if !is_failing && !outage.is_over => {
                    outage.is_over = true;
                    reports.push(((*key).clone(), Report::Reachable));
                }
                _ => {}
            }
        }
        reports
    }

    /// When the next endpoint may be reported again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().filter(|outage| outage.is_over).map(|outage| outage.quiet_until).min()
    }

    pub(super) fn awaited(&self, key: &K) -> Awaited {
        match self.known.get(key) {
            None => Awaited::Failure,
            Some(Outage { is_over: false, .. }) => Awaited::Recovery,
            Some(Outage { is_over: true, .. }) => Awaited::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_flaps_is_reported_once_in_a_while() {
        let (mut outages, mut now) = (Outages::default(), Instant::now());
        assert_eq!(outages.judge(now, &[(&"a", false)]), []);
        assert_eq!(outages.judge(now, &[(&"a", true)]), [("a", Report::Unreachable)]);
        assert_eq!(outages.judge(now, &[(&"a", true)]), []);
        assert_eq!((outages.next(), outages.awaited(&"a")), (None, Awaited::Recovery));
        assert_eq!(outages.judge(now, &[(&"a", false)]), [("a", Report::Reachable)]);
        assert_eq!((outages.next(), outages.awaited(&"a")), (Some(now + PAIR), Awaited::Nothing));
        for is_failing in [true, false, true] {
            now += PAIR / 4;
            assert_eq!(outages.judge(now, &[(&"a", is_failing)]), []);
        }
        now += PAIR / 4;
        assert_eq!(outages.judge(now, &[(&"a", true)]), [("a", Report::Unreachable)], "it is down still");
        now += PAIR;
        assert_eq!(outages.judge(now, &[(&"a", false)]), [("a", Report::Reachable)]);
        assert_eq!(outages.judge(now, &[]), []);
        assert_eq!(outages.awaited(&"a"), Awaited::Failure, "it has left");
    }
}
