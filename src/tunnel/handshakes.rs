//! Limits the handshakes of strangers.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::lock;

/// Handshakes of one worker at a time.
const HANDSHAKES_MAX: usize = 64;

/// The handshakes of one worker that are in progress, the oldest first.
#[derive(Debug, Default)]
pub struct Handshakes(Mutex<VecDeque<CancellationToken>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    evicted: CancellationToken,
    /// Also marks a handshake that has ended.
    _ended: DropGuard,
}

impl Handshakes {
    /// Begins a handshake. At the limit, the oldest one is abandoned: a peer needs a round trip, strangers that are silent stay.
    pub(super) fn begin(&self) -> Handshake {
        let evicted = CancellationToken::new();
        let mut handshakes = lock(&self.0);
        handshakes.retain(|handshake| !handshake.is_cancelled());
        if handshakes.len() >= HANDSHAKES_MAX
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.cancel();
        }
        handshakes.push_back(evicted.clone());
        Handshake { evicted: evicted.clone(), _ended: evicted.drop_guard() }
    }
}

impl Handshake {
    /// Resolves when the handshake is abandoned.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn oldest_handshake_is_abandoned_at_the_limit() {
        let handshakes = Handshakes::default();
        let first = handshakes.begin();
        let ended = handshakes.begin();
        drop(ended);
        let others: Vec<Handshake> = (1..HANDSHAKES_MAX).map(|_| handshakes.begin()).collect();
        assert!(!first.evicted.is_cancelled(), "a handshake that has ended does not count");
        let _newest = handshakes.begin();
        first.evicted().await;
        assert!(others.iter().all(|other| !other.evicted.is_cancelled()));
    }
}
