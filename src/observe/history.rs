//! The sampler's view of the routes, and the response to `GET /history`.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::status::RouteStatus;
use crate::history::{Bucket, Reading, Recent, Resolution};
use crate::ordered::CollectOrdered;
use crate::reconcile::{Overview, RouteView};

/// The response to `GET /history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// The end of the last bucket, in milliseconds since 1970.
    pub end_ms: u64,
    /// The length of a bucket in milliseconds.
    pub step_ms: u64,
    /// The routes that have a number other than 0.
    pub routes: BTreeMap<String, SeriesStatus>,
}

/// The numbers of a route, oldest first. `None` for a period in which it was not sampled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesStatus {
    /// New sessions per second.
    pub sessions: Vec<Option<f64>>,
    /// Sessions that ended by a failure, per second.
    pub failed: Vec<Option<f64>>,
    /// The most held sessions.
    pub held: Vec<Option<u64>>,
    /// The most open sessions.
    pub active: Vec<Option<u64>>,
    /// Bytes per second in both directions.
    pub bytes: Vec<Option<f64>>,
}

/// Reads the counters of all routes. Looks at the states of those whose state may have changed, or of all. Returns whether any
/// counter has changed.
pub(crate) fn sample(overview: &Overview, all_states: bool) -> bool {
    let history = &overview.history;
    let reading = |view: &RouteView| view.cluster.as_deref().map(Reading::of).unwrap_or_default();
    let readings = overview.routes.iter().map(|view| (view.route.options.name.as_str(), reading(view)));
    let (changed, unsettled) = history.sample(readings, (Instant::now(), SystemTime::now()));
    if all_states {
        overview.routes.iter().for_each(|view| drop(RouteStatus::of(view, history)));
    } else {
        unsettled.into_iter().filter_map(|at| overview.routes.get(at)).for_each(|view| {
            // Records the state.
            RouteStatus::of(view, history);
        });
    }
    changed
}

impl HistoryStatus {
    /// Returns the history of one route, or of all, up to now.
    pub(crate) fn of(overview: &Overview, resolution: Resolution, route: Option<&str>) -> HistoryStatus {
        sample(overview, false);
        let Recent { end, routes } =
            overview.history.read(resolution, route, (Instant::now(), SystemTime::now()));
        let end = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        HistoryStatus {
            end_ms: u64::try_from(end.as_millis()).unwrap_or(u64::MAX),
            step_ms: resolution.step_seconds() * 1_000,
            routes: routes
                .into_iter()
                .map(|(name, buckets)| (name, SeriesStatus::of(&buckets)))
                .collect_ordered(),
        }
    }
}

impl SeriesStatus {
    fn of(buckets: &[Option<Bucket>]) -> SeriesStatus {
        let numbers = |of: fn(Bucket) -> u64| buckets.iter().map(|bucket| bucket.map(of)).collect();
        let rates =
            |of: fn(Bucket) -> f64| buckets.iter().map(|bucket| bucket.map(of).map(rounded)).collect();
        SeriesStatus {
            sessions: rates(|bucket| bucket.sessions),
            failed: rates(|bucket| bucket.failed),
            held: numbers(|bucket| bucket.held),
            active: numbers(|bucket| bucket.active),
            bytes: rates(|bucket| bucket.bytes.round()),
        }
    }
}

/// Rounds to thousandths: one session in 15 minutes is 0.001 per second.
fn rounded(rate: f64) -> f64 {
    (rate * 1_000.0).round() / 1_000.0
}
