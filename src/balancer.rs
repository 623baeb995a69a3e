//! The order in which to try the endpoints of a tier. Pure: endpoints are indices; load, randomness and warmth are arguments.
//!
//! A [`Plan`] is computed in advance, whenever the endpoints, their weights or their conditions change. A pick reads it, and
//! allocates nothing while the first choice connects. Of n endpoints it examines:
//!
//! | | for the first choice |
//! |---|---|
//! | round robin | one |
//! | random, p2c | one, two; found in O(log n) |
//! | least connections | all up to 64, and 64 of more |
//! | source hash | 16 positions on a ring, found in O(1), for each distinct weight |
//!
//! The next choices cost the same, up to [`RANKED_MAX`] of them. When that many endpoints have failed or were full, the order
//! no longer matters: the rest follow one by one, so that going through all of them is O(n).
//!
//! ```
//! use ambassador::balancer::{Pick, Plan, Pool, WARM};
//! use ambassador::route::Balance;
//!
//! /// The number of sessions of each endpoint.
//! struct Sessions([usize; 3]);
//!
//! impl Pool for &Sessions {
//!     fn load(&self, index: usize) -> usize {
//!         self.0[index]
//!     }
//!
//!     fn warmth(&self, _index: usize) -> u32 {
//!         WARM
//!     }
//! }
//!
//! let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
//! let plan = Plan::new(Balance::LeastConnections, [1, 1, 0].into(), names.iter());
//! let sessions = Sessions([5, 2, 0]);
//! let mut choices = plan.choices(Pick { turn: 0, random: 7, client: None }, &sessions);
//!
//! assert_eq!(choices.next_of(&sessions), Some(1), "the least loaded");
//! assert_eq!(choices.next_of(&sessions), Some(0), "the next, if that one does not answer");
//! assert_eq!(choices.next_of(&sessions), None, "an endpoint of weight zero gets no session");
//! ```

mod least_connections;
mod p2c;
mod ring;
mod rng;
mod round_robin;
mod schedule;
mod slow_start;
mod source_hash;
mod tried;
mod weighted;

use std::net::IpAddr;

pub(crate) use rng::nth;
pub use slow_start::{WARM, warmth};

use crate::route::Balance;
use least_connections::SAMPLE_MAX;
use rng::{Rng, hash};
use schedule::Schedule;
use slow_start::SlowStart;
use source_hash::Rings;
use tried::Tried;
use weighted::Weighted;

/// The number of choices per pick that the algorithm ranks. As many as least connections samples, so that the order of a small
/// cluster is exact to its end.
const RANKED_MAX: usize = SAMPLE_MAX;

/// The current state of the endpoints of a tier.
pub trait Pool {
    /// Returns the number of sessions of an endpoint.
    fn load(&self, index: usize) -> usize;

    /// Returns the part of its weight that an endpoint may take, of [`WARM`].
    fn warmth(&self, index: usize) -> u32;
}

/// The input of one pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// A counter of picks, so that equal endpoints take turns.
    pub turn: u64,
    /// Uniformly distributed bits.
    pub random: u64,
    /// The client. `None` for a client without an address: then each session counts as a client of its own.
    pub client: Option<IpAddr>,
}

/// A balancing algorithm, prepared for the endpoints of one tier.
#[derive(Debug)]
pub struct Plan {
    weights: Box<[u32]>,
    /// The indices of the endpoints whose weight is not zero.
    eligible: Box<[u32]>,
    algorithm: Algorithm,
}

#[derive(Debug)]
enum Algorithm {
    RoundRobin(Schedule),
    LeastConnections(Schedule),
    P2c(Weighted),
    Random(Weighted),
    SourceHash(Rings),
}

/// The endpoints of a tier in the order to try them. Yields each endpoint once, and those of weight zero never.
pub struct Choices<'p, P>(SlowStart<Order<'p, P>>);

/// The order without slow start.
struct Order<'p, P> {
    plan: &'p Plan,
    pick: Pick,
    client: u64,
    rng: Rng,
    pool: P,
    tried: Tried,
    /// For round robin, the slot after the last choice. For the others, the number of eligible endpoints passed after
    /// [`RANKED_MAX`] choices.
    next: usize,
}

