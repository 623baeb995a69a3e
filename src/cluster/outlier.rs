//! Outlier detection: ejects endpoints whose sessions fail. Pure; counts and the clock are arguments.
//!
//! ```text
//!             failures or resets in a row, and below the ejection limit
//!       in ─────────────────────────────────────────────────────────────► ejected
//!        ▲                                                                   │
//!        └──── the ejection time has passed; or the endpoint answered ───────┘
//!              or too few endpoints are left
//! ```

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::client_net::ClientNet;
use crate::ending::Ending;
use crate::ordered::CollectOrdered;
use crate::route::Protocol;

/// Consecutive failures that eject an endpoint. A single refusal may be coincidence, and a restart causes fewer.
pub(crate) const FAILURES_MAX: u32 = 5;

/// A session that its endpoint resets within this time, without a byte, counts as not served.
const INSTANT: Duration = Duration::from_secs(1);

/// The time of the first ejection. The second is twice as long, the third three times. Shorter than Envoy's 30 s, because a
/// session is retried on another endpoint at once and an early attempt costs little.
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// The default limit of ejected endpoints, in percent: with more, the remaining ones may break under the load of the others.
pub const MAX_EJECTED_DEFAULT: u8 = 50;

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It refuses connections.
    Refused,
    /// It accepts connections and resets them at once.
    Reset,
}

/// The outcome of a session that was connected to an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The protocol of the session.
    pub protocol: Protocol,
    /// Why the session ended.
    pub ending: Ending,
    /// Bytes relayed to the endpoint.
    pub bytes_up: u64,
    /// Bytes relayed to the client.
    pub bytes_down: u64,
    /// The time since the session was connected.
    pub lasted: Duration,
    /// The client's network. `None` for a unix socket.
    pub client: Option<ClientNet>,
    /// Whether the client had closed its side, or vanished, before the end.
    pub client_left: bool,
}

/// What an outcome shows about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The endpoint served the session.
    Served,
    /// The endpoint reset the session although the client had neither sent a byte nor left. Counts once per client, because a
    /// failure that affects a single client may be caused by it.
    ResetOn(Option<ClientNet>),
    /// The endpoint's host refused a datagram (ICMP), which is equivalent to a refused connect. Counts each time.
    Unreachable,
}

/// Consecutive failures of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    /// Failed connects since the last successful one.
    pub failures: u32,
    /// Sessions of different clients that were reset at once, since the last one that was served.
    pub resets: u32,
}

/// A change of an endpoint's ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusChange {
    /// The endpoint is ejected for this time.
    Ejected {
        /// Why it is ejected.
        cause: Cause,
        /// How long it stays ejected.
        time: Duration,
    },
    /// The endpoint takes sessions again.
    Returned,
}

/// The outliers of one cluster, whose endpoints are identified by `K`.
#[derive(Debug)]
pub(crate) struct Outliers<K> {
    max_percent: u8,
    /// Endpoints that are or were ejected.
    known: BTreeMap<K, Outlier>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outlier {
    /// Why it is ejected, and until when.
    ejected: Option<(Cause, Instant)>,
    /// Consecutive ejections.
    ejections: u32,
    /// The end of its last ejection.
    returned: Option<Instant>,
}

impl<K: Ord + Clone> Outliers<K> {
    /// Creates a detector that ejects at most `max_percent` of the endpoints.
    pub(crate) fn new(max_percent: u8) -> Outliers<K> {
        Outliers { max_percent, known: BTreeMap::new() }
    }

    /// Updates the ejections. `endpoints` must be all endpoints of the cluster; others are forgotten.
    pub(crate) fn update<Q: Borrow<K>>(
        &mut self,
        now: Instant,
        endpoints: &[(Q, Streak)],
    ) -> Vec<(K, StatusChange)> {
        let mut changes = Vec::new();
        // Skipped in the usual case, where no endpoint was ever ejected.
        if !self.known.is_empty() {
            let present: BTreeSet<&K> = endpoints.iter().map(|(key, _)| key.borrow()).collect_ordered();
            self.known.retain(|key, _| present.contains(key));
            changes.extend(self.end_ejections(now, endpoints));
            changes.extend(self.enforce_limit(now, endpoints.len()));
        }
        changes.extend(self.eject(now, endpoints));
        changes
    }

    /// Returns why an endpoint is ejected, if it is.
    pub(crate) fn ejected(&self, key: &K) -> Option<Cause> {
        self.known.get(key)?.ejected.map(|(cause, _)| cause)
    }

    /// Returns when the next ejection ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.known.values().filter_map(|outlier| outlier.ejected).map(|(_, until)| until).min()
    }

    fn end_ejections<Q: Borrow<K>>(
        &mut self,
        now: Instant,
        endpoints: &[(Q, Streak)],
    ) -> Vec<(K, StatusChange)> {
        let mut changes = Vec::new();
        for (key, streak) in endpoints {
            let key = key.borrow();
            let Some(outlier) = self.known.get_mut(key) else { continue };
            let is_over = match outlier.ejected {
                Some((Cause::Refused, _)) if streak.failures < FAILURES_MAX => true,
                Some((_, until)) => until <= now,
                None => false,
            };
            if is_over {
                outlier.end_ejection(now);
                changes.push((key.clone(), StatusChange::Returned));
            }
        }
        changes
    }

