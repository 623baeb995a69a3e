//! Totals of a cluster's sessions. Written by sessions without a lock, read by metrics and `status`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::timings::Timings;
use crate::ending::Ending;
use crate::traffic::Traffic;

/// Totals since the route was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that have begun, or were rejected.
    sessions: AtomicU64,
    /// Open sessions.
    pub active: AtomicUsize,
    /// Held sessions.
    pub held: AtomicUsize,
    /// Bytes relayed.
    pub traffic: Traffic,
    /// Datagrams that were dropped, because a peer receives them too slowly.
    pub dropped: AtomicU64,
    /// Histograms of durations.
    pub timings: Timings,
    endings: [AtomicU64; Ending::ALL.len()],
}

impl Counters {
    /// Counts a session that begins.
    pub(crate) fn began(&self) {
        self.sessions.fetch_add(1, Relaxed);
        self.active.fetch_add(1, Relaxed);
    }

    /// Counts a session that has ended before it began.
    pub(crate) fn rejected(&self, ending: Ending) {
        self.sessions.fetch_add(1, Relaxed);
        self.ended(ending);
    }

    /// Counts a session that has ended.
    pub(crate) fn ended(&self, ending: Ending) {
        if let Some(counter) = self.endings.get(ending as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Returns the number of sessions that have begun or were rejected.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    /// Returns the number of sessions that ended by a failure.
    pub fn failed(&self) -> u64 {
        self.endings().filter(|(ending, _)| ending.is_failure()).map(|(_, count)| count).sum()
    }

    /// Returns every ending with its count, zeros included.
    pub fn endings(&self) -> impl Iterator<Item = (Ending, u64)> {
        Ending::ALL.into_iter().zip(&self.endings).map(|(ending, count)| (ending, count.load(Relaxed)))
    }
}
