//! The endpoints of a cluster in the order in which a session tries them: tier after tier, each by its balancer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{Cluster, Endpoint, EndpointKey, Member, Members, Tier};
use crate::balancer::{self, Pick, Plan, Pool, WARM, warmth};
use crate::route::Balance;

/// Yields each endpoint once.
pub struct Choices<'m> {
    members: &'m Members,
    pick: Pick,
    warming: Option<Warming>,
    /// The tier to begin when the one under way is used up.
    next_tier: usize,
    tier: Option<(Seen<'m>, balancer::Choices<'m, Seen<'m>>)>,
}

/// What slow start needs to know of a pick.
#[derive(Clone, Copy)]
struct Warming {
    slow_start: Duration,
    now: Instant,
}

/// A tier as a balancer sees it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'m> {
    members: &'m [Member],
    warming: Option<Warming>,
}

impl Pool for Seen<'_> {
    fn load(&self, index: usize) -> usize {
        self.members.get(index).map_or(0, |member| member.endpoint.sessions())
    }

    fn warmth(&self, index: usize) -> u32 {
        let Some(Warming { slow_start, now }) = self.warming else { return WARM };
        match self.members.get(index).and_then(|member| member.endpoint.warms_since()) {
            Some(since) => warmth(now.saturating_duration_since(since), slow_start),
            None => WARM,
        }
    }
}

impl Cluster {
    /// Endpoints in the order to try them, for a session of this client.
    pub fn choices<'m>(&self, members: &'m Members, client: Option<IpAddr>) -> Choices<'m> {
        let turn = self.turn.fetch_add(1, Relaxed);
        let slow_start = members.options.slow_start;
        // The clock is read only where somebody warms by it.
        let warming = (!slow_start.is_zero()).then(|| Warming { slow_start, now: Instant::now() });
        let pick = Pick { turn, random: balancer::nth(self.seed, turn), client };
        Choices { members, pick, warming, next_tier: 0, tier: None }
    }
}

impl<'m> Iterator for Choices<'m> {
    type Item = &'m Arc<Endpoint>;

    fn next(&mut self) -> Option<&'m Arc<Endpoint>> {
        loop {
            if let Some((seen, choices)) = &mut self.tier
                && let Some(index) = choices.next_of(*seen)
            {
                return seen.members.get(index).map(|member| &member.endpoint);
            }
            let tier = self.members.tiers.get(self.next_tier)?;
            self.next_tier += 1;
            let seen = Seen { members: &tier.members, warming: self.warming };
            self.tier = Some((seen, tier.plan.choices(self.pick, seen)));
        }
    }
}

impl Tier {
    pub(super) fn new(number: u32, members: Vec<Member>, balance: Balance) -> Tier {
        let names: Vec<Vec<u8>> = members.iter().map(|member| name(&member.endpoint.key)).collect();
        let weights = members.iter().map(|member| member.weight).collect();
        let plan = Plan::new(balance, weights, names.iter().map(Vec::as_slice));
        Tier { number, members, plan }
    }
}

/// By its address alone, so that every ambassador sends a client to the same endpoint, whoever told of it.
fn name(key: &EndpointKey) -> Vec<u8> {
    key.addr.to_string().into_bytes()
}