    /// Ends the ejections that would end next, while more endpoints are ejected than the limit allows after others have left.
    fn enforce_limit(&mut self, now: Instant, count: usize) -> Vec<(K, StatusChange)> {
        let mut changes = Vec::new();
        while self.ejected_count() > self.ejected_max(count) {
            let ejected = self.known.iter_mut().filter_map(|(key, outlier)| {
                let (_, until) = outlier.ejected?;
                Some((until, key, outlier))
            });
            let Some((_, key, outlier)) = ejected.min_by_key(|(until, ..)| *until) else { break };
            outlier.end_ejection(now);
            changes.push((key.clone(), StatusChange::Returned));
        }
        changes
    }

    fn eject<Q: Borrow<K>>(&mut self, now: Instant, endpoints: &[(Q, Streak)]) -> Vec<(K, StatusChange)> {
        let mut remaining = self.ejected_max(endpoints.len()).saturating_sub(self.ejected_count());
        let mut changes = Vec::new();
        for (key, streak) in endpoints {
            let Some(cause) = streak.cause().filter(|_| remaining > 0) else { continue };
            let key = key.borrow();
            // An endpoint that returned in this update is not ejected again before it was tried.
            let is_exempt = |outlier: &Outlier| outlier.ejected.is_some() || outlier.returned == Some(now);
            if self.known.get(key).is_some_and(is_exempt) {
                continue;
            }
            let outlier = self.known.entry(key.clone()).or_default();
            remaining -= 1;
            let time = outlier.eject(cause, now);
            changes.push((key.clone(), StatusChange::Ejected { cause, time }));
        }
        changes
    }

    fn ejected_count(&self) -> usize {
        self.known.values().filter(|outlier| outlier.ejected.is_some()).count()
    }

    /// The only endpoint of a cluster is never ejected, because its sessions could only be held.
    fn ejected_max(&self, count: usize) -> usize {
        if count < 2 { 0 } else { count * usize::from(self.max_percent) / 100 }
    }
}

impl Outlier {
    fn end_ejection(&mut self, now: Instant) {
        self.ejected = None;
        self.returned = Some(now);
    }

    fn eject(&mut self, cause: Cause, now: Instant) -> Duration {
        // Earlier ejections no longer count once the endpoint was in for as long as the longest ejection.
        let is_first = self.returned.is_none_or(|back| now.saturating_duration_since(back) > EJECTION_MAX);
        self.ejections = if is_first { 1 } else { self.ejections.saturating_add(1) };
        let time = EJECTION.saturating_mul(self.ejections).min(EJECTION_MAX);
        self.ejected = Some((cause, now + time));
        time
    }
}

impl Outcome {
    /// Returns what the session shows about its endpoint, if anything.
    pub(crate) fn evidence(&self) -> Option<Evidence> {
        let Outcome { protocol, ending, bytes_up, bytes_down, lasted, client, client_left } = *self;
        if bytes_down > 0 {
            return Some(Evidence::Served);
        }
        if ending != Ending::UpstreamReset || lasted >= INSTANT {
            return None;
        }
        match protocol {
            Protocol::Udp => Some(Evidence::Unreachable),
            // The reset may be a reaction to what the client sent, or to its leaving.
            Protocol::Tcp if bytes_up > 0 || client_left => None,
            Protocol::Tcp => Some(Evidence::ResetOn(client)),
        }
    }
}

impl Streak {
    fn cause(self) -> Option<Cause> {
        match self {
            Streak { failures: FAILURES_MAX.., .. } => Some(Cause::Refused),
            Streak { resets: FAILURES_MAX.., .. } => Some(Cause::Reset),
            _ => None,
        }
    }
}

