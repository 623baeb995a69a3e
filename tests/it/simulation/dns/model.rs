//! What was said of one name, round by round, and what follows from it: what is to be believed, and when to ask again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ambassador::config::dns::{Limits, TTL_FLOOR};
use tokio::time::Instant;

use super::resolver::{LOOKUP_TIMEOUT, Response, Round};

/// Timers go by the millisecond.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// At least one address, and how long it is good for.
    Good(Duration),
    /// It has never had an address, and has none.
    Absent,
    /// The servers deny that it has an address: what it had stands for a short time.
    Denied,
    /// What it had stands, until that is stale.
    Lost,
}

/// The addresses of one kind, and when they were told.
type LastAddresses = Option<(BTreeSet<IpAddr>, Instant)>;

#[derive(Debug)]
pub(super) struct Model {
    limits: Limits,
    v4: LastAddresses,
    v6: LastAddresses,
    /// When it had an address last, and how long that was good for.
    good: Option<(Instant, Duration)>,
    /// The first denial since.
    denied: Option<Instant>,
    pub(super) last: Option<(Round, Outcome)>,
}

impl Model {
    pub(super) fn new(limits: Limits) -> Model {
        Model { limits, v4: None, v6: None, good: None, denied: None, last: None }
    }

    pub(super) fn ended(&mut self, round: Round) {
        let outcome = self.outcome(&round);
        let ended = round.ended();
        let is_good = matches!(outcome, Outcome::Good(_));
        if let Outcome::Good(pause) = outcome {
            self.good = Some((ended, pause));
        }
        if outcome == Outcome::Denied {
            self.denied.get_or_insert(ended);
        }
        // An answer counts for what was stale when it was asked for, for it says what to do without it.
        let asked = if is_good { round.begun } else { ended };
        let is_over = self.denied.is_some_and(|at| at + self.limits.nx_stale <= asked);
        for (told, reply) in [(&mut self.v4, &round.v4), (&mut self.v6, &round.v6)] {
            match reply.received().addresses().filter(|_| is_good) {
                Some(addresses) => *told = Some((addresses, ended)),
                None => {
                    told.take_if(|(_, at)| is_over || *at + self.limits.stale <= asked);
                }
            }
        }
        if is_good {
            self.denied = None;
        }
        self.last = Some((round, outcome));
    }

    fn outcome(&self, round: &Round) -> Outcome {
        let received = [round.v4.received(), round.v6.received()];
        // Without the name there is no record of another kind either, whatever came of the question for it.
        let is_denied = matches!(received[0], Response::NoSuchName)
            || received.iter().all(|says| !matches!(says, Response::Fails));
        match received.into_iter().filter_map(Response::ttl).min() {
            Some(ttl) => Outcome::Good(ttl.min(self.limits.max_ttl).max(TTL_FLOOR)),
            None if !is_denied => Outcome::Lost,
            None if self.good.is_none() => Outcome::Absent,
            None => Outcome::Denied,
        }
    }

    /// Sorted.
    pub(super) fn expected(&self) -> Vec<IpAddr> {
        [&self.v4, &self.v6].into_iter().flatten().flat_map(|(addresses, _)| addresses).copied().collect()
    }

    /// When the first address becomes stale.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        let filled =
            [&self.v4, &self.v6].into_iter().flatten().filter(|(addresses, _)| !addresses.is_empty());
        let first = filled.map(|(_, at)| *at + self.limits.stale).min()?;
        Some(self.denied.map_or(first, |at| first.min(at + self.limits.nx_stale)))
    }

    /// What must be so whatever was asked when: nothing vanishes before it is stale, nothing stands for long after.
    pub(super) fn check_bounds(&self, standing: &[IpAddr], event: &str) {
        let Some((answered, pause)) = self.good else { return };
        let now = Instant::now();
        let is_denied = self.denied.is_some_and(|at| at + self.limits.nx_stale <= now);
        let is_fresh = now < answered + self.limits.stale && !is_denied;
        assert!(!is_fresh || !standing.is_empty(), "{event}: nothing stands of a fresh answer: {self:?}");
        // Asked for once the answer is no longer good or is stale, it is given up.
        let end = self.limits.stale.max(pause) + TTL_FLOOR + LOOKUP_TIMEOUT + TICK;
        assert!(now <= answered + end || standing.is_empty(), "{event}: {standing:?} stand: {self:?}");
        let end = self.limits.nx_stale + TTL_FLOOR + LOOKUP_TIMEOUT + TICK;
        let is_believed = self.denied.is_some_and(|at| now > at + end);
        assert!(!is_believed || standing.is_empty(), "{event}: {standing:?} stand though denied: {self:?}");
    }
}
