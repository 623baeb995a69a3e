//! Who is left out for a while, for what its sessions met: decided here, from counts and a clock that are arguments.
//!
//! ```text
//!             failures or resets in a row, and room to spare
//!       in ──────────────────────────────────────────────────► out
//!        ▲                                                      │
//!        └──── its time is over; or it answered after all ──────┘
//!              or too few are left without it
//! ```

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::client_net::ClientNet;
use crate::ending::Ending;
use crate::route::Protocol;

/// In a row, without a success between: a lone refusal is chance, and a restart is over sooner.
pub const FAILURES_MAX: u32 = 5;

/// A session that its endpoint reset within this time, without a byte, was not served by it.
const INSTANT: Duration = Duration::from_secs(1);

/// The first time out. The second is twice as long, and so on. (Envoy: 30 s. We retry on another endpoint at once, so
/// little is lost by asking again.)
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_MAX: Duration = Duration::from_secs(300);

/// Half of a cluster, in percent: more out than in, and the rest may break under what the others bore.
pub const MAX_EJECTED_DEFAULT: u8 = 50;

/// Why an endpoint is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It did not take connections.
    Refused,
    /// It took connections and reset them at once.
    Reset,
}

/// A session that was connected to its endpoint, when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub protocol: Protocol,
    pub ending: Ending,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// From when it was connected.
    pub lasted: Duration,
    /// `None` for a unix socket's client.
    pub client: Option<ClientNet>,
    /// It had closed its side, or vanished, before the end.
    pub client_left: bool,
}

/// What the end of a session shows about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It was served.
    Served,
    /// Reset although the client had neither sent a byte nor left. Counts once per client: what happens to one client alone
    /// may be caused by that client.
    ResetOn(Option<ClientNet>),
    /// The endpoint's host refused a datagram (ICMP), as it refuses a connect. Counts each time.
    Unreachable,
}

/// What one endpoint's sessions met in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    /// Connects that failed, since one that did not.
    pub failures: u32,
    /// Sessions that it reset at once, of different clients, since one that it served.
    pub resets: u32,
}

/// What has become of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Ejected { cause: Cause, time: Duration },
    Returned,
}

/// The outliers of one cluster. `K` tells its endpoints apart.
#[derive(Debug)]
pub struct Outliers<K> {
    max_percent: u8,
    /// Those that are out, or have been.
    known: BTreeMap<K, Outlier>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Outlier {
    out: Option<(Cause, Instant)>,
    /// How often in a row, since it last was in for long.
    ejections: u32,
    /// When it came back.
    returned: Option<Instant>,
}

impl<K: Ord + Clone> Outliers<K> {
    pub fn new(max_percent: u8) -> Outliers<K> {
        Outliers { max_percent, known: BTreeMap::new() }
    }

    /// Looks at all endpoints of the cluster, and only those: others are forgotten.
    pub fn judge<Q: Borrow<K>>(&mut self, now: Instant, seen: &[(Q, Streak)]) -> Vec<(K, Change)> {
        let mut changes = Vec::new();
        // Usually nobody is known, and the others are many.
        if !self.known.is_empty() {
            let there: BTreeSet<&K> = seen.iter().map(|(key, _)| key.borrow()).collect();
            self.known.retain(|key, _| there.contains(key));
            changes.extend(self.give_back(now, seen));
            changes.extend(self.make_room(now, seen.len()));
        }
        changes.extend(self.eject(now, seen));
        changes
    }

    /// Why it is out, if it is.
    pub fn ejected(&self, key: &K) -> Option<Cause> {
        self.known.get(key)?.out.map(|(cause, _)| cause)
    }

    /// When the next one may come back.
    pub fn next(&self) -> Option<Instant> {
        self.known.values().filter_map(|outlier| outlier.out).map(|(_, until)| until).min()
    }

