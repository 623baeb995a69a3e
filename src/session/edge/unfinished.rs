//! Limits the connections of one worker that have not become sessions.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

/// Connections of one worker at a time. A client needs one or two round trips, so at 200 ms it is only abandoned if more than 5,000
/// others arrive per second; strangers that are silent keep at most as many descriptors.
pub(super) const UNFINISHED_MAX: usize = 1024;

thread_local! {
    static UNFINISHED: RefCell<BTreeMap<u64, CancellationToken>> = const { RefCell::new(BTreeMap::new()) };
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// A connection that has not become a session, until it is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    number: u64,
    evicted: CancellationToken,
}

impl Unfinished {
    /// Counts a connection. At the limit, the oldest one is abandoned: clients finish soon, strangers that are silent stay.
    pub(super) fn begin() -> Unfinished {
        let (number, evicted) = (NEXT.get(), CancellationToken::new());
        NEXT.set(number + 1);
        UNFINISHED.with_borrow_mut(|unfinished| {
            if unfinished.len() >= UNFINISHED_MAX
                && let Some((_, oldest)) = unfinished.pop_first()
            {
                oldest.cancel();
            }
            unfinished.insert(number, evicted.clone());
        });
        Unfinished { number, evicted }
    }

    /// Resolves when the connection is abandoned.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        UNFINISHED.with_borrow_mut(|unfinished| unfinished.remove(&self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn oldest_connection_is_abandoned_at_the_limit() {
        let first = Unfinished::begin();
        drop(Unfinished::begin());
        let others: Vec<Unfinished> = (1..UNFINISHED_MAX).map(|_| Unfinished::begin()).collect();
        assert!(!first.evicted.is_cancelled(), "a connection that has finished does not count");
        let _newest = Unfinished::begin();
        first.evicted().await;
        assert!(others.iter().all(|other| !other.evicted.is_cancelled()));
    }
}