impl Cause {
    /// Returns the cause for events and the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::Refused => "refuses connections",
            Cause::Reset => "resets connections at once",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILS: Streak = Streak { failures: FAILURES_MAX, resets: 0 };
    const RESETS: Streak = Streak { failures: 0, resets: FAILURES_MAX };
    const FINE: Streak = Streak { failures: 0, resets: 0 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_an_unprovoked_reset_counts_against_an_endpoint() {
        let client = Some(ClientNet::of([192, 0, 2, 1].into()));
        let reset = Outcome {
            protocol: Protocol::Tcp,
            ending: Ending::UpstreamReset,
            bytes_up: 0,
            bytes_down: 0,
            lasted: Duration::from_millis(3),
            client,
            client_left: false,
        };
        let check = |outcome: Outcome, expected| assert_eq!(outcome.evidence(), expected, "{outcome:?}");
        check(reset, Some(Evidence::ResetOn(client)));
        check(Outcome { client: None, ..reset }, Some(Evidence::ResetOn(None)));
        check(Outcome { bytes_up: 1, ..reset }, None);
        check(Outcome { client_left: true, ..reset }, None);
        check(Outcome { lasted: INSTANT, ..reset }, None);
        check(Outcome { ending: Ending::Finished, ..reset }, None);
        check(Outcome { bytes_down: 1, ..reset }, Some(Evidence::Served));
        check(Outcome { bytes_down: 1, ending: Ending::Finished, ..reset }, Some(Evidence::Served));
        check(Outcome { protocol: Protocol::Udp, bytes_up: 1, ..reset }, Some(Evidence::Unreachable));
    }

    #[test]
    fn five_consecutive_failures_eject_for_five_seconds_and_longer_each_time() {
        let (mut outliers, mut now) = (Outliers::new(50), Instant::now());
        let few = Streak { failures: FAILURES_MAX - 1, resets: FAILURES_MAX - 1 };
        assert_eq!(outliers.update(now, &[("a", few), ("b", FINE)]), []);
        for time in [5, 10, 15].map(seconds) {
            let ejected = StatusChange::Ejected { cause: Cause::Refused, time };
            assert_eq!(outliers.update(now, &[("a", FAILS), ("b", FINE)]), [("a", ejected)]);
            assert_eq!(outliers.next(), Some(now + time));
            now += time - Duration::from_nanos(1);
            assert_eq!(outliers.update(now, &[("a", FAILS), ("b", FINE)]), []);
            now += Duration::from_nanos(1);
            assert_eq!(outliers.update(now, &[("a", FAILS), ("b", FINE)]), [("a", StatusChange::Returned)]);
            assert_eq!(outliers.next(), None);
            now += seconds(1);
        }
        now += EJECTION_MAX;
        let ejected = StatusChange::Ejected { cause: Cause::Reset, time: EJECTION };
        assert_eq!(
            outliers.update(now, &[("a", RESETS), ("b", FINE)]),
            [("a", ejected)],
            "earlier ejections no longer count"
        );
    }

    #[test]
    fn endpoint_ejected_for_refusals_returns_when_it_answers_and_one_for_resets_does_not() {
        let (mut outliers, now) = (Outliers::new(50), Instant::now());
        outliers.update(now, &[("a", FAILS), ("b", RESETS), ("c", FINE), ("d", FINE)]);
        assert_eq!(outliers.ejected(&"a"), Some(Cause::Refused));
        assert_eq!(outliers.ejected(&"b"), Some(Cause::Reset));
        let changes =
            outliers.update(now + seconds(1), &[("a", FINE), ("b", FINE), ("c", FINE), ("d", FINE)]);
        assert_eq!(changes, [("a", StatusChange::Returned)]);
    }

    #[test]
    fn no_ejection_lasts_longer_than_five_minutes() {
        let (mut outliers, mut now) = (Outliers::new(50), Instant::now());
        for _ in 0..70 {
            outliers.update(now, &[("a", FAILS), ("b", FINE)]);
            now = outliers.next().unwrap();
            outliers.update(now, &[("a", FAILS), ("b", FINE)]);
            now += seconds(1);
        }
        let changes = outliers.update(now, &[("a", FAILS), ("b", FINE)]);
        assert_eq!(changes, [("a", StatusChange::Ejected { cause: Cause::Refused, time: EJECTION_MAX })]);
    }

    #[test]
    fn only_endpoint_is_never_ejected_and_zero_percent_disables_ejection() {
        let now = Instant::now();
        assert_eq!(Outliers::<&str>::new(100).update(now, &[("a", FAILS)]), []);
        assert_eq!(Outliers::<&str>::new(0).update(now, &[("a", FAILS), ("b", FINE)]), []);
        assert_eq!(Outliers::<&str>::new(100).update(now, &[("a", FAILS), ("b", FAILS)]).len(), 2);
        assert_eq!(
            Outliers::<&str>::new(50).update(now, &[("a", FAILS), ("b", FAILS), ("c", FAILS)]).len(),
            1
        );
    }

    #[test]
    fn ejections_end_when_too_many_endpoints_leave() {
        let (mut outliers, now) = (Outliers::new(50), Instant::now());
        outliers.update(now, &[("a", FAILS), ("b", FAILS), ("c", FINE), ("d", FINE)]);
        let changes = outliers.update(now, &[("a", FAILS), ("b", FAILS), ("c", FINE)]);
        assert_eq!(changes, [("a", StatusChange::Returned)]);
    }

    proptest! {
        #[test]
        fn ejected_endpoints_never_exceed_the_limit(
            percent in 0u8..=100,
            rounds in prop::collection::vec((prop::collection::vec((0u8..12, 0u32..8, 0u32..8), 0..12), 0u64..20), 1..30),
        ) {
            let (mut outliers, mut now) = (Outliers::new(percent), Instant::now());
            for (endpoints, pause) in rounds {
                let seen: BTreeMap<u8, Streak> =
                    endpoints.into_iter().map(|(key, failures, resets)| (key, Streak { failures, resets })).collect();
                let seen: Vec<_> = seen.into_iter().collect();
                outliers.update(now, &seen);
                let out = seen.iter().filter(|(key, _)| outliers.ejected(key).is_some()).count();
                prop_assert!(out * 100 <= seen.len() * usize::from(percent));
                prop_assert!(seen.len() > 1 || out == 0);
                now += seconds(pause);
            }
        }
    }
}
