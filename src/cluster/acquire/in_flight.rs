//! A session on an endpoint.

use std::ops::Deref;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::admission::Slot;
use crate::cluster::Endpoint;

/// A session that is counted on its endpoint from the first attempt to connect until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    /// The endpoint's token at the time the session began.
    cut: Arc<CancellationToken>,
    /// The session's slot in its route, once it is connected.
    slot: Option<Slot>,
}

impl InFlight {
    /// Counts a session on `endpoint`. Returns `None` if the endpoint has `max` sessions already.
    pub fn on(endpoint: Arc<Endpoint>, max: Option<u32>) -> Option<InFlight> {
        let cut = endpoint.begin_session(max)?;
        Some(InFlight { endpoint, cut, slot: None })
    }

    pub(super) fn with_slot(mut self, slot: Slot) -> InFlight {
        self.slot = Some(slot);
        self
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.endpoint.clone()
    }

    /// Resolves when the session must end.
    pub fn cut(&self) -> WaitForCancellationFuture<'_> {
        self.cut.cancelled()
    }

    #[cfg(test)]
    pub(in crate::cluster) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }
}

impl Deref for InFlight {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.end_session();
        // Only a session that was connected wakes another. After a failed attempt the waiters would fail one after the other,
        // without a pause.
        if let Some(slot) = &self.slot {
            slot.admission().endpoints.wake_one();
        }
    }
}
