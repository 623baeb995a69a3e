//! Limits the log lines about sessions that cost a client nothing, so that a flood of them cannot displace other lines. The
//! first session of each ending is logged. The rest are counted, and the count is logged once per interval.
//!
//! ```text
//!   quiet ── the first: a line ──► open ── an interval with more: a line with their count ──┐
//!     ▲                             │ ▲                                                     │
//!     └── an interval without more ─┘ └─────────────────────────────────────────────────────┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::ending::Ending;

/// Between two lines about the same.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Of one route. By ending: zero while quiet, else one more than were not logged.
#[derive(Debug, Default)]
pub(super) struct Repeats([AtomicU64; Ending::ALL.len()]);

impl Repeats {
    /// Returns whether this is the first, and so to be logged.
    pub(super) fn note(&self, ending: Ending) -> bool {
        self.0.get(ending as usize).is_none_or(|place| place.fetch_add(1, Relaxed) == 0)
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.0.iter().all(|place| place.load(Relaxed) == 0)
    }

    /// Ends an interval. Returns how many sessions were not logged in it, by ending.
    pub(super) fn take(&self) -> Vec<(Ending, u64)> {
        let counts = Ending::ALL.into_iter().zip(&self.0);
        counts.filter_map(|(ending, place)| Some((ending, close(place)?))).collect()
    }
}

/// Resets the count, or returns to quiet and `None` if nothing was counted.
fn close(place: &AtomicU64) -> Option<u64> {
    let counted = place.load(Relaxed).saturating_sub(1);
    if counted > 0 {
        place.fetch_sub(counted, Relaxed);
        return Some(counted);
    }
    // A session counted just now is reported after the next interval.
    let _ = place.compare_exchange(1, 0, Relaxed, Relaxed);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_logged_and_the_others_are_counted_until_it_is_quiet() {
        let repeats = Repeats::default();
        let denied = |times: usize| (0..times).filter(|_| repeats.note(Ending::Denied)).count();
        assert_eq!((denied(1_000), repeats.is_quiet()), (1, false));
        assert!(repeats.note(Ending::TooMany), "each ending by itself");
        assert_eq!(repeats.take(), [(Ending::Denied, 999)]);
        assert_eq!((denied(5), repeats.is_quiet()), (0, false));
        assert_eq!(repeats.take(), [(Ending::Denied, 5)]);
        assert_eq!(repeats.take(), []);
        assert!(repeats.is_quiet());
        assert_eq!(denied(2), 1);
    }
}
