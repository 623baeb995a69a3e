//! One endpoint of one cluster: its sessions, its condition, and its recent failures.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::condition::{Condition, ContainerHealth, Preference};
use super::outlier::{Evidence, FAILURES_MAX, Outcome, Streak};
use super::reachability::{Awaited, ConnectError, Reachability};
use crate::address::EndpointKey;
use crate::balancer::client_hash;
use crate::client_net::ClientNet;
use crate::route::OnRemove;

/// One endpoint of one cluster, from joining to leaving it.
#[derive(Debug)]
pub struct Endpoint {
    /// Address and identity.
    pub key: EndpointKey,
    sessions: AtomicUsize,
    /// An encoded [`Condition`].
    condition: AtomicU8,
    /// Failed connects in a row; see [`Streak`].
    failures: AtomicU32,
    resets: Resets,
    reachability: Reachability,
    /// The last check, if it failed. Written by the control plane alone.
    check_failure: ArcSwapOption<CheckFailure>,
    /// Whether its container is unhealthy. Written by the control plane alone.
    container_unhealthy: AtomicBool,
    /// When it joined. The zero of `warms_since_ms` and of `reachability`.
    joined: Instant,
    /// Milliseconds after `joined`, plus one. Zero for an endpoint that does not warm up.
    warms_since_ms: AtomicU64,
    /// Cancelled when the endpoint leaves the cluster.
    removed: CancellationToken,
    /// Cancelled when its sessions must end, and replaced for later sessions.
    cut: ArcSwap<CancellationToken>,
    /// Cancelled when the process ends all sessions. The parent of every `cut`.
    force: CancellationToken,
}

#[derive(Debug)]
struct CheckFailure {
    why: String,
    at: Instant,
}

/// The last failed connect or check of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastError {
    /// The cause, for people.
    pub why: String,
    /// What to do, if the endpoint is that of a peer.
    pub help: Option<&'static str>,
    /// When it happened.
    pub at: Instant,
    /// Whether the endpoint has not answered since.
    pub is_current: bool,
}

impl Endpoint {
    pub(super) fn new(key: EndpointKey, force: CancellationToken) -> Endpoint {
        Endpoint {
            key,
            sessions: AtomicUsize::new(0),
            condition: AtomicU8::new(Condition::default().encode()),
            failures: AtomicU32::new(0),
            resets: Resets::default(),
            reachability: Reachability::default(),
            check_failure: ArcSwapOption::empty(),
            container_unhealthy: AtomicBool::new(false),
            joined: Instant::now(),
            warms_since_ms: AtomicU64::new(0),
            removed: CancellationToken::new(),
            cut: ArcSwap::from_pointee(force.child_token()),
            force,
        }
    }

    pub(super) fn remove(&self, policy: OnRemove) {
        self.removed.cancel();
        if policy == OnRemove::Cut {
            self.cut_sessions();
        }
    }

    /// Ends its current sessions, including those that are connecting.
    pub(super) fn cut_sessions(&self) {
        self.cut.swap(Arc::new(self.force.child_token())).cancel();
    }

    /// Counts a session, unless there are `max` already. Returns the token that ends the session.
    pub(super) fn begin_session(&self, max: Option<u32>) -> Option<Arc<CancellationToken>> {
        let max = max.map_or(usize::MAX, |max| max as usize);
        let one_more = |sessions: usize| (sessions < max).then_some(sessions + 1);
        // See `Cluster::takes_sessions` for the ordering.
        self.sessions.fetch_update(SeqCst, Relaxed, one_more).ok()?;
        Some(self.cut.load_full())
    }

    pub(super) fn end_session(&self) {
        self.sessions.fetch_sub(1, Relaxed);
    }

    /// Begins the slow start, where the route has one.
    pub(super) fn warm_from(&self, now: Instant) {
        let age = now.saturating_duration_since(self.joined).as_millis();
        self.warms_since_ms.store(u64::try_from(age).unwrap_or(u64::MAX - 1).saturating_add(1), Relaxed);
    }

    /// Returns when the slow start began. `None` for an endpoint that does not warm up.
    pub(super) fn warms_since(&self) -> Option<Instant> {
        let since = self.warms_since_ms.load(Relaxed).checked_sub(1)?;
        self.joined.checked_add(Duration::from_millis(since))
    }

    /// Returns the result of health checks and outlier detection.
    pub fn condition(&self) -> Condition {
        Condition::decode(self.condition.load(Relaxed))
    }

    pub(super) fn set_condition(&self, condition: Condition) {
        self.condition.store(condition.encode(), Relaxed);
    }

    pub(super) fn preference(&self) -> Preference {
        self.condition().preference()
    }

    pub(super) fn streak(&self) -> Streak {
        Streak { failures: self.failures.load(Relaxed), resets: self.resets.count() }
    }

    pub(super) fn clear_streak(&self) {
        self.failures.store(0, Relaxed);
        self.resets.clear();
    }

    /// Records a failed connect. Returns whether to wake the monitor.
    pub(super) fn failed(&self, error: ConnectError) -> bool {
        let is_outage = self.reachability.failed(error, self.joined.elapsed());
        self.failures.fetch_add(1, Relaxed) + 1 == FAILURES_MAX || is_outage
    }

    /// Records a connect that did not fail. Returns whether to wake the monitor.
    pub(super) fn connected(&self) -> bool {
        // Read first: in the usual case this must not take the cache line from other workers.
        self.failures.load(Relaxed) > 0 && self.failures.swap(0, Relaxed) >= FAILURES_MAX
    }

    /// Records a connect that the endpoint answered. Returns whether to wake the monitor.
    pub(super) fn answered(&self) -> bool {
        let is_outage_over = self.reachability.answered();
        self.connected() || is_outage_over
    }

