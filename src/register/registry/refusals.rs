//! The entries that a registry refuses: each refusal is logged once, and the entry is retried with back-off.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, jittered};

/// An entry is usually refused by a rule that has to be changed; the first pauses are for a registry that is busy.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The refused changes, by entry and value: another value of the entry, and its withdrawal, are not refused yet.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<String, Refusal>);

#[derive(Debug)]
struct Refusal {
    retry_at: Instant,
    backoff: Backoff,
}

impl Refusals {
    pub(super) fn refused(&mut self, entry: &str, why: &str) {
        if !self.0.contains_key(entry) {
            tracing::warn!(entry, why, "entry refused by the registry; retrying");
        }
        let refusal = self.0.entry(entry.to_owned()).or_insert_with(|| Refusal {
            retry_at: Instant::now(),
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
        });
        refusal.retry_at = Instant::now() + jittered(refusal.backoff.next_pause());
    }

    pub(super) fn accepted(&mut self, entry: &str) {
        if self.0.remove(entry).is_some() {
            tracing::info!(entry, "entry accepted by the registry again");
        }
    }

    /// Returns whether this change may be requested: it is not refused, or its pause has ended.
    pub(super) fn is_due(&self, entry: &str) -> bool {
        self.0.get(entry).is_none_or(|refusal| refusal.retry_at <= Instant::now())
    }

    /// Returns the time of the next retry.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.0.values().map(|refusal| refusal.retry_at).min()
    }

    /// Drops the refusals of changes that are not needed any more.
    pub(super) fn retain(&mut self, is_needed: impl Fn(&str) -> bool) {
        self.0.retain(|entry, _| is_needed(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pause_doubles_up_to_a_limit_and_ends_when_the_entry_is_accepted() {
        let mut refusals = Refusals::default();
        assert!(refusals.is_due("a") && refusals.next_retry().is_none());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
            refusals.refused("a", "no");
            assert!(!refusals.is_due("a") && refusals.is_due("b"));
            let next = refusals.next_retry().unwrap() - Instant::now();
            assert!(pause / 2 <= next && next <= pause, "{next:?} of {pause:?}");
            tokio::time::advance(next).await;
            assert!(refusals.is_due("a"));
        }
        refusals.accepted("a");
        assert!(refusals.next_retry().is_none());
    }
}
