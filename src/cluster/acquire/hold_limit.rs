//! Limits the number of held sessions over all routes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::Notify;

use crate::budget::{Budget, guarantee};
use crate::cluster::Cluster;

/// The number of sessions that may be held (`--max-held`), divided among the routes.
#[derive(Debug)]
pub struct HoldLimit {
    held: Budget,
    refresh: Arc<Notify>,
}

impl HoldLimit {
    /// Creates a limit of `max` held sessions.
    pub fn new(max: usize) -> HoldLimit {
        HoldLimit { held: Budget::new(max), refresh: Arc::default() }
    }

    /// Returns a notification that fires when endpoints do not answer, so that sources refresh their endpoints early.
    pub(crate) fn refresh(&self) -> Arc<Notify> {
        self.refresh.clone()
    }

    pub(super) fn request_refresh(&self) {
        self.refresh.notify_waiters();
    }

    /// Guarantees each of these clusters, which must be all of them, an equal part.
    pub(crate) fn divide<'c>(&self, clusters: impl ExactSizeIterator<Item = &'c Cluster>) {
        let each = guarantee(self.held.max(), clusters.len(), 1);
        clusters.for_each(|cluster| self.held.set_guarantee(&cluster.held, each));
    }

    /// Takes back the guarantee of a cluster that is closed.
    pub(crate) fn withdraw(&self, cluster: &Cluster) {
        self.held.set_guarantee(&cluster.held, 0);
    }

    /// Counts a held session. Returns `None` at the limit.
    pub(super) fn hold<'h>(&'h self, cluster: &'h Cluster) -> Option<HoldPermit<'h>> {
        if !self.held.take([&cluster.held], 0) {
            return None;
        }
        cluster.counters.held.fetch_add(1, Relaxed);
        Some(HoldPermit { limit: self, cluster })
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> u32 {
        self.held.used()
    }
}

/// A held session, until it is dropped.
pub(super) struct HoldPermit<'h> {
    limit: &'h HoldLimit,
    cluster: &'h Cluster,
}

impl Drop for HoldPermit<'_> {
    fn drop(&mut self) {
        self.limit.held.give_back([&self.cluster.held]);
        self.cluster.counters.held.fetch_sub(1, Relaxed);
    }
}