    /// Records a refused datagram, like [`Cluster::unreachable`](super::Cluster::unreachable).
    pub(super) fn unreachable(&self, error: ConnectError) -> bool {
        self.reachability.failed(error, self.joined.elapsed())
    }

    /// Records that datagrams arrive, like [`Cluster::reached`](super::Cluster::reached).
    pub(super) fn reached(&self) -> bool {
        self.reachability.answered()
    }

    /// Returns whether the last connects failed, so that sessions wait.
    pub(super) fn refuses_connects(&self) -> bool {
        self.failures.load(Relaxed) > 0
    }

    /// Records the result of a health check.
    pub(super) fn checked(&self, result: Result<(), &str>) {
        match result {
            Ok(()) => {
                self.reachability.answered();
                if self.check_failure.load().is_some() {
                    self.check_failure.store(None);
                }
            }
            Err(why) => {
                let failure = CheckFailure { why: why.to_owned(), at: Instant::now() };
                self.check_failure.store(Some(Arc::new(failure)));
            }
        }
    }

    /// Records the health of its container. Returns whether the container has recovered.
    pub(crate) fn set_container_health(&self, health: ContainerHealth) -> bool {
        let is_unhealthy = health == ContainerHealth::Unhealthy;
        let was_unhealthy = self.container_unhealthy.swap(is_unhealthy, Relaxed);
        was_unhealthy && health == ContainerHealth::Healthy
    }

    /// Returns whether the health check of its container fails.
    pub(crate) fn has_unhealthy_container(&self) -> bool {
        self.container_unhealthy.load(Relaxed)
    }

    /// Returns whether the last connect failed, or the last datagram was refused.
    pub(crate) fn is_failing(&self) -> bool {
        self.reachability.is_failing()
    }

    pub(super) fn connect_error(&self) -> Option<ConnectError> {
        self.reachability.last().map(|(error, _)| error)
    }

    /// Sets the event that wakes the monitor. Returns whether it has happened already.
    pub(super) fn set_awaited(&self, awaited: Awaited) -> bool {
        self.reachability.set_awaited(awaited)
    }

    /// Returns the later one of the last failed connect and the last failed check.
    pub(crate) fn last_error(&self) -> Option<LastError> {
        let connect = self.reachability.last().and_then(|(error, after)| {
            let at = self.joined.checked_add(after)?;
            Some(LastError { why: error.to_string(), help: error.help(), at, is_current: self.is_failing() })
        });
        let check = self.check_failure.load();
        let check = check.as_deref().map(|CheckFailure { why, at }| LastError {
            why: why.clone(),
            help: None,
            at: *at,
            is_current: true,
        });
        connect.into_iter().chain(check).max_by_key(|error| error.at)
    }

    /// Records the outcome of a session. Returns whether to wake the monitor.
    pub(super) fn ended(&self, outcome: &Outcome) -> bool {
        match outcome.evidence() {
            Some(Evidence::ResetOn(client)) => self.resets.add(client_tag(client)),
            Some(Evidence::Unreachable) => self.resets.add(ALWAYS_COUNTED),
            Some(Evidence::Served) => {
                self.resets.clear();
                false
            }
            None => false,
        }
    }

    /// Returns the number of its current sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.load(SeqCst)
    }

    /// Returns whether it has left its cluster. A dial in progress must then not become a session, because the address may have
    /// been reassigned.
    pub fn is_removed(&self) -> bool {
        self.removed.is_cancelled()
    }

    /// Waits until it leaves its cluster.
    pub(crate) async fn removed(&self) {
        self.removed.cancelled().await;
    }
}

/// The clients of consecutive resets, up to the number that ejects the endpoint. Entries are filled from the first.
#[derive(Debug, Default)]
struct Resets([AtomicU32; FAILURES_MAX as usize]);

/// An unused entry.
const FREE: u32 = 0;
/// The tag of a reset that counts whatever the client.
const ALWAYS_COUNTED: u32 = 1;

/// Returns a tag of the client. Clients whose tags collide count as one, which errs towards not ejecting.
fn client_tag(client: Option<ClientNet>) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
    let tag = client.map_or(0, |client| client_hash(client.ip()) as u32);
    tag.max(ALWAYS_COUNTED + 1)
}

impl Resets {
    /// Adds a reset. Returns whether it filled the last entry.
    fn add(&self, tag: u32) -> bool {
        for (n, entry) in self.0.iter().enumerate() {
            match entry.compare_exchange(FREE, tag, Relaxed, Relaxed) {
                Ok(_) => return n + 1 == self.0.len(),
                Err(other) if other == tag && tag != ALWAYS_COUNTED => return false,
                Err(_) => {}
            }
        }
        false
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|entry| u32::from(entry.load(Relaxed) != FREE)).sum()
    }

    /// Frees all entries, the first one last: where it is free, all are.
    fn clear(&self) {
        // Read first: in the usual case this must not take the cache line from other workers.
        if self.0.first().is_some_and(|first| first.load(Relaxed) != FREE) {
            self.0.iter().rev().for_each(|entry| entry.store(FREE, Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_fills_one_entry_and_the_last_entry_is_reported() {
        let resets = Resets::default();
        let added = [7, 7, 8, 7, ALWAYS_COUNTED, ALWAYS_COUNTED, 9, 9, 10].map(|tag| resets.add(tag));
        assert_eq!(added, [false, false, false, false, false, false, true, false, false]);
        assert_eq!(resets.count(), FAILURES_MAX);
        resets.clear();
        assert_eq!((resets.count(), resets.add(7)), (0, false));
    }
}
