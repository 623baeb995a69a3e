//! Decides which endpoints to report as unreachable, and as reachable again. Pure.
//!
//! ```text
//!             fails                     answers                       REPORT_INTERVAL has passed
//!   reachable ─────► reported as unreachable ─────► reported as reachable ─────► reachable
//! ```
//!
//! An endpoint that flaps is reported at most once per [`REPORT_INTERVAL`], both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::reachability::Awaited;
use crate::ordered::CollectOrdered;

/// The minimum time between two reports that an endpoint is unreachable.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// A change to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutageReport {
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
    /// Updates the outages. `endpoints` must be all endpoints of the cluster, each with whether its connects fail; others are
    /// forgotten.
    pub(super) fn update(&mut self, now: Instant, endpoints: &[(&K, bool)]) -> Vec<(K, OutageReport)> {
        if !self.known.is_empty() {
            let present: BTreeSet<&K> = endpoints.iter().map(|(key, _)| *key).collect_ordered();
            self.known.retain(|key, outage| {
                present.contains(key) && !(outage.is_over && outage.quiet_until <= now)
            });
        }
        let mut reports = Vec::new();
        for (key, is_failing) in endpoints {
            match self.known.get_mut(*key) {
                None if *is_failing => {
                    let outage = Outage { is_over: false, quiet_until: now + REPORT_INTERVAL };
                    self.known.insert((*key).clone(), outage);
                    reports.push(((*key).clone(), OutageReport::Unreachable));
                }
                Some(outage) if !is_failing && !outage.is_over => {
                    outage.is_over = true;
                    reports.push(((*key).clone(), OutageReport::Reachable));
                }
                _ => {}
            }
        }
        reports
    }

    /// Returns when the next endpoint may be reported again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.known.values().filter(|outage| outage.is_over).map(|outage| outage.quiet_until).min()
    }

    /// Returns the event of an endpoint that requires the next update.
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
    fn flapping_endpoint_is_reported_once_per_interval() {
        let (mut outages, mut now) = (Outages::default(), Instant::now());
        assert_eq!(outages.update(now, &[(&"a", false)]), []);
        assert_eq!(outages.update(now, &[(&"a", true)]), [("a", OutageReport::Unreachable)]);
        assert_eq!(outages.update(now, &[(&"a", true)]), []);
        assert_eq!((outages.next(), outages.awaited(&"a")), (None, Awaited::Recovery));
        assert_eq!(outages.update(now, &[(&"a", false)]), [("a", OutageReport::Reachable)]);
        assert_eq!((outages.next(), outages.awaited(&"a")), (Some(now + REPORT_INTERVAL), Awaited::Nothing));
        for is_failing in [true, false, true] {
            now += REPORT_INTERVAL / 4;
            assert_eq!(outages.update(now, &[(&"a", is_failing)]), []);
        }
        now += REPORT_INTERVAL / 4;
        assert_eq!(
            outages.update(now, &[(&"a", true)]),
            [("a", OutageReport::Unreachable)],
            "it is still down"
        );
        now += REPORT_INTERVAL;
        assert_eq!(outages.update(now, &[(&"a", false)]), [("a", OutageReport::Reachable)]);
        assert_eq!(outages.update(now, &[]), []);
        assert_eq!(outages.awaited(&"a"), Awaited::Failure, "it was removed");
    }
}
