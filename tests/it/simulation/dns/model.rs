//! A reference model of one name: from the responses of each round it derives the expected addresses and the time of
//! the next query.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ambassador::config::dns::{Limits, TTL_FLOOR};
use tokio::time::Instant;

use super::resolver::{LOOKUP_TIMEOUT, Response, Round};

/// Timers have a resolution of a millisecond.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// At least one address, and its TTL.
    Good(Duration),
    /// No address so far, and none now.
    Absent,
    /// The servers deny the name: previous addresses remain for a short time.
    Denied,
    /// Previous addresses remain until they are stale.
    Lost,
}

/// The last addresses of one kind, and the time of the response.
type LastAddresses = Option<(BTreeSet<IpAddr>, Instant)>;

#[derive(Debug)]
pub(super) struct Model {
    limits: Limits,
    v4: LastAddresses,
    v6: LastAddresses,
    /// The time of the last response with an address, and its TTL.
    good: Option<(Instant, Duration)>,
    /// The first denial since then.
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
        // A response also applies to addresses that became stale after the query.
        let queried = if is_good { round.begun } else { ended };
        let is_over = self.denied.is_some_and(|at| at + self.limits.nx_stale <= queried);
        for (last, reply) in [(&mut self.v4, &round.v4), (&mut self.v6, &round.v6)] {
            match reply.received().addresses().filter(|_| is_good) {
                Some(addresses) => *last = Some((addresses, ended)),
                None => {
                    last.take_if(|(_, at)| is_over || *at + self.limits.stale <= queried);
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
        // A nonexistent name has no record of another kind either, regardless of that query's result.
        let is_denied = matches!(received[0], Response::NoSuchName)
            || received.iter().all(|says| !matches!(says, Response::Fails));
        match received.into_iter().filter_map(Response::ttl).min() {
            Some(ttl) => Outcome::Good(ttl.min(self.limits.max_ttl).max(TTL_FLOOR)),
            None if !is_denied => Outcome::Lost,
            None if self.good.is_none() => Outcome::Absent,
            None => Outcome::Denied,
        }
    }

    /// Returns the expected addresses, sorted.
    pub(super) fn expected(&self) -> Vec<IpAddr> {
        [&self.v4, &self.v6].into_iter().flatten().flat_map(|(addresses, _)| addresses).copied().collect()
    }

    /// Returns the time at which the first address becomes stale.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        let filled =
            [&self.v4, &self.v6].into_iter().flatten().filter(|(addresses, _)| !addresses.is_empty());
        let first = filled.map(|(_, at)| *at + self.limits.stale).min()?;
        Some(self.denied.map_or(first, |at| first.min(at + self.limits.nx_stale)))
    }

    /// Checks that no address vanishes before it is stale, and that none remains long afterwards.
    pub(super) fn check_bounds(&self, standing: &[IpAddr], event: &str) {
        let Some((answered, pause)) = self.good else { return };
        let now = Instant::now();
        let is_denied = self.denied.is_some_and(|at| at + self.limits.nx_stale <= now);
        let is_fresh = now < answered + self.limits.stale && !is_denied;
        assert!(
            !is_fresh || !standing.is_empty(),
            "{event}: no address of a fresh response is used: {self:?}"
        );
        // An address is dropped by the query after its TTL or when it is stale.
        let end = self.limits.stale.max(pause) + TTL_FLOOR + LOOKUP_TIMEOUT + TICK;
        assert!(now <= answered + end || standing.is_empty(), "{event}: {standing:?} stand: {self:?}");
        let end = self.limits.nx_stale + TTL_FLOOR + LOOKUP_TIMEOUT + TICK;
        let is_believed = self.denied.is_some_and(|at| now > at + end);
        assert!(!is_believed || standing.is_empty(), "{event}: {standing:?} stand though denied: {self:?}");
    }
}
