//! The endpoints of a cluster in the order in which a session tries them.
//!
//! Preferred endpoints come first, tier by tier, each tier in the order of its balancer. Fallback endpoints follow: one that
//! was ejected for refusing connections may be back, and where no other endpoint answers an attempt costs little. Endpoints
//! of last resort are tried only where there is no other.
//!
//! Each preference of a tier has its own plan, so that a session never iterates over endpoints that are left out, however many
//! they are, and their share is spread over all others by weight. Plans are rebuilt by the control plane when the condition of
//! an endpoint changes, which is rare.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::condition::Preference;
use super::endpoint::Endpoint;
use super::members::{Member, Members};
use crate::balancer::{self, Pick, Pool, WARM, warmth};

/// Yields each endpoint once, by the preference it had when the members were built. Endpoints that became a last resort since
/// then are skipped.
pub struct Choices<'m> {
    members: &'m Members,
    pick: Pick,
    slow_start: Option<SlowStartClock>,
    preference: Preference,
    /// The tier to begin once the current one is exhausted.
    next_tier: usize,
    tier: Option<(TierPool<'m>, balancer::Choices<'m, TierPool<'m>>)>,
    has_yielded: bool,
}

/// The time of a pick, on a route with slow start.
#[derive(Clone, Copy)]
struct SlowStartClock {
    slow_start: Duration,
    now: Instant,
}

/// The members of a tier as the balancer sees them.
#[derive(Clone, Copy)]
struct TierPool<'m> {
    members: &'m [Member],
    slow_start: Option<SlowStartClock>,
}

impl Pool for TierPool<'_> {
    fn load(&self, index: usize) -> usize {
        self.members.get(index).map_or(0, |member| member.endpoint.sessions())
    }

    fn warmth(&self, index: usize) -> u32 {
        let Some(SlowStartClock { slow_start, now }) = self.slow_start else { return WARM };
        match self.members.get(index).and_then(|member| member.endpoint.warms_since()) {
            Some(since) => warmth(now.saturating_duration_since(since), slow_start),
            None => WARM,
        }
    }
}

impl super::Cluster {
    /// Returns the endpoints in the order to try them for a session of this client.
    pub fn choices<'m>(&self, members: &'m Members, client: Option<IpAddr>) -> Choices<'m> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let slow_start = members.options.slow_start;
        // Only routes with slow start read the clock.
        let slow_start = (!slow_start.is_zero()).then(|| SlowStartClock { slow_start, now: Instant::now() });
        let pick = Pick { turn, random: balancer::nth(self.seed, turn), client };
        Choices {
            members,
            pick,
            slow_start,
            preference: Preference::Preferred,
            next_tier: 0,
            tier: None,
            has_yielded: false,
        }
    }
}

impl<'m> Iterator for Choices<'m> {
    type Item = &'m Arc<Endpoint>;

    fn next(&mut self) -> Option<&'m Arc<Endpoint>> {
        loop {
            while let Some(member) = self.next_of_tier() {
                if self.preference == Preference::LastResort
                    || member.endpoint.preference() != Preference::LastResort
                {
                    self.has_yielded = true;
                    return Some(&member.endpoint);
                }
            }
            self.begin_next_tier()?;
        }
    }
}

impl<'m> Choices<'m> {
    fn next_of_tier(&mut self) -> Option<&'m Member> {
        let (pool, choices) = self.tier.as_mut()?;
        let index = choices.next_of(*pool)?;
        pool.members.get(index)
    }

    /// Moves to the next tier, or to the first one with the next preference. Returns `None` at the end.
    fn begin_next_tier(&mut self) -> Option<()> {
        if self.next_tier >= self.members.tiers.len() {
            self.preference = match self.preference {
                Preference::Preferred => Preference::Fallback,
                Preference::Fallback if !self.has_yielded => Preference::LastResort,
                Preference::Fallback | Preference::LastResort => return None,
            };
            self.next_tier = 0;
        }
        let tier = self.members.tiers.get(self.next_tier)?;
        self.next_tier += 1;
        let pool = TierPool { members: &tier.members, slow_start: self.slow_start };
        self.tier = tier.plan(self.preference).map(|plan| (pool, plan.choices(self.pick, pool)));
        Some(())
    }
}
