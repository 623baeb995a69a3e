//! The history of all routes, from readings of their counters. Pure.

use std::collections::HashMap;
use std::time::SystemTime;

use super::Reading;
use super::ring::{Bucket, Resolution, Ring, Sample};
use crate::ending::Ending;

/// Routes with samples: at most 25 MB. A further one replaces the one whose counters have not changed for the longest time.
const RINGS_MAX: usize = 1_000;
/// Seconds for which the samples of a removed route are kept.
const REMOVED_SECONDS: u64 = 600;

/// The last failure of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the session ended.
    pub ending: Ending,
    /// When it was seen, up to a second later.
    pub at: SystemTime,
}

/// Since when a route is in its state, and its last failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// When the state was first seen.
    pub since: SystemTime,
    /// `None` if no session has failed.
    pub last_failure: Option<Failure>,
}

/// What a sample has seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Whether any counter has changed.
    pub(super) changed: bool,
    /// The positions of the routes whose state may have changed.
    pub(super) unsettled: Vec<usize>,
}

/// The routes that are open, and those removed recently that have samples.
#[derive(Debug, Default)]
pub(super) struct Routes {
    tracks: HashMap<String, Track>,
    /// The number of the next second, counted from the start of the process.
    end: u64,
}

/// One route.
#[derive(Debug)]
struct Track {
    /// The last reading of its counters.
    reading: Reading,
    /// The second from which it is sampled.
    since: u64,
    /// The last second in which it was open.
    open_at: u64,
    /// The last second in which a counter changed.
    changed_at: u64,
    /// `None` until there is a sample that is not zero.
    ring: Option<Ring>,
    /// `None` until its state was seen.
    state: Option<(String, SystemTime)>,
    last_failure: Option<Failure>,
}

impl Routes {
    /// Returns the number of the next second.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Records the seconds up to `second`, with the readings of all open routes at its beginning. Does nothing within a second
    /// that was recorded.
    pub(super) fn sample<'r>(
        &mut self,
        second: u64,
        now: SystemTime,
        routes: impl Iterator<Item = (&'r str, Reading)>,
    ) -> Seen {
        let Some(count) = second.checked_sub(self.end).filter(|count| *count > 0) else {
            return Seen::default();
        };
        let mut seen = Seen::default();
        let mut without_ring = Vec::new();
        for (position, (name, reading)) in routes.enumerate() {
            if !self.tracks.contains_key(name) {
                self.tracks.insert(name.to_owned(), Track::new(second - 1));
            }
            let Some(track) = self.tracks.get_mut(name) else { continue };
            let seconds = Seconds::between(&track.reading, &reading, count);
            let has_changed = track.changes(&reading);
            seen.changed |= has_changed;
            if reading.is_troubled || track.is_unsettled() {
                seen.unsettled.push(position);
            }
            match &mut track.ring {
                Some(ring) => seconds.push_to(ring),
                None if seconds.is_zero() => {}
                None => without_ring.push((name, seconds)),
            }
            track.record(reading, second, now, has_changed);
        }
        self.add_rings(second, without_ring);
        self.end = second;
        self.forget();
        seen
    }

    /// Creates rings, as far as [`RINGS_MAX`] permits.
    fn add_rings(&mut self, second: u64, wanted: Vec<(&str, Seconds)>) {
        if wanted.is_empty() {
            return;
        }
        let used = self.tracks.values().filter(|track| track.ring.is_some()).count();
        self.evict((used + wanted.len()).saturating_sub(RINGS_MAX), second);
        let used = self.tracks.values().filter(|track| track.ring.is_some()).count();
        for (name, seconds) in wanted.into_iter().take(RINGS_MAX.saturating_sub(used)) {
            let Some(track) = self.tracks.get_mut(name) else { continue };
            seconds.push_to(track.ring.insert(Ring::starting(self.end)));
        }
    }

    /// Drops the rings of the routes that have been inactive for the longest time, and of none that is active now.
    fn evict(&mut self, count: usize, second: u64) {
        if count == 0 {
            return;
        }
        let idle = |track: &&mut Track| track.ring.is_some() && track.changed_at != second;
        let mut idle: Vec<&mut Track> = self.tracks.values_mut().filter(idle).collect();
        idle.sort_by_key(|track| track.changed_at);
        for track in idle.into_iter().take(count) {
            (track.ring, track.since) = (None, second);
        }
    }

