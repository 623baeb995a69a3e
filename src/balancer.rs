//! In which order to try the endpoints of a tier. Pure: indices in, indices out; chance and warmth are arguments.
//!
//! What can be computed beforehand is a [`Plan`], made anew when the endpoints, their weights or their standing change. A
//! pick walks it and allocates nothing while the first choice will do. Of n endpoints it looks at:
//!
//! | | for the first choice |
//! |---|---|
//! | round robin | one |
//! | random, p2c | one, two, found in O(log n) |
//! | least connections | all up to 64, and 64 of more |
//! | source hash | 16 places of a ring, found in O(1); so for each weight that differs |
//!
//! The next choices cost the same, up to [`CAREFUL_MAX`] of them. Where so many did not answer, or were full, an order
//! matters to nobody: the others come one after the other, so that to go through all of them is O(n).

mod chance;
mod least_connections;
mod lots;
mod p2c;
mod ring;
mod round_robin;
mod schedule;
mod slow_start;
mod source_hash;
mod tried;

use std::net::IpAddr;

pub(crate) use chance::nth;
pub use slow_start::{WARM, warmth};

use crate::route::Balance;
use chance::{Draws, hash};
use least_connections::LOOKED_AT_MAX;
use lots::Lots;
use schedule::Schedule;
use slow_start::Thinned;
use source_hash::Rings;
use tried::Tried;

/// Choices made with care in one pick. As many as least connections looks at, so that a small cluster's order is exact to
/// its end.
const CAREFUL_MAX: usize = LOOKED_AT_MAX;

/// The endpoints of a tier as they are at the moment of a pick.
pub trait Pool {
    /// Sessions on this endpoint now.
    fn load(&self, index: usize) -> usize;

    /// How much of its weight it may take, of [`WARM`].
    fn warmth(&self, index: usize) -> u32;
}

/// One session that wants an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Grows by one with each session of a cluster, so that equals take turns.
    pub turn: u64,
    /// Even bits.
    pub random: u64,
    /// `None` for a client without an address: then each session is a client of its own.
    pub client: Option<IpAddr>,
}

/// A balancer, prepared for the endpoints of one tier.
#[derive(Debug)]
pub struct Plan {
    weights: Box<[u32]>,
    /// The indices of those that have a weight at all.
    takers: Box<[u32]>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    RoundRobin(Schedule),
    LeastConnections(Schedule),
    P2c(Lots),
    Random(Lots),
    SourceHash(Rings),
}

/// The endpoints of a tier in the order to try them. Each that has a weight comes once, the others never.
pub struct Choices<'p, P>(Thinned<Order<'p, P>>);

/// As [`Choices`], of endpoints that are warm.
struct Order<'p, P> {
    plan: &'p Plan,
    pick: Pick,
    client: u64,
    draws: Draws,
    pool: P,
    tried: Tried,
    /// Of round robin: the slot after the last choice. Of the others: how many of the takers were passed once care had ended.
    next: usize,
}

impl Plan {
    /// `names` tell the endpoints apart, wherever and whenever they are seen; in the order of `weights`.
    pub fn new<N: AsRef<[u8]>>(
        balance: Balance,
        weights: Box<[u32]>,
        names: impl Iterator<Item = N>,
    ) -> Plan {
        let way = match balance {
            Balance::RoundRobin => Way::RoundRobin(Schedule::new(&weights)),
            Balance::LeastConnections => Way::LeastConnections(Schedule::new(&weights)),
            Balance::P2c => Way::P2c(Lots::new(&weights)),
            Balance::Random => Way::Random(Lots::new(&weights)),
            Balance::SourceHash => {
                Way::SourceHash(source_hash::rings(&weights, names.map(|name| hash(name.as_ref()))))
            }
        };
        let takers = (0u32..).zip(&weights).filter(|(_, weight)| **weight > 0).map(|(index, _)| index);
        Plan { takers: takers.collect(), weights, way }
    }

    pub fn choices<P: Pool + Copy>(&self, pick: Pick, pool: P) -> Choices<'_, P> {
        let client = pick.client.map_or(pick.random, client_hash);
        // A client of the source hash moves to a warming endpoint once, and does not come and go.
        let luck = if matches!(self.way, Way::SourceHash(_)) { client } else { pick.random };
        let next = match &self.way {
            Way::RoundRobin(turns) => turns.slot(pick.turn),
            _ => 0,
        };
        let draws = Draws::new(pick.random);
        let order = Order { plan: self, pick, client, draws, pool, tried: Tried::default(), next };
        Choices(Thinned::new(order, luck))
    }
}

impl<P: Pool + Copy> Choices<'_, P> {
    /// As [`Iterator::next`]; `pool` says how warm each is.
    pub fn next_of(&mut self, pool: P) -> Option<usize> {
        self.0.next_of(|index| pool.warmth(index))
    }
}

impl<P: Pool> Iterator for Order<'_, P> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let Plan { weights, takers, way } = self.plan;
        let Order { pick, client, draws, pool, tried, .. } = self;
        if tried.count() == takers.len() {
            return None;
        }
        let choice = match way {
            _ if takers.len() == 1 => takers.first().map(|index| *index as usize),
            Way::RoundRobin(turns) => round_robin::choice(turns, tried, &mut self.next),
            _ if tried.count() >= CAREFUL_MAX => self.any(),
            Way::LeastConnections(turns) if takers.len() <= LOOKED_AT_MAX => {
                let start = turns.at(turns.slot(pick.turn))?;
                least_connections::of_all(takers, start, weights, pool, tried)
            }
            Way::LeastConnections(turns) => {
                least_connections::of_some(turns, pick.turn, draws, weights, pool, tried)
            }
            Way::P2c(lots) => p2c::choice(lots, draws, weights, pool, tried),
            Way::Random(lots) => lots.draw(draws, tried, None),
            Way::SourceHash(rings) => source_hash::choice(rings, *client, tried),
        }?;
        self.tried.add(choice);
        Some(choice)
    }
}

impl<P> Order<'_, P> {
    /// The next in the circle that was not tried.
    fn any(&mut self) -> Option<usize> {
        let takers = &self.plan.takers;
        let start = chance::place(self.client, takers.len());
        while self.next < takers.len() {
            let place = (start + self.next) % takers.len();
            self.next += 1;
            let index = takers.get(place).map(|index| *index as usize);
            if let Some(index) = index.filter(|index| !self.tried.has(*index)) {
                return Some(index);
            }
        }
        None
    }
}

pub(crate) fn client_hash(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

#[cfg(test)]
mod tests;
