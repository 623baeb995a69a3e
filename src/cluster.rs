//! The endpoints of a route and their state, as sessions see them.
//!
//! The control plane replaces a cluster's [`Members`] as a whole. A session loads them without a lock, and waits for
//! [`Cluster::changes`] when none of them answers. An endpoint that is in the old and the new members stays the same value and
//! keeps its counters and sessions; one that leaves is marked as removed.

pub mod acquire;
mod choices;
pub mod condition;
mod counters;
mod endpoint;
pub mod health;
mod log_limit;
mod members;
pub mod monitor;
mod outage;
pub mod outlier;
mod reachability;
pub mod timings;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use acquire::InFlight;
pub use counters::Counters;
pub use endpoint::Endpoint;
pub use members::{Member, Members, MembershipChange, Tier};
pub use reachability::ConnectError;

use crate::address::EndpointSpec;
use crate::backoff;
use crate::balancer::nth;
use crate::budget::Share;
use crate::ending::Ending;
use crate::fd_budget::RouteFds;
use crate::ordered::CollectOrdered;
use crate::route::{OnRemove, Options};
use acquire::Admission;
use log_limit::LogLimit;
use outlier::Outcome;

/// A named group of endpoints with one policy, and the counters of its sessions.
#[derive(Debug)]
pub struct Cluster {
    members: ArcSwap<Members>,
    /// Notified at each change of members, and when an endpoint answers again.
    changed: Notify,
    /// Counts picks; the position of the balancer.
    turn: AtomicU64,
    /// The seed of the balancer's random numbers, which are numbered by `turn`, and of the jitter, numbered by `pauses`.
    seed: u64,
    pauses: AtomicU64,
    /// Limits the sessions of the cluster, and those of each endpoint.
    admission: Arc<Admission>,
    /// Wakes the cluster's [`monitor`], which is a single task, so one permit is enough.
    monitor_wakeup: Notify,
    paused: AtomicBool,
    /// Why the cluster has no endpoint. Written by the control plane alone.
    problem: ArcSwapOption<String>,
    /// Cancelled when the process ends all sessions. The parent of every endpoint's `cut` token.
    force: CancellationToken,
    log_limit: LogLimit,
    /// The cluster's share of the sessions that may be held (`--max-held`).
    held: Share,
    /// The cluster's share of the file descriptors.
    pub fds: Arc<RouteFds>,
    /// Totals of its sessions.
    pub counters: Counters,
}

impl Cluster {
    /// Creates a cluster without endpoints. `force` ends all of its sessions.
    pub fn new(options: Options, force: CancellationToken) -> Cluster {
        // Every RandomState has its own key.
        let seed = RandomState::new().hash_one(&options.name);
        // A random first turn, so that many ambassadors with few sessions do not all begin with the same endpoint.
        Cluster { turn: AtomicU64::new(nth(seed, 0) >> 1), ..Cluster::seeded(options, force, seed) }
    }

    /// Creates a deterministic cluster, for tests. Its first turn is that of the first endpoint.
    pub fn seeded(options: Options, force: CancellationToken, seed: u64) -> Cluster {
        let members = Members { options, rate: None, tiers: Vec::new() };
        Cluster {
            members: ArcSwap::from_pointee(members),
            changed: Notify::new(),
            turn: AtomicU64::new(0),
            seed,
            pauses: AtomicU64::new(0),
            admission: Arc::default(),
            monitor_wakeup: Notify::new(),
            paused: AtomicBool::new(false),
            problem: ArcSwapOption::empty(),
            force,
            log_limit: LogLimit::default(),
            held: Share::default(),
            fds: RouteFds::unlimited(),
            counters: Counters::default(),
        }
    }

    /// Takes the descriptors of its sessions from `fds`.
    pub fn within(self, fds: Arc<RouteFds>) -> Cluster {
        Cluster { fds, ..self }
    }