    /// Drops removed routes: at once without samples, later with them. So their number is limited as well.
    fn forget(&mut self) {
        let end = self.end;
        self.tracks.retain(|_, track| {
            let closed_for = end - track.open_at;
            if closed_for > 0 {
                // A route of this name that opens again counts from zero.
                track.reading = Reading::default();
                track.state = None;
            }
            if let Some(ring) = track.ring.as_mut().filter(|ring| ring.end() < end) {
                ring.push(end - ring.end(), Sample::default());
            }
            closed_for == 0 || (track.ring.is_some() && closed_for < REMOVED_SECONDS)
        });
    }

    /// Records the state of an open route, and returns since when it has been the same.
    pub(super) fn standing(&mut self, name: &str, state: &str, now: SystemTime) -> Standing {
        let end = self.end;
        // A route that opened after the last sample.
        if !self.tracks.contains_key(name) {
            self.tracks.insert(name.to_owned(), Track::new(end));
        }
        let Some(track) = self.tracks.get_mut(name) else {
            return Standing { since: now, last_failure: None };
        };
        let since = match &mut track.state {
            Some((known, since)) if known == state => *since,
            known => known.insert((state.to_owned(), now)).1,
        };
        Standing { since, last_failure: track.last_failure }
    }

    /// Returns the buckets of the routes that have a sample that is not zero, by name.
    pub(super) fn read(
        &self,
        resolution: Resolution,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<(&str, Vec<Option<Bucket>>)> {
        let mut read = Vec::new();
        for (name, track) in self.tracks.iter().filter(|(name, _)| wanted(name)) {
            let Some(ring) = &track.ring else { continue };
            let buckets = ring.read(resolution, track.since);
            if buckets.iter().flatten().any(|bucket| *bucket != Bucket::default()) {
                read.push((name.as_str(), buckets));
            }
        }
        read
    }

    /// Returns the number of routes with samples.
    pub(super) fn sampled(&self) -> usize {
        self.tracks.values().filter(|track| track.ring.is_some()).count()
    }

    /// Returns whether the route has samples.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tracks.contains_key(name)
    }
}

impl Track {
    fn new(since: u64) -> Track {
        Track {
            reading: Reading::default(),
            since,
            open_at: since,
            changed_at: since,
            ring: None,
            state: None,
            last_failure: None,
        }
    }

    fn changes(&self, reading: &Reading) -> bool {
        let Reading { sessions, failures, held, active, bytes, is_troubled: _ } = &self.reading;
        *sessions != reading.sessions
            || *bytes != reading.bytes
            || (*held, *active) != (reading.held, reading.active)
            || *failures != reading.failures
    }

    /// Returns whether the state has to be looked at: only a state without a problem lasts until an event.
    fn is_unsettled(&self) -> bool {
        self.reading.is_troubled || self.state.as_ref().is_none_or(|(state, _)| state != "ok")
    }

    fn record(&mut self, reading: Reading, second: u64, now: SystemTime, has_changed: bool) {
        if let Some(ending) = reading.newest_failure(&self.reading) {
            self.last_failure = Some(Failure { ending, at: now });
        }
        if has_changed {
            self.changed_at = second;
        }
        self.open_at = second;
        self.reading = reading;
    }
}

/// What happened between two readings: seconds that passed unseen, and the last one.
#[derive(Debug)]
struct Seconds {
    unseen: u64,
    each: Sample,
    last: Sample,
}

impl Seconds {
    /// Attributes new sessions to the last second, whose beginning wakes the sampler; bytes to all of them.
    fn between(before: &Reading, now: &Reading, count: u64) -> Seconds {
        let since = |before: u64, now: u64| if now < before { now } else { now - before };
        let unseen = count - 1;
        let bytes = since(before.bytes, now.bytes);
        let each =
            Sample { held: before.held, active: before.active, bytes: bytes / count, ..Sample::default() };
        let last = Sample {
            sessions: since(before.sessions, now.sessions),
            failed: since(before.failed(), now.failed()),
            held: now.held,
            active: now.active,
            bytes: bytes - each.bytes * unseen,
        };
        Seconds { unseen, each, last }
    }

    fn is_zero(&self) -> bool {
        self.last == Sample::default() && (self.unseen == 0 || self.each == Sample::default())
    }

    fn push_to(&self, ring: &mut Ring) {
        ring.push(self.unseen, self.each);
        ring.push(1, self.last);
    }
}

#[cfg(test)]
mod tests;
