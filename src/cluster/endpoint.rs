//! One endpoint of one cluster, and a session's place on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::EndpointKey;
use crate::route::OnRemove;

/// One endpoint of one cluster, for as long as it is in it.
#[derive(Debug)]
pub struct Endpoint {
    pub key: EndpointKey,
    sessions: AtomicUsize,
    /// When it joined. The zero of `warms_since_ms`.
    joined: Instant,
    /// Milliseconds after `joined`, plus one; zero for an endpoint that was warm from the start.
    warms_since_ms: AtomicU64,
    /// Cancelled when the endpoint leaves the cluster.
    removed: CancellationToken,
    /// Cancelled when its sessions must end.
    cut: CancellationToken,
}

impl Endpoint {
    pub(super) fn new(key: EndpointKey, force: &CancellationToken) -> Endpoint {
        Endpoint {
            key,
            sessions: AtomicUsize::new(0),
            joined: Instant::now(),
            warms_since_ms: AtomicU64::new(0),
            removed: CancellationToken::new(),
            cut: force.child_token(),
        }
    }

    pub(super) fn remove(&self, policy: OnRemove) {
        self.removed.cancel();
        if policy == OnRemove::Cut {
            self.cut.cancel();
        }
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

    /// Sessions on this endpoint now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Relaxed)
    }

    /// No longer in its cluster. A dial that was under way then must not become a session: the address may be
    /// somebody else's by now.
    pub fn is_removed(&self) -> bool {
        self.removed.is_cancelled()
    }

    pub async fn removed(&self) {
        self.removed.cancelled().await;
    }

    /// Resolves when the sessions of this endpoint must end.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    #[cfg(test)]
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }
}

/// A session's place on an endpoint: counted from the first attempt to connect until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
}

impl InFlight {
    pub fn on(endpoint: Arc<Endpoint>) -> InFlight {
        endpoint.sessions.fetch_add(1, Relaxed);
        InFlight { endpoint }
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
    }
}
