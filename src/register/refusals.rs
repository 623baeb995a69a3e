//! What the registry refuses, or leaves unanswered: each is logged once, and tried again with back-off.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::jittered;

/// Whatever refuses an entry is a rule that somebody must change: the first pause is for a registry that is busy.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// By an entry, with the value that it shall have: another value is not refused yet, and neither is taking the entry out.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<String, Refusal>);

#[derive(Debug)]
struct Refusal {
    /// When it is tried again.
    due: Instant,
    /// The pause after the next refusal.
    pause: Duration,
}

impl Refusals {
    pub(super) fn refused(&mut self, entry: &str, why: &str) {
        let pause = self.0.get(entry).map_or(BACKOFF_MIN, |refusal| refusal.pause);
        let refusal = Refusal { due: Instant::now() + jittered(pause), pause: (pause * 2).min(BACKOFF_MAX) };
        if self.0.insert(entry.to_owned(), refusal).is_none() {
            tracing::warn!(entry, why, "entry refused by the registry; it is tried again");
        }
    }

    pub(super) fn accepted(&mut self, entry: &str) {
        if self.0.remove(entry).is_some() {
            tracing::info!(entry, "entry accepted by the registry again");
        }
    }

    pub(super) fn is_due(&self, entry: &str) -> bool {
        self.0.get(entry).is_none_or(|refusal| refusal.due <= Instant::now())
    }

    /// When the next is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|refusal| refusal.due).min()
    }

    /// Forgets those with which there is nothing to do any more.
    pub(super) fn retain(&mut self, concerns: impl Fn(&str) -> bool) {
        self.0.retain(|entry, _| concerns(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pause_doubles_up_to_a_limit_and_ends_when_the_entry_is_accepted() {
        let mut refusals = Refusals::default();
        assert!(refusals.is_due("a") && refusals.next().is_none());
        for pause in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
            refusals.refused("a", "no");
            assert!(!refusals.is_due("a") && refusals.is_due("b"));
            let next = refusals.next().unwrap() - Instant::now();
            assert!(pause / 2 <= next && next <= pause, "{next:?} of {pause:?}");
            tokio::time::advance(next).await;
            assert!(refusals.is_due("a"));
        }
        refusals.accepted("a");
        assert!(refusals.next().is_none());
    }
}