    /// Returns the current members. Must not be kept across an `await`; see [`Cluster::members_arc`].
    pub fn members(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Returns the current members, for any length of time. Costs more than [`Cluster::members`].
    pub fn members_arc(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Replaces policy and endpoints. Endpoints that are in both keep their state. Returns the difference.
    pub fn update(&self, options: &Options, specs: &[EndpointSpec]) -> MembershipChange {
        self.update_with(options, specs, options.on_remove)
    }

    /// As [`Cluster::update`], with another policy for the endpoints that this update removes.
    pub fn update_with(
        &self,
        options: &Options,
        specs: &[EndpointSpec],
        on_remove: OnRemove,
    ) -> MembershipChange {
        let old = self.members_arc();
        let specs: BTreeSet<&EndpointSpec> = specs.iter().collect_ordered();
        if old.options == *options && old.specs().iter().eq(specs.iter().copied()) {
            return MembershipChange::default();
        }
        let new = Arc::new(Members {
            options: options.clone(),
            rate: options.rate.map(|_| old.rate.clone().unwrap_or_default()),
            tiers: self.tiers(&old, options, specs),
        });
        let change = old.change_to(&new);
        let (before, after) = (old.by_key(), new.by_key());
        if !before.is_empty() {
            // Not where all endpoints are new, as at the start: slow start would have no other endpoint to prefer.
            let joined = change.joined.iter().filter_map(|key| after.get(key));
            joined.for_each(|endpoint| endpoint.warm_from(Instant::now()));
        }
        self.members.store(new.clone());
        for endpoint in change.left.iter().filter_map(|key| before.get(key)) {
            endpoint.remove(on_remove);
        }
        self.changed.notify_waiters();
        self.monitor_wakeup.notify_one();
        change
    }

    /// Rebuilds the plans of the members after the condition of an endpoint has changed. Like [`Cluster::update`], this may only
    /// be called on the control plane's thread.
    fn rebuild_plans(&self) -> Arc<Members> {
        let Members { options, rate, tiers } = &*self.members_arc();
        let rebuilt = |tier: &Tier| Tier::new(tier.number, tier.members.clone(), options.balance);
        let tiers = tiers.iter().map(rebuilt).collect();
        let members = Arc::new(Members { options: options.clone(), rate: rate.clone(), tiers });
        self.members.store(members.clone());
        members
    }

    /// Groups `specs`, which are sorted, but not by tier. Endpoints of `old` are reused.
    fn tiers(&self, old: &Members, options: &Options, specs: BTreeSet<&EndpointSpec>) -> Vec<Tier> {
        let known = old.by_key();
        let mut tiers: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for EndpointSpec { key, weight, tier } in specs {
            let endpoint = match known.get(key) {
                Some(endpoint) => (*endpoint).clone(),
                None => Arc::new(Endpoint::new(key.clone(), self.force.clone())),
            };
            tiers.entry(*tier).or_default().push(Member { endpoint, weight: *weight });
        }
        tiers.into_iter().map(|(number, members)| Tier::new(number, members, options.balance)).collect()
    }

    /// Removes all endpoints of a route that is closed. Their sessions end according to `on-remove`.
    pub fn close(&self) {
        let members = self.members_arc();
        self.update(&members.options, &[]);
    }

    /// Records the outcome of a session that was connected to `endpoint`.
    pub fn ended(&self, endpoint: &Endpoint, outcome: &Outcome) {
        if endpoint.ended(outcome) {
            self.monitor_wakeup.notify_one();
        }
    }

    /// Records that a datagram to this endpoint was refused (ICMP).
    pub(crate) fn unreachable(&self, endpoint: &Endpoint, error: &io::Error) {
        if endpoint.unreachable(ConnectError::of(error)) {
            self.monitor_wakeup.notify_one();
        }
    }

    /// Records that datagrams reach this endpoint.
    pub(crate) fn reached(&self, endpoint: &Endpoint) {
        if endpoint.reached() {
            self.monitor_wakeup.notify_one();
        }
    }

    /// Counts a session that cost its client nothing. Returns whether to log it; see [`log_limit`].
    pub(crate) fn should_log(&self, ending: Ending) -> bool {
        let is_first = self.log_limit.count(ending);
        if is_first {
            self.monitor_wakeup.notify_one();
        }
        is_first
    }

    /// Resolves at the next change of options or endpoints, and sometimes without a change.
    pub(crate) fn changes(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Shortens `pause` like [`backoff::jittered`], but reproducibly for clusters of the same seed.
    fn jittered(&self, pause: Duration) -> Duration {
        let bits = nth(!self.seed, self.pauses.fetch_add(1, Relaxed));
        backoff::jittered_by(pause, bits)
    }

    /// Returns the number of sessions that count towards `max-sessions`.
    pub fn admitted(&self) -> usize {
        self.admission.admitted()
    }

    /// Sets why the cluster has no endpoint, for the log of its sessions. `None` if it has one.
    pub(crate) fn set_problem(&self, problem: Option<&String>) {
        if self.problem.load().as_deref() != problem {
            self.problem.store(problem.cloned().map(Arc::new));
        }
    }

    /// Returns why the cluster has no endpoint, if it has none.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// Pauses or resumes the route. New sessions of a paused route are held.
    pub fn pause(&self, paused: bool) {
        if self.paused.swap(paused, SeqCst) != paused {
            self.changed.notify_waiters();
        }
    }

    /// Returns whether the route is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(SeqCst)
    }
}

#[cfg(test)]
mod tests;
