//! One endpoint of one cluster, and a session's place on it.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::Cluster;
use super::condition::{Condition, Standing};
use super::outlier::{Evidence, FAILURES_MAX, Outcome, Streak};
use super::reach::{Awaited, ConnectError, Reach};
use super::turnstile::{Slot, Turnstile};
use crate::address::EndpointKey;
use crate::balancer::client_hash;
use crate::client_net::ClientNet;
use crate::cluster::condition::ContainerHealth;
use crate::route::OnRemove;

/// One endpoint of one cluster, for as long as it is in it.
#[derive(Debug)]
pub struct Endpoint {
    pub key: EndpointKey,
    sessions: AtomicUsize,
    condition: AtomicU8,
    /// In a row; see [`Streak`].
    failures: AtomicU32,
    resets: Resets,
    reach: Reach,
    /// The last check failed. Written by the control plane alone.
    check_failure: ArcSwapOption<CheckFailure>,
    /// Its container is unhealthy. Written by the control plane alone.
    container_unhealthy: AtomicBool,
    /// When it joined. The zero of `warms_since_ms` and of `reach`.
    joined: Instant,
    /// Milliseconds after `joined`, plus one; zero for an endpoint that was warm from the start.
    warms_since_ms: AtomicU64,
    /// Cancelled when the endpoint leaves the cluster.
    removed: CancellationToken,
    /// Cancelled when its sessions must end; another one then, for those to come.
    cut: ArcSwap<CancellationToken>,
    /// The process's last word, the parent of every `cut`.
    force: CancellationToken,
    turnstile: Arc<Turnstile>,
}

#[derive(Debug)]
struct CheckFailure {
    why: String,
    at: Instant,
}

/// Why an endpoint did not answer, when it last did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    pub why: String,
    pub at: Instant,
    /// It has not answered since.
    pub is_current: bool,
}

impl Endpoint {
    pub(super) fn new(key: EndpointKey, cluster: &Cluster) -> Endpoint {
        Endpoint {
            key,
            sessions: AtomicUsize::new(0),
            condition: AtomicU8::new(Condition::default().encode()),
            failures: AtomicU32::new(0),
            resets: Resets::default(),
            reach: Reach::default(),
            check_failure: ArcSwapOption::empty(),
            container_unhealthy: AtomicBool::new(false),
            joined: Instant::now(),
            warms_since_ms: AtomicU64::new(0),
            removed: CancellationToken::new(),
            cut: ArcSwap::from_pointee(cluster.force.child_token()),
            force: cluster.force.clone(),
            turnstile: cluster.turnstile.clone(),
        }
    }

    pub(super) fn remove(&self, policy: OnRemove) {
        self.removed.cancel();
        if policy == OnRemove::Cut {
            self.cut_sessions();
        }
    }

    /// Ends the sessions that it has now, those that are being connected included.
    pub(super) fn cut_sessions(&self) {
        self.cut.swap(Arc::new(self.force.child_token())).cancel();
    }

    /// Its share of new sessions grows from nothing again, where the route has a slow start.
    pub(super) fn warm_from(&self, now: Instant) {
        let age = now.saturating_duration_since(self.joined).as_millis();
        self.warms_since_ms.store(u64::try_from(age).unwrap_or(u64::MAX - 1).saturating_add(1), Relaxed);
    }

    /// `None` for an endpoint that was warm from the start.
    pub(super) fn warms_since(&self) -> Option<Instant> {
        let since = self.warms_since_ms.load(Relaxed).checked_sub(1)?;
        self.joined.checked_add(Duration::from_millis(since))
    }

    pub fn condition(&self) -> Condition {
        Condition::decode(self.condition.load(Relaxed))
    }

    pub(super) fn set_condition(&self, condition: Condition) {
        self.condition.store(condition.encode(), Relaxed);
    }

    pub(super) fn standing(&self) -> Standing {
        self.condition().standing()
    }

    pub(super) fn streak(&self) -> Streak {
        Streak { failures: self.failures.load(Relaxed), resets: self.resets.count() }
    }

    pub(super) fn forget_streak(&self) {
        self.failures.store(0, Relaxed);
        self.resets.forget();
    }

    /// A connect failed. Returns whether that is news for the control plane.
    pub(super) fn failed(&self, error: ConnectError) -> bool {
        let is_report = self.reach.failed(error, self.joined.elapsed());
        self.failures.fetch_add(1, Relaxed) + 1 == FAILURES_MAX || is_report
    }

    /// A connect did not fail. Returns whether that is news for the control plane.
    pub(super) fn connected(&self) -> bool {
        // Read first, since the usual case must not take the cache line from other workers.
        self.failures.load(Relaxed) > 0 && self.failures.swap(0, Relaxed) >= FAILURES_MAX
    }

    /// The endpoint answered a connect. Returns whether that is news for the control plane.
    pub(super) fn answered(&self) -> bool {
        let is_report = self.reach.answered();
        self.connected() || is_report
    }

    /// As [`Cluster::unreachable`]. Returns whether that is news for the control plane.
    pub(super) fn unreachable(&self, error: ConnectError) -> bool {
        self.reach.failed(error, self.joined.elapsed())
    }

    /// As [`Cluster::reached`]. Returns whether that is news for the control plane.
    pub(super) fn reached(&self) -> bool {
        self.reach.answered()
    }

    /// The last connects failed, so that sessions wait.
    pub(super) fn refuses_connects(&self) -> bool {
        self.failures.load(Relaxed) > 0
    }