    fn give_back<Q: Borrow<K>>(&mut self, now: Instant, seen: &[(Q, Streak)]) -> Vec<(K, Change)> {
        let mut changes = Vec::new();
        for (key, streak) in seen {
            let key = key.borrow();
            let Some(outlier) = self.known.get_mut(key) else { continue };
            let over = match outlier.out {
                Some((Cause::Refused, _)) if streak.failures < FAILURES_MAX => true,
                Some((_, until)) => until <= now,
                None => false,
            };
            if over {
                outlier.come_back(now);
                changes.push((key.clone(), Change::Returned));
            }
        }
        changes
    }

    /// Endpoints have left, and of those that stayed too many are out: who would be back first, is back now.
    fn make_room(&mut self, now: Instant, count: usize) -> Vec<(K, Change)> {
        let mut changes = Vec::new();
        while self.out() > self.out_max(count) {
            let out = self.known.iter_mut().filter_map(|(key, outlier)| {
                let (_, until) = outlier.out?;
                Some((until, key, outlier))
            });
            let Some((_, key, outlier)) = out.min_by_key(|(until, ..)| *until) else { break };
            outlier.come_back(now);
            changes.push((key.clone(), Change::Returned));
        }
        changes
    }

    fn eject<Q: Borrow<K>>(&mut self, now: Instant, seen: &[(Q, Streak)]) -> Vec<(K, Change)> {
        let mut room = self.out_max(seen.len()).saturating_sub(self.out());
        let mut changes = Vec::new();
        for (key, streak) in seen {
            let Some(cause) = streak.cause().filter(|_| room > 0) else { continue };
            let key = key.borrow();
            // Whoever has come back in this very moment is let try.
            let stays = |outlier: &Outlier| outlier.out.is_some() || outlier.returned == Some(now);
            if self.known.get(key).is_some_and(stays) {
                continue;
            }
            let outlier = self.known.entry(key.clone()).or_default();
            room -= 1;
            let time = outlier.go_out(cause, now);
            changes.push((key.clone(), Change::Ejected { cause, time }));
        }
        changes
    }

    fn out(&self) -> usize {
        self.known.values().filter(|outlier| outlier.out.is_some()).count()
    }

    /// The only one of a cluster never goes: to be held is all that its sessions could gain.
    fn out_max(&self, count: usize) -> usize {
        if count < 2 { 0 } else { count * usize::from(self.max_percent) / 100 }
    }
}

impl Outlier {
    fn come_back(&mut self, now: Instant) {
        self.out = None;
        self.returned = Some(now);
    }

