//! The endpoints of a route and what is known about each, as sessions see them.
//!
//! The control plane replaces a cluster's [`Members`] as a whole; a session loads them without a lock and waits on
//! [`Cluster::changed`] when none of them answers. An endpoint that stays keeps its counters, since it stays the same
//! value; one that leaves is told so, and its sessions with it.

mod attempt;
mod choices;
pub mod condition;
mod endpoint;
pub mod health;
pub mod hold;
mod outage;
pub mod outlier;
mod reach;
mod repeats;
pub mod timings;
mod turnstile;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use endpoint::{Endpoint, InFlight, LastError};
pub use reach::ConnectError;

use crate::address::EndpointKey;
use crate::address::EndpointSpec;
use crate::backoff;
use crate::balancer::{Plan, nth};
use crate::budget::Share;
use crate::ending::Ending;
use crate::fd_budget::RouteFds;
use crate::limit::RateLimit;
use crate::relay::Direction;
use crate::route::{OnRemove, Options};
use outlier::Outcome;
use repeats::Repeats;
use timings::Timings;
use turnstile::Turnstile;

/// The endpoints and the policy of a cluster at one moment.
#[derive(Debug)]
pub struct Members {
    pub options: Options,
    /// Of new sessions; kept from one to the next.
    pub rate: Option<Arc<RateLimit>>,
    /// None is empty. The first is tried before the second.
    pub tiers: Vec<Tier>,
}

/// Endpoints that are equally good.
#[derive(Debug)]
pub struct Tier {
    /// As in [`EndpointSpec::tier`].
    pub number: u32,
    pub members: Vec<Member>,
    /// How to balance over those of `members` that stand alike, by standing.
    plans: [Option<Plan>; 3],
}

#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    /// As in [`EndpointSpec::weight`].
    pub weight: u32,
}

/// A named group of endpoints with one policy, and what its sessions have done.
#[derive(Debug)]
pub struct Cluster {
    members: ArcSwap<Members>,
    /// Notified at each change of members, and when an endpoint answers after one did not.
    changed: Notify,
    /// Where the next round of the balancer starts.
    turn: AtomicU64,
    /// What its balancers draw their lots from, with `turn`; and its pauses, with `pauses`.
    seed: u64,
    pauses: AtomicU64,
    /// Bounds its sessions, and those of each endpoint.
    turnstile: Arc<Turnstile>,
    /// Notified when there is something for [`watch`] to look at. It is one task, so that one permit is enough.
    alarm: Notify,
    /// An operator wants new sessions held.
    paused: AtomicBool,
    /// Why it has no endpoint. Written by the control plane alone.
    problem: ArcSwapOption<String>,
    /// The process's own last word; the parent of every endpoint's `cut`.
    force: CancellationToken,
    repeats: Repeats,
    /// Its part of the sessions that may wait (`--max-held`), and of the file descriptors.
    held: Share,
    pub fds: Arc<RouteFds>,
    pub counters: Counters,
}

