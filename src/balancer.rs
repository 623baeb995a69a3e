//! In which order to try the endpoints of a tier. Pure: indices in, indices out; chance and warmth are arguments.
//!
//! What can be computed beforehand is a [`Plan`], made anew when the endpoints or their weights change. A pick walks it
//! and allocates nothing while the first choice will do:
//!
//! | | first choice | the next one |
//! |---|---|---|
//! | round robin | O(1) | O(1) on average |
//! | random, p2c | O(log n) | O(log n) on average |
//! | least connections | O(n), less while some have no session | O(n) |
//! | source hash | O(n) | O(n) |

mod chance;
mod least_connections;
mod lots;
mod p2c;
mod random;
mod round_robin;
mod schedule;
mod slow_start;
mod source_hash;
mod tried;

use std::net::IpAddr;

pub(crate) use chance::nth;
pub use slow_start::{WARM, warmth};

use crate::route::Balance;
use chance::hash;
use lots::Lots;
use schedule::Schedule;
use slow_start::Thinned;
use source_hash::Rendezvous;

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
pub enum Plan {
    RoundRobin(Schedule),
    LeastConnections { turns: Schedule, weights: Box<[u32]> },
    P2c { lots: Lots, weights: Box<[u32]> },
    Random(Lots),
    SourceHash(Rendezvous),
}

/// The endpoints of a tier in the order to try them. Each that has a weight comes once, the others never.
pub struct Choices<'p, P>(Thinned<Order<'p, P>>);

enum Order<'p, P> {
    RoundRobin(round_robin::Choices<'p>),
    LeastConnections(least_connections::Choices<'p, P>),
    P2c(p2c::Choices<'p, P>),
    Random(random::Choices<'p>),
    SourceHash(source_hash::Choices<'p>),
}

impl Plan {
    /// `names` tell the endpoints apart, wherever and whenever they are seen; in the order of `weights`.
    pub fn new<'n>(balance: Balance, weights: Box<[u32]>, names: impl Iterator<Item = &'n [u8]>) -> Plan {
        match balance {
            Balance::RoundRobin => Plan::RoundRobin(Schedule::new(&weights)),
            Balance::LeastConnections => Plan::LeastConnections { turns: Schedule::new(&weights), weights },
            Balance::P2c => Plan::P2c { lots: Lots::new(&weights), weights },
            Balance::Random => Plan::Random(Lots::new(&weights)),
            Balance::SourceHash => Plan::SourceHash(Rendezvous::new(&weights, names.map(hash))),
        }
    }

    pub fn choices<P: Pool + Copy>(&self, pick: Pick, pool: P) -> Choices<'_, P> {
        let client = pick.client.map(client_hash);
        let order = match self {
            Plan::RoundRobin(turns) => Order::RoundRobin(round_robin::Choices::new(turns, pick.turn)),
            Plan::LeastConnections { turns, weights } => {
                Order::LeastConnections(least_connections::Choices::new(turns, weights, pick.turn, pool))
            }
            Plan::P2c { lots, weights } => Order::P2c(p2c::Choices::new(lots, weights, pick.random, pool)),
            Plan::Random(lots) => Order::Random(random::Choices::new(lots, pick.random)),
            Plan::SourceHash(nodes) => {
                Order::SourceHash(source_hash::Choices::new(nodes, client.unwrap_or(pick.random)))
            }
        };
        // A client of the source hash moves to a warming endpoint once, and does not come and go.
        let luck = match self {
            Plan::SourceHash(_) => client.unwrap_or(pick.random),
            _ => pick.random,
        };
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
        match self {
            Order::RoundRobin(choices) => choices.next(),
            Order::LeastConnections(choices) => choices.next(),
            Order::P2c(choices) => choices.next(),
            Order::Random(choices) => choices.next(),
            Order::SourceHash(choices) => choices.next(),
        }
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