    fn go_out(&mut self, cause: Cause, now: Instant) -> Duration {
        // In for as long as the longest ejection, it has made up for what was before.
        let forgotten = self.returned.is_none_or(|back| now.saturating_duration_since(back) > EJECTION_MAX);
        self.ejections = if forgotten { 1 } else { self.ejections.saturating_add(1) };
        let time = EJECTION.saturating_mul(self.ejections).min(EJECTION_MAX);
        self.out = Some((cause, now + time));
        time
    }
}

impl Outcome {
    /// `None` for a session that shows nothing.
    pub fn evidence(&self) -> Option<Evidence> {
        let Outcome { protocol, ending, bytes_up, bytes_down, lasted, client, client_left } = *self;
        if bytes_down > 0 {
            return Some(Evidence::Served);
        }
        if ending != Ending::UpstreamReset || lasted >= INSTANT {
            return None;
        }
        match protocol {
            Protocol::Udp => Some(Evidence::Unreachable),
            // What the client sent may be the reason, and so may be that it left.
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
    pub fn name(self) -> &'static str {
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
    fn only_a_reset_without_a_reason_speaks_against_an_endpoint() {
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
    fn five_failures_in_a_row_are_five_seconds_out_and_longer_each_time() {
        let (mut outliers, mut now) = (Outliers::new(50), Instant::now());
        let few = Streak { failures: FAILURES_MAX - 1, resets: FAILURES_MAX - 1 };
        assert_eq!(outliers.judge(now, &[("a", few), ("b", FINE)]), []);
        for time in [5, 10, 15].map(seconds) {
            let ejected = Change::Ejected { cause: Cause::Refused, time };
            assert_eq!(outliers.judge(now, &[("a", FAILS), ("b", FINE)]), [("a", ejected)]);
            assert_eq!(outliers.next(), Some(now + time));
            now += time - Duration::from_nanos(1);
            assert_eq!(outliers.judge(now, &[("a", FAILS), ("b", FINE)]), []);
            now += Duration::from_nanos(1);
            assert_eq!(outliers.judge(now, &[("a", FAILS), ("b", FINE)]), [("a", Change::Returned)]);
            assert_eq!(outliers.next(), None);
            now += seconds(1);
        }
        now += EJECTION_MAX;
        let ejected = Change::Ejected { cause: Cause::Reset, time: EJECTION };
        assert_eq!(outliers.judge(now, &[("a", RESETS), ("b", FINE)]), [("a", ejected)], "it is forgotten");
    }

    #[test]
    fn who_refused_and_answers_is_back_at_once_and_who_reset_is_not() {
        let (mut outliers, now) = (Outliers::new(50), Instant::now());
        outliers.judge(now, &[("a", FAILS), ("b", RESETS), ("c", FINE), ("d", FINE)]);
        assert_eq!(outliers.ejected(&"a"), Some(Cause::Refused));
        assert_eq!(outliers.ejected(&"b"), Some(Cause::Reset));
        let changes = outliers.judge(now + seconds(1), &[("a", FINE), ("b", FINE), ("c", FINE), ("d", FINE)]);
        assert_eq!(changes, [("a", Change::Returned)]);
    }

    #[test]
    fn no_ejection_lasts_longer_than_five_minutes() {
        let (mut outliers, mut now) = (Outliers::new(50), Instant::now());
        for _ in 0..70 {
            outliers.judge(now, &[("a", FAILS), ("b", FINE)]);
            now = outliers.next().unwrap();
            outliers.judge(now, &[("a", FAILS), ("b", FINE)]);
            now += seconds(1);
        }
        let changes = outliers.judge(now, &[("a", FAILS), ("b", FINE)]);
        assert_eq!(changes, [("a", Change::Ejected { cause: Cause::Refused, time: EJECTION_MAX })]);
    }

    #[test]
    fn the_only_endpoint_is_never_ejected_and_zero_percent_is_off() {
        let now = Instant::now();
        assert_eq!(Outliers::<&str>::new(100).judge(now, &[("a", FAILS)]), []);
        assert_eq!(Outliers::<&str>::new(0).judge(now, &[("a", FAILS), ("b", FINE)]), []);
        assert_eq!(Outliers::<&str>::new(100).judge(now, &[("a", FAILS), ("b", FAILS)]).len(), 2);
        assert_eq!(
            Outliers::<&str>::new(50).judge(now, &[("a", FAILS), ("b", FAILS), ("c", FAILS)]).len(),
            1
        );
    }

    #[test]
    fn when_endpoints_leave_those_that_are_out_come_back() {
        let (mut outliers, now) = (Outliers::new(50), Instant::now());
        outliers.judge(now, &[("a", FAILS), ("b", FAILS), ("c", FINE), ("d", FINE)]);
        let changes = outliers.judge(now, &[("a", FAILS), ("b", FAILS), ("c", FINE)]);
        assert_eq!(changes, [("a", Change::Returned)]);
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_are_out(
            percent in 0u8..=100,
            rounds in prop::collection::vec((prop::collection::vec((0u8..12, 0u32..8, 0u32..8), 0..12), 0u64..20), 1..30),
        ) {
            let (mut outliers, mut now) = (Outliers::new(percent), Instant::now());
            for (endpoints, pause) in rounds {
                let seen: BTreeMap<u8, Streak> =
                    endpoints.into_iter().map(|(key, failures, resets)| (key, Streak { failures, resets })).collect();
                let seen: Vec<_> = seen.into_iter().collect();
                outliers.judge(now, &seen);
                let out = seen.iter().filter(|(key, _)| outliers.ejected(key).is_some()).count();
                prop_assert!(out * 100 <= seen.len() * usize::from(percent));
                prop_assert!(seen.len() > 1 || out == 0);
                now += seconds(pause);
            }
        }
    }
}
