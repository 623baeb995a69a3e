//! Limits the log lines about sessions that cost a client nothing, so that a flood of them cannot displace other lines. Pure.
//!
//! The first session of each ending is logged. The rest are counted, and the count is logged once per interval.
//!
//! ```text
//!   quiet ── the first: a line ──► open ── an interval with more: a line with their count ──┐
//!     ▲                             │ ▲                                                     │
//!     └── an interval without more ─┘ └─────────────────────────────────────────────────────┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::ending::Ending;

/// The time between two lines about the same ending.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// The limits of one route. By ending: zero while quiet, else one more than the number of sessions not logged.
#[derive(Debug, Default)]
pub(super) struct LogLimit([AtomicU64; Ending::ALL.len()]);

impl LogLimit {
    /// Counts a session. Returns whether it is the first of its ending, which is logged.
    pub(super) fn count(&self, ending: Ending) -> bool {
        self.0.get(ending as usize).is_none_or(|count| count.fetch_add(1, Relaxed) == 0)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.0.iter().all(|count| count.load(Relaxed) == 0)
    }

    /// Ends an interval. Returns the number of sessions that were not logged in it, by ending.
    pub(super) fn take(&self) -> Vec<(Ending, u64)> {
        let counts = Ending::ALL.into_iter().zip(&self.0);
        counts.filter_map(|(ending, count)| Some((ending, take_omitted(count)?))).collect()
    }
}

/// Resets the count. Returns `None`, and becomes quiet, if nothing was counted.
fn take_omitted(count: &AtomicU64) -> Option<u64> {
    let omitted = count.load(Relaxed).saturating_sub(1);
    if omitted > 0 {
        count.fetch_sub(omitted, Relaxed);
        return Some(omitted);
    }
    // If this fails, a session was counted in between; it is reported after the next interval.
    let _ = count.compare_exchange(1, 0, Relaxed, Relaxed);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_session_is_logged_and_the_rest_are_counted_until_quiet() {
        let limit = LogLimit::default();
        let denied = |times: usize| (0..times).filter(|_| limit.count(Ending::Denied)).count();
        assert_eq!((denied(1_000), limit.is_quiet()), (1, false));
        assert!(limit.count(Ending::TooMany), "each ending is limited separately");
        assert_eq!(limit.take(), [(Ending::Denied, 999)]);
        assert_eq!((denied(5), limit.is_quiet()), (0, false));
        assert_eq!(limit.take(), [(Ending::Denied, 5)]);
        assert_eq!(limit.take(), []);
        assert!(limit.is_quiet());
        assert_eq!(denied(2), 1);
    }
}
