//! One endpoint of one cluster, and a session's place on it.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::condition::{Condition, Standing};
use super::outlier::{FAILURES_MAX, Streak};
use super::turnstile::{Slot, Turnstile};
use super::{Cluster, EndpointKey};
use crate::ending::Ending;
use crate::route::OnRemove;

/// A session that its endpoint reset within this time, without a byte, was not served by it.
const INSTANT: Duration = Duration::from_secs(1);

/// One endpoint of one cluster, for as long as it is in it.
#[derive(Debug)]
pub struct Endpoint {
    pub key: EndpointKey,
    sessions: AtomicUsize,
    condition: AtomicU8,
    /// In a row; see [`Streak`].
    failures: AtomicU32,
    resets: AtomicU32,
    /// When it joined. The zero of `warms_since_ms`.
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

impl Endpoint {
    pub(super) fn new(key: EndpointKey, cluster: &Cluster) -> Endpoint {
        Endpoint {
            key,
            sessions: AtomicUsize::new(0),
            condition: AtomicU8::new(Condition::default().encode()),
            failures: AtomicU32::new(0),
            resets: AtomicU32::new(0),
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
        Streak { failures: self.failures.load(Relaxed), resets: self.resets.load(Relaxed) }
    }

    pub(super) fn forget_streak(&self) {
        self.failures.store(0, Relaxed);
        self.resets.store(0, Relaxed);
    }

    /// A connect failed. Returns whether that is news for outlier detection.
    pub(super) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Relaxed) + 1 == FAILURES_MAX
    }

    /// A connect did not fail. Returns whether that is news for outlier detection.
    pub(super) fn answered(&self) -> bool {
        // Read first, since the usual case must not take the cache line from other workers.
        self.failures.load(Relaxed) > 0 && self.failures.swap(0, Relaxed) >= FAILURES_MAX
    }

    /// A session ended. Returns whether that is news for outlier detection.
    pub fn ended(&self, ending: Ending, bytes_down: u64, lasted: Duration) -> bool {
        if ending == Ending::UpstreamReset && bytes_down == 0 && lasted < INSTANT {
            return self.resets.fetch_add(1, Relaxed) + 1 == FAILURES_MAX;
        }
        if bytes_down > 0 && self.resets.load(Relaxed) > 0 {
            self.resets.store(0, Relaxed);
        }
        false
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