/// Totals since the route was opened.
#[derive(Debug, Default)]
pub struct Counters {
    pub active: AtomicUsize,
    pub held: AtomicUsize,
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
    pub timings: Timings,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl Cluster {
    pub fn new(options: Options, force: CancellationToken) -> Cluster {
        // Each RandomState has a key of its own.
        let seed = RandomState::new().hash_one(&options.name);
        // Of many ambassadors with a few sessions each, not all shall begin with the same endpoint.
        Cluster { turn: AtomicU64::new(nth(seed, 0) >> 1), ..Cluster::seeded(options, force, seed) }
    }

    /// One that does the same each time, for tests; its first turn is the first endpoint's.
    pub fn seeded(options: Options, force: CancellationToken, seed: u64) -> Cluster {
        let members = Members { options, rate: None, tiers: Vec::new() };
        Cluster {
            members: ArcSwap::from_pointee(members),
            changed: Notify::new(),
            turn: AtomicU64::new(0),
            seed,
            pauses: AtomicU64::new(0),
            turnstile: Arc::default(),
            alarm: Notify::new(),
            paused: AtomicBool::new(false),
            problem: ArcSwapOption::empty(),
            force,
            repeats: Repeats::default(),
            held: Share::default(),
            fds: RouteFds::unlimited(),
            counters: Counters::default(),
        }
    }

    /// With these for the descriptors of its sessions.
    pub fn within(self, fds: Arc<RouteFds>) -> Cluster {
        Cluster { fds, ..self }
    }

    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// The members for a glance: cheaper than [`Cluster::members`], not to be kept across an `await`.
    pub fn glance(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Replaces policy and endpoints; endpoints in both stay what they are. Returns who joined and who left.
    pub fn update(&self, options: &Options, specs: &[EndpointSpec]) -> Change {
        self.update_with(options, specs, options.on_remove)
    }

    /// As [`Cluster::update`], with another policy for the endpoints that this update removes.
    pub fn update_with(&self, options: &Options, specs: &[EndpointSpec], on_remove: OnRemove) -> Change {
        let old = self.members();
        let specs: BTreeSet<&EndpointSpec> = specs.iter().collect();
        if old.options == *options && old.specs().iter().eq(specs.iter().copied()) {
            return Change::default();
        }
        let new = Arc::new(Members {
            options: options.clone(),
            rate: options.rate.map(|_| old.rate.clone().unwrap_or_default()),
            tiers: self.tiers(&old, options, specs),
        });
        let (before, after) = (old.by_key(), new.by_key());
        let only = |these: &ByKey<'_>, those: &ByKey<'_>| -> Vec<EndpointKey> {
            these.keys().filter(|key| !those.contains_key(*key)).map(|key| (*key).clone()).collect()
        };
        let change = Change { joined: only(&after, &before), left: only(&before, &after) };
        if !before.is_empty() {
            // Where all are new, as at the start, nobody could spare them.
            change
                .joined
                .iter()
                .filter_map(|key| after.get(key))
                .for_each(|new| new.warm_from(Instant::now()));
        }
        self.members.store(new.clone());
        for endpoint in change.left.iter().filter_map(|key| before.get(key)) {
            endpoint.remove(on_remove);
        }
        self.changed.notify_waiters();
        self.alarm.notify_one();
        change
    }

    /// Endpoints stand otherwise than they did: the order of their members is made anew. As `update`, this is for the control
    /// plane's thread alone.
    fn regroup(&self) -> Arc<Members> {
        let Members { options, rate, tiers } = &*self.members();
        let again = |tier: &Tier| Tier::new(tier.number, tier.members.clone(), options.balance);
        let tiers = tiers.iter().map(again).collect();
        let members = Arc::new(Members { options: options.clone(), rate: rate.clone(), tiers });
        self.members.store(members.clone());
        members
    }

    /// `specs` are sorted, but not by tier.
    fn tiers(&self, old: &Members, options: &Options, specs: BTreeSet<&EndpointSpec>) -> Vec<Tier> {
        let known = old.by_key();
        let mut tiers: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for EndpointSpec { key, weight, tier } in specs {
            let endpoint = match known.get(key) {
                Some(endpoint) => (*endpoint).clone(),
                None => Arc::new(Endpoint::new(key.clone(), self)),
            };
            tiers.entry(*tier).or_default().push(Member { endpoint, weight: *weight });
        }
        tiers.into_iter().map(|(number, members)| Tier::new(number, members, options.balance)).collect()
    }

    /// Ends what the cluster's endpoints still serve, as their removal would: for a route that is closed.
    pub fn close(&self) {
        let members = self.members();
        self.update(&members.options, &[]);
    }

    /// A session that was on this endpoint has ended.
    pub fn ended(&self, endpoint: &Endpoint, outcome: &Outcome) {
        if endpoint.ended(outcome) {
            self.alarm.notify_one();
        }
    }

    /// A datagram to this endpoint was refused (ICMP).
    pub fn unreachable(&self, endpoint: &Endpoint, error: &io::Error) {
        if endpoint.unreachable(ConnectError::of(error)) {
            self.alarm.notify_one();
        }
    }

    /// Datagrams reach this endpoint.
    pub fn reached(&self, endpoint: &Endpoint) {
        if endpoint.reached() {
            self.alarm.notify_one();
        }
    }

    /// Counts a session that cost its client nothing. Returns whether to log it; see [`repeats`].
    pub fn is_worth_a_line(&self, ending: Ending) -> bool {
        let is_first = self.repeats.note(ending);
        if is_first {
            self.alarm.notify_one();
        }
        is_first
    }

    /// Resolves at the next change of options or endpoints, and sometimes without a change.
    pub fn changes(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// As [`backoff::jittered`], the same each time for a cluster of the same seed.
    fn jittered(&self, pause: Duration) -> Duration {
        let bits = nth(!self.seed, self.pauses.fetch_add(1, Relaxed));
        backoff::jittered_by(pause, bits)
    }

    /// Sessions that have a place in the route now; see `max-sessions`.
    pub fn inside(&self) -> usize {
        self.turnstile.inside()
    }

    /// Holds new sessions, or lets them go on.
    pub fn pause(&self, paused: bool) {
        if self.paused.swap(paused, SeqCst) != paused {
            self.changed.notify_waiters();
        }
    }

    /// Why it has no endpoint, for the log of its sessions. `None` when it has one.
    pub fn note_problem(&self, problem: Option<&String>) {
        if self.problem.load().as_deref() != problem {
            self.problem.store(problem.cloned().map(Arc::new));
        }
    }

    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(SeqCst)
    }

    pub fn moved(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::Up => &self.counters.bytes_up,
            Direction::Down => &self.counters.bytes_down,
        };
        counter.fetch_add(bytes as u64, Relaxed);
    }
}

type ByKey<'m> = BTreeMap<&'m EndpointKey, &'m Arc<Endpoint>>;

/// Who joined and who left a cluster in one update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub joined: Vec<EndpointKey>,
    pub left: Vec<EndpointKey>,
}

impl Members {
    /// Tier by tier.
    pub fn all(&self) -> impl Iterator<Item = (&Tier, &Member)> {
        self.tiers.iter().flat_map(|tier| tier.members.iter().map(move |member| (tier, member)))
    }

    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    /// Whether this very endpoint is in it, and not drained.
    fn takes_sessions(&self, endpoint: &Endpoint) -> bool {
        self.all().any(|(_, member)| std::ptr::eq(&*member.endpoint, endpoint) && member.weight > 0)
    }

    fn by_key(&self) -> ByKey<'_> {
        self.all().map(|(_, member)| (&member.endpoint.key, &member.endpoint)).collect()
    }

    fn specs(&self) -> BTreeSet<EndpointSpec> {
        let spec = |(tier, member): (&Tier, &Member)| EndpointSpec {
            key: member.endpoint.key.clone(),
            weight: member.weight,
            tier: tier.number,
        };
        self.all().map(spec).collect()
    }
}

impl Counters {
    pub fn ended(&self, ending: Ending) {
        if let Some(counter) = self.endings.get(ending as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Every ending with its count, zeros included.
    pub fn endings(&self) -> impl Iterator<Item = (Ending, u64)> {
        Ending::ALL.into_iter().zip(&self.endings).map(|(ending, count)| (ending, count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests;
