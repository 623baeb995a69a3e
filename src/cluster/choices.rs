//! The endpoints of a cluster in the order in which a session tries them.
//!
//! First those in good standing, tier after tier and each tier by its balancer. Then those whose standing is doubtful:
//! an endpoint that was left out because it refused connections may be back, and to ask costs little where nobody else
//! answers. Those in bad standing only where there is no other at all, since then nothing is lost.
//!
//! Each standing of a tier has a plan of its own, so that a session never looks through those that are left out, however
//! many they are; and what they are due is spread over all the others by weight. Plans are made anew when a standing
//! changes: that is rare, and the control plane's work.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::condition::Standing;
use super::{Cluster, Endpoint, Member, Members, Tier};
use crate::address::EndpointKey;
use crate::balancer::{self, Pick, Plan, Pool, WARM, warmth};
use crate::route::Balance;

/// Yields each endpoint once, as they stood when the members were made; but not one that has been found bad since.
pub struct Choices<'m> {
    members: &'m Members,
    pick: Pick,
    warming: Option<Warming>,
    /// Whose turn it is now.
    standing: Standing,
    /// The tier to begin when the one under way is used up.
    next_tier: usize,
    tier: Option<(Seen<'m>, balancer::Choices<'m, Seen<'m>>)>,
    has_yielded: bool,
}

/// What slow start needs to know of a pick.
#[derive(Clone, Copy)]
struct Warming {
    slow_start: Duration,
    now: Instant,
}

/// A tier as a balancer sees it.
#[derive(Clone, Copy)]
struct Seen<'m> {
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
        Choices {
            members,
            pick,
            warming,
            standing: Standing::Good,
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
                if self.standing == Standing::Bad || member.endpoint.standing() != Standing::Bad {
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
        let (seen, choices) = self.tier.as_mut()?;
        let index = choices.next_of(*seen)?;
        seen.members.get(index)
    }

    /// The next tier, or the first again for those of the next standing; `None` when all was tried.
    fn begin_next_tier(&mut self) -> Option<()> {
        if self.next_tier >= self.members.tiers.len() {
            self.standing = match self.standing {
                Standing::Good => Standing::Doubtful,
                Standing::Doubtful if !self.has_yielded => Standing::Bad,
                Standing::Doubtful | Standing::Bad => return None,
            };
            self.next_tier = 0;
        }
        let tier = self.members.tiers.get(self.next_tier)?;
        self.next_tier += 1;
        let seen = Seen { members: &tier.members, warming: self.warming };
        self.tier = tier.plan(self.standing).map(|plan| (seen, plan.choices(self.pick, seen)));
        Some(())
    }
}

impl Tier {
    /// With plans for its members as they stand now.
    pub(super) fn new(number: u32, members: Vec<Member>, balance: Balance) -> Tier {
        let standings: Vec<Standing> = members.iter().map(|member| member.endpoint.standing()).collect();
        let plan = |standing| {
            let weight =
                |(member, its): (&Member, &Standing)| if *its == standing { member.weight } else { 0 };
            let weights: Box<[u32]> = members.iter().zip(&standings).map(weight).collect();
            let some = weights.iter().any(|weight| *weight > 0);
            some.then(|| Plan::new(balance, weights, members.iter().map(|member| name(&member.endpoint.key))))
        };
        let plans =
            Standing::ALL.map(|standing| standings.contains(&standing).then(|| plan(standing)).flatten());
        Tier { number, members, plans }
    }

    /// Over its members of this standing; `None` where none of them takes sessions.
    fn plan(&self, standing: Standing) -> Option<&Plan> {
        self.plans.get(standing as usize)?.as_ref()
    }
}

/// By its address alone, so that every ambassador sends a client to the same endpoint, whoever told of it.
fn name(key: &EndpointKey) -> String {
    key.addr.to_string()
}
