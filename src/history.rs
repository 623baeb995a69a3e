//! What routes did in the last 24 hours, and since when each is in its state. Bounded, whatever the traffic.
//!
//! A sampler reads the counters once a second while they change or someone watches, and rests otherwise: a new session wakes it.

mod activity;
mod compact;
mod ring;
mod routes;
mod series;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::cluster::Cluster;
use crate::ending::Ending;

pub use activity::{Activity, Viewer};
pub use ring::{Bucket, Resolution, Span};
pub use routes::{Failure, Standing};

use routes::Routes;

/// The history of all routes.
#[derive(Debug)]
pub struct History {
    /// When the first second began.
    started: Instant,
    /// Locked for each sample and each request, on the thread of the control plane alone.
    routes: Mutex<Routes>,
    /// What keeps the sampler awake.
    pub activity: Activity,
}

/// The counters of a route at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    sessions: u64,
    /// The sessions that ended by a failure, by ending.
    failures: [u32; Ending::ALL.len()],
    held: u64,
    active: u64,
    bytes: u64,
    /// Whether the state of the route may be other than its last event indicates.
    is_troubled: bool,
}

/// The buckets of several routes.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    /// The end of the last bucket.
    pub end: SystemTime,
    /// By name. Each has the number of buckets that was asked for; `None` is a period in which the route was not sampled.
    pub routes: Vec<(String, Vec<Option<Bucket>>)>,
}

impl Default for History {
    fn default() -> History {
        History { started: Instant::now(), routes: Mutex::default(), activity: Activity::default() }
    }
}

impl History {
    /// Records the seconds that have passed since the last sample, with all open routes. Returns whether any counter has changed,
    /// and the positions of the routes whose state may have changed.
    pub fn sample<'r>(
        &self,
        routes: impl Iterator<Item = (&'r str, Reading)>,
        now: (Instant, SystemTime),
    ) -> (bool, Vec<usize>) {
        let second = now.0.saturating_duration_since(self.started).as_secs();
        let seen = self.routes().sample(second, now.1, routes);
        (seen.changed, seen.unsettled)
    }

    /// Returns when the current second ends.
    pub fn next_second(&self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.started).as_secs();
        self.started.checked_add(Duration::from_secs(passed + 1)).unwrap_or(now)
    }

    /// Records the state of an open route, and returns since when it has been the same.
    pub fn standing(&self, name: &str, state: &str, now: SystemTime) -> Standing {
        self.routes().standing(name, state, now)
    }

    /// Returns the history of one route, or of all.
    pub fn read(&self, resolution: Resolution, route: Option<&str>, now: (Instant, SystemTime)) -> Recent {
        let routes = self.routes();
        let wanted = |name: &str| route.is_none_or(|route| route == name);
        let mut read: Vec<_> =
            routes.read(resolution, wanted).into_iter().map(|(n, b)| (n.to_owned(), b)).collect();
        read.sort_by(|a, b| a.0.cmp(&b.0));
        let end = self.started.checked_add(Duration::from_secs(routes.end())).unwrap_or(now.0);
        Recent { end: now.1.checked_sub(now.0.saturating_duration_since(end)).unwrap_or(now.1), routes: read }
    }

    /// Returns the number of routes with samples.
    pub fn sampled(&self) -> usize {
        self.routes().sampled()
    }

    /// Returns whether a route of this name is or was open recently.
    pub fn has(&self, route: &str) -> bool {
        self.routes().has(route)
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// Reads the counters of a route.
    pub fn of(cluster: &Cluster) -> Reading {
        let counters = &cluster.counters;
        let mut reading = Reading {
            sessions: counters.sessions(),
            failures: [0; Ending::ALL.len()],
            held: counters.held.load(Relaxed) as u64,
            active: counters.active.load(Relaxed) as u64,
            bytes: counters.traffic.up().wrapping_add(counters.traffic.down()),
            is_troubled: false,
        };
        for ((ending, count), failures) in counters.endings().zip(&mut reading.failures) {
            if ending.is_failure() {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "only differences are used, and they wrap"
                )]
                let count = count as u32;
                *failures = count;
            }
        }
        reading.is_troubled = reading.held > 0 || cluster.fds.is_accept_paused();
        reading
    }

    /// Returns the ending of which there are most new ones, if there is any.
    fn newest_failure(&self, before: &Reading) -> Option<Ending> {
        let new = |at: usize| {
            let count = |reading: &Reading| reading.failures.get(at).copied().unwrap_or(0);
            count(self).wrapping_sub(count(before))
        };
        Ending::ALL
            .into_iter()
            .filter(|ending| new(*ending as usize) > 0)
            .max_by_key(|ending| new(*ending as usize))
    }

    fn failed(&self) -> u64 {
        self.failures.iter().map(|count| u64::from(*count)).sum()
    }
}
