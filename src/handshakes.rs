//! Limits the connections of one worker that have not identified themselves yet, so that strangers cannot take all of its memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

/// The handshakes of one worker that are in progress.
#[derive(Debug)]
pub struct Handshakes {
    max: usize,
    /// How long each may take even at the limit.
    patience: Duration,
    /// The oldest first.
    open: Mutex<VecDeque<(Instant, CancellationToken)>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    evicted: CancellationToken,
    /// Also marks a handshake that has ended.
    _ended: DropGuard,
}

impl Handshakes {
    /// Creates the limit of a worker.
    pub fn new(max: usize, patience: Duration) -> Handshakes {
        Handshakes { max, patience, open: Mutex::default() }
    }

    /// Begins a handshake. At the limit, the oldest one is abandoned: a client needs a round trip, strangers that are silent stay. A
    /// burst of clients has the time that they need.
    pub(crate) fn begin(&self) -> Handshake {
        let evicted = CancellationToken::new();
        let now = Instant::now();
        // No code that holds the lock panics.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while open.front().is_some_and(|(_, handshake)| handshake.is_cancelled()) {
            open.pop_front();
        }
        if open.len() >= self.max {
            open.retain(|(_, handshake)| !handshake.is_cancelled());
        }
        if open.len() >= self.max
            && let Some((_, oldest)) =
                open.pop_front_if(|(began, _)| now.duration_since(*began) >= self.patience)
        {
            oldest.cancel();
        }
        open.push_back((now, evicted.clone()));
        Handshake { evicted: evicted.clone(), _ended: evicted.drop_guard() }
    }
}

impl Handshake {
    /// Resolves when the handshake is abandoned.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 64;

    #[tokio::test]
    async fn oldest_handshake_is_abandoned_at_the_limit() {
        let handshakes = Handshakes::new(MAX, Duration::ZERO);
        let first = handshakes.begin();
        let ended = handshakes.begin();
        drop(ended);
        let others: Vec<Handshake> = (1..MAX).map(|_| handshakes.begin()).collect();
        assert!(!first.evicted.is_cancelled(), "a handshake that has ended does not count");
        let _newest = handshakes.begin();
        first.evicted().await;
        assert!(others.iter().all(|other| !other.evicted.is_cancelled()));
    }

    #[test]
    fn burst_beyond_the_limit_has_its_time() {
        let handshakes = Handshakes::new(MAX, Duration::from_secs(3600));
        let all: Vec<Handshake> = (0..3 * MAX).map(|_| handshakes.begin()).collect();
        assert!(all.iter().all(|handshake| !handshake.evicted.is_cancelled()));
        drop(all);
        let _next = handshakes.begin();
        assert_eq!(handshakes.open.lock().unwrap().len(), 1, "what has ended is not kept");
    }
}