impl Plan {
    /// Prepares an algorithm. `names` identify the endpoints across processes and restarts; they are in the order of `weights`.
    pub fn new<N: AsRef<[u8]>>(
        balance: Balance,
        weights: Box<[u32]>,
        names: impl Iterator<Item = N>,
    ) -> Plan {
        let algorithm = match balance {
            Balance::RoundRobin => Algorithm::RoundRobin(Schedule::new(&weights)),
            Balance::LeastConnections => Algorithm::LeastConnections(Schedule::new(&weights)),
            Balance::P2c => Algorithm::P2c(Weighted::new(&weights)),
            Balance::Random => Algorithm::Random(Weighted::new(&weights)),
            Balance::SourceHash => {
                Algorithm::SourceHash(source_hash::rings(&weights, names.map(|name| hash(name.as_ref()))))
            }
        };
        let eligible = (0u32..).zip(&weights).filter(|(_, weight)| **weight > 0).map(|(index, _)| index);
        Plan { eligible: eligible.collect(), weights, algorithm }
    }

    /// Begins a pick.
    pub fn choices<P: Pool + Copy>(&self, pick: Pick, pool: P) -> Choices<'_, P> {
        let client = pick.client.map_or(pick.random, client_hash);
        // With source hash, a client moves to a warming endpoint once and does not alternate.
        let is_source_hash = matches!(self.algorithm, Algorithm::SourceHash(_));
        let seed = if is_source_hash { client } else { pick.random };
        let next = match &self.algorithm {
            Algorithm::RoundRobin(schedule) => schedule.slot(pick.turn),
            _ => 0,
        };
        let rng = Rng::new(pick.random);
        let order = Order { plan: self, pick, client, rng, pool, tried: Tried::default(), next };
        Choices(SlowStart::new(order, seed))
    }
}

impl<P: Pool + Copy> Choices<'_, P> {
    /// Returns the next choice, like [`Iterator::next`]. `pool` supplies the current warmth.
    pub fn next_of(&mut self, pool: P) -> Option<usize> {
        self.0.next_of(|index| pool.warmth(index))
    }
}

impl<P: Pool> Iterator for Order<'_, P> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let Plan { weights, eligible, algorithm } = self.plan;
        let Order { pick, client, rng, pool, tried, .. } = self;
        if tried.count() == eligible.len() {
            return None;
        }
        let choice = match algorithm {
            _ if eligible.len() == 1 => eligible.first().map(|index| *index as usize),
            Algorithm::RoundRobin(schedule) => round_robin::choice(schedule, tried, &mut self.next),
            _ if tried.count() >= RANKED_MAX => self.next_untried(),
            Algorithm::LeastConnections(schedule) if eligible.len() <= SAMPLE_MAX => {
                let start = schedule.at(schedule.slot(pick.turn))?;
                least_connections::of_all(eligible, start, weights, pool, tried)
            }
            Algorithm::LeastConnections(schedule) => {
                least_connections::of_sample(schedule, pick.turn, rng, weights, pool, tried)
            }
            Algorithm::P2c(weighted) => p2c::choice(weighted, rng, weights, pool, tried),
            Algorithm::Random(weighted) => weighted.sample(rng, tried, None),
            Algorithm::SourceHash(rings) => source_hash::choice(rings, *client, tried),
        }?;
        self.tried.add(choice);
        Some(choice)
    }
}

impl<P> Order<'_, P> {
    /// Returns the next eligible endpoint that was not tried, from a start that depends on the client.
    fn next_untried(&mut self) -> Option<usize> {
        let eligible = &self.plan.eligible;
        let start = rng::index_below(self.client, eligible.len());
        while self.next < eligible.len() {
            let position = (start + self.next) % eligible.len();
            self.next += 1;
            let index = eligible.get(position).map(|index| *index as usize);
            if let Some(index) = index.filter(|index| !self.tried.contains(*index)) {
                return Some(index);
            }
        }
        None
    }
}

/// Returns a hash of a client's address that is the same in every process.
pub(crate) fn client_hash(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => hash(&ip.octets()),
        IpAddr::V6(ip) => hash(&ip.octets()),
    }
}

#[cfg(test)]
mod tests;