    /// A check passed, or failed for this reason.
    pub(super) fn checked(&self, result: Result<(), &str>) {
        match result {
            Ok(()) => {
                self.reach.answered();
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

    /// What its container's own health check says. Returns whether it is healthy after it was not.
    pub fn note_container(&self, health: ContainerHealth) -> bool {
        let is_unhealthy = health == ContainerHealth::Unhealthy;
        let was_unhealthy = self.container_unhealthy.swap(is_unhealthy, Relaxed);
        was_unhealthy && health == ContainerHealth::Healthy
    }

    /// By the health check of its container.
    pub fn has_unhealthy_container(&self) -> bool {
        self.container_unhealthy.load(Relaxed)
    }

    /// The last connect failed, or the last datagram was refused.
    pub fn is_failing(&self) -> bool {
        self.reach.is_failing()
    }

    pub(super) fn connect_error(&self) -> Option<ConnectError> {
        self.reach.last().map(|(error, _)| error)
    }

    /// Returns whether what is awaited has happened already.
    pub(super) fn set_awaited(&self, awaited: Awaited) -> bool {
        self.reach.set_awaited(awaited)
    }

    /// Of its connects and checks, the later one.
    pub fn last_error(&self) -> Option<LastError> {
        let connect = self.reach.last().and_then(|(error, after)| {
            let at = self.joined.checked_add(after)?;
            Some(LastError { why: error.to_string(), at, is_current: self.is_failing() })
        });
        let check = self.check_failure.load();
        let check = check.as_deref().map(|CheckFailure { why, at }| LastError {
            why: why.clone(),
            at: *at,
            is_current: true,
        });
        connect.into_iter().chain(check).max_by_key(|error| error.at)
    }

    /// A session ended. Returns whether that is news for outlier detection.
    pub(super) fn ended(&self, outcome: &Outcome) -> bool {
        match outcome.evidence() {
            Some(Evidence::ResetOn(client)) => self.resets.add(client_tag(client)),
            Some(Evidence::Unreachable) => self.resets.add(EACH),
            Some(Evidence::Served) => {
                self.resets.forget();
                false
            }
            None => false,
        }
    }

    /// Sessions on this endpoint now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(SeqCst)
    }

    /// No longer in its cluster. A dial that was under way then must not become a session: the address may be
    /// somebody else's by now.
    pub fn is_removed(&self) -> bool {
        self.removed.is_cancelled()
    }

    pub async fn removed(&self) {
        self.removed.cancelled().await;
    }
}

/// The clients of the resets in a row, as many as it takes to eject: each in a place of its own, the first places first.
#[derive(Debug, Default)]
struct Resets([AtomicU32; FAILURES_MAX as usize]);

const FREE: u32 = 0;
/// A reset that counts whoever the client was.
const EACH: u32 = 1;

/// Two clients with the same tag count as one, which ejects nobody.
fn client_tag(client: Option<ClientNet>) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
    let tag = client.map_or(0, |client| client_hash(client.ip()) as u32);
    tag.max(EACH + 1)
}

impl Resets {
    /// Returns whether the last place was taken by this.
    fn add(&self, tag: u32) -> bool {
        for (n, place) in self.0.iter().enumerate() {
            match place.compare_exchange(FREE, tag, Relaxed, Relaxed) {
                Ok(_) => return n + 1 == self.0.len(),
                Err(other) if other == tag && tag != EACH => return false,
                Err(_) => {}
            }
        }
        false
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|place| u32::from(place.load(Relaxed) != FREE)).sum()
    }

    /// The first place is freed last, so that all are free when it is.
    fn forget(&self) {
        // Read first, since the usual case must not take the cache line from other workers.
        if self.0.first().is_some_and(|first| first.load(Relaxed) != FREE) {
            self.0.iter().rev().for_each(|place| place.store(FREE, Relaxed));
        }
    }
}

/// A session's place on an endpoint: counted from the first attempt to connect until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// As it was when the session came.
    cut: Arc<CancellationToken>,
    /// Its place in the route, from when it is connected.
    slot: Option<Slot>,
}

impl InFlight {
    /// `None` where there are `max` sessions already.
    pub fn on(endpoint: Arc<Endpoint>, max: Option<u32>) -> Option<InFlight> {
        let max = max.map_or(usize::MAX, |max| max as usize);
        let one_more = |sessions: usize| (sessions < max).then_some(sessions + 1);
        // See `Cluster::takes_sessions` for the order.
        endpoint.sessions.fetch_update(SeqCst, Relaxed, one_more).ok()?;
        let cut = endpoint.cut.load_full();
        Some(InFlight { endpoint, cut, slot: None })
    }

    pub(super) fn connected(self, slot: Slot) -> InFlight {
        let mut this = self;
        this.slot = Some(slot);
        this
    }

    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.clone()
    }

    /// Resolves when the session must end.
    pub fn cut(&self) -> WaitForCancellationFuture<'_> {
        self.cut.cancelled()
    }

    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }
}

impl std::ops::Deref for InFlight {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.sessions.fetch_sub(1, Relaxed);
        // An attempt that failed calls nobody: those who wait would fail one after the other, and without a pause.
        if self.slot.is_some() {
            self.endpoint.turnstile.room.call();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_takes_one_place_and_the_last_place_is_news() {
        let resets = Resets::default();
        let added = [7, 7, 8, 7, EACH, EACH, 9, 9, 10].map(|tag| resets.add(tag));
        assert_eq!(added, [false, false, false, false, false, false, true, false, false]);
        assert_eq!(resets.count(), FAILURES_MAX);
        resets.forget();
        assert_eq!((resets.count(), resets.add(7)), (0, false));
    }
}
