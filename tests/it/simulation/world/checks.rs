//! The invariants after each step and at the end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ambassador::address::Identity;
use ambassador::cluster::Member;
use ambassador::cluster::condition::Preference;
use ambassador::route::{Balance, Check};

use super::{ActualState, HELD_MAX, HOLD_MAX, Incarnation, World, port, spec};
use crate::simulation::rng::Rng;

/// Limits and the current values.
pub(super) struct Limits {
    max_sessions: Option<u32>,
    max_per_endpoint: Option<u32>,
    inside: usize,
    sessions: BTreeMap<Incarnation, usize>,
}

impl World {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_sessions: self.options.max_sessions,
            max_per_endpoint: self.options.max_sessions_per_endpoint,
            inside: self.cluster.admitted(),
            sessions: self
                .endpoints
                .iter()
                .map(|(incarnation, endpoint)| (*incarnation, endpoint.sessions()))
                .collect(),
        }
    }

    pub(super) fn check(&self, event: &str, before: &Limits) {
        let actual = self.actual.lock().unwrap();
        assert!(actual.broken.is_empty(), "{event}: {:?}", actual.broken);
        self.sessions_are_where_they_may_be(&actual, event);
        self.limits_are_kept(before, event);
        self.ejection_keeps_its_bound(event);
        let held = self.cluster.counters.held.load(Relaxed);
        assert!(held <= actual.pending.min(HELD_MAX), "{event}: {held} held of {} pending", actual.pending);
        let (inside, open): (usize, usize) = (self.cluster.admitted(), actual.open.values().sum());
        assert!(inside >= open && inside <= open + actual.pending, "{event}");
        let waits_for_a_place = open + actual.pending > inside;
        let is_full = self.options.max_sessions.is_some_and(|max| inside >= max as usize);
        assert!(is_full || !waits_for_a_place, "{event}: a session waits although a place is free");
    }

    fn sessions_are_where_they_may_be(&self, actual: &ActualState, event: &str) {
        for (incarnation, endpoint) in &self.endpoints {
            let count =
                |counts: &BTreeMap<Incarnation, usize>| counts.get(incarnation).copied().unwrap_or_default();
            let (open, dialling) = (count(&actual.open), count(&actual.dialling));
            assert_eq!(endpoint.sessions(), open + dialling, "{event}: in flight on {incarnation:?}");
            if endpoint.is_removed() {
                let is_followed = endpoint.key.identity != Identity::Literal;
                assert!(dialling == 0 || !is_followed, "{event}: {incarnation:?} has left and is dialled");
                assert!(
                    open == 0 || !self.cut.contains(incarnation),
                    "{event}: {incarnation:?} has left and was cut"
                );
            }
        }
    }

    /// Checks that values within a limit stay within it, and that values above a lowered limit do not grow.
    fn limits_are_kept(&self, before: &Limits, event: &str) {
        let keeps = |max: Option<u32>, before: usize, now: usize| {
            max.is_none_or(|max| now <= before.max(max as usize))
        };
        if before.max_sessions == self.options.max_sessions {
            assert!(keeps(before.max_sessions, before.inside, self.cluster.admitted()), "{event}: inside");
        }
        if before.max_per_endpoint == self.options.max_sessions_per_endpoint {
            for (incarnation, endpoint) in &self.endpoints {
                let was = before.sessions.get(incarnation).copied().unwrap_or_default();
                assert!(keeps(before.max_per_endpoint, was, endpoint.sessions()), "{event}: {incarnation:?}");
            }
        }
    }

    fn ejection_keeps_its_bound(&self, event: &str) {
        let members = self.cluster.members_arc();
        let takers: Vec<&Member> =
            members.all().map(|(_, member)| member).filter(|member| member.weight > 0).collect();
        let out = takers.iter().filter(|member| member.endpoint.condition().ejected.is_some()).count();
        assert!(
            out * 100 <= takers.len() * usize::from(self.max_ejected),
            "{event}: {out} of {}",
            takers.len()
        );
        assert!(takers.len() > 1 || out == 0, "{event}: the only one is out");
    }

    /// Checks the distribution of first picks, for balancers that do not depend on open sessions.
    pub(super) fn audit(&mut self, rng: &mut Rng) {
        const PICKS: u32 = 300;
        self.options.slow_start = Duration::ZERO;
        for balance in [Balance::RoundRobin, Balance::Random, Balance::SourceHash] {
            self.options.balance = balance;
            self.update();
            let members = self.cluster.members_arc();
            let is_good =
                |member: &&Member| member.endpoint.condition().preference() == Preference::Preferred;
            let good = |tier: &&ambassador::cluster::Tier| -> Vec<Member> {
                tier.members.iter().filter(|member| member.weight > 0).filter(is_good).cloned().collect()
            };
            let Some(first) = members.tiers.iter().find(|tier| !good(tier).is_empty()) else { return };
            let good = good(&first);
            let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
            for _ in 0..PICKS {
                let [a, b, c, d, ..] = rng.bits().to_be_bytes();
                let pick = self.cluster.choices(&members, Some([a, b, c, d].into())).next().unwrap();
                *counts.entry(port(&pick.key.addr)).or_default() += 1;
            }
            let sum: u32 = good.iter().map(|member| member.weight).sum();
            for Member { endpoint, weight } in good {
                let part = f64::from(weight) / f64::from(sum);
                let (due, got) = (part * f64::from(PICKS), counts[&port(&endpoint.key.addr)]);
                // Five standard deviations, plus one for incomplete rounds.
                let tolerance = 5.0 * (due * (1.0 - part)).sqrt() + 1.0;
                assert!((f64::from(got) - due).abs() <= tolerance, "{balance:?}: {got} of {due}: {counts:?}");
            }
        }
    }

    /// Repairs all endpoints and checks that waiting sessions connect, and that nothing is left after all sessions have
    /// ended.
    pub(super) async fn check_recovery(mut self) {
        {
            let mut actual = self.actual.lock().unwrap();
            actual.behaviours.clear();
            actual.unhealthy.clear();
        }
        self.options.max_sessions = None;
        self.options.max_sessions_per_endpoint = None;
        self.options.hold = HOLD_MAX;
        self.options.health.check = Check::Off;
        self.specs.retain(|one| one.weight > 0);
        if self.specs.iter().all(|one| one.key != spec(1).key) {
            self.specs.push(spec(1));
        }
        self.update();
        // The time of a hanging attempt, the pause after it, and an attempt that began before the change.
        self.settle(Duration::from_secs(5)).await;
        assert_eq!(
            self.actual.lock().unwrap().pending,
            0,
            "sessions wait although all endpoints are healthy"
        );
        self.settle(Duration::from_secs(30)).await;
        assert!(self.sessions.is_empty(), "a session never ends");
        assert!(self.endpoints.values().all(|endpoint| endpoint.sessions() == 0), "in flight");
        assert_eq!((self.cluster.admitted(), self.cluster.counters.held.load(Relaxed)), (0, 0));
        assert!(self.actual.lock().unwrap().broken.is_empty());
    }
}
