//! The rates of each route, second by second, from its history and from the counters of successive statuses. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::observe::history::{HistoryStatus, SeriesStatus};
use crate::observe::status::{RouteStatus, Status};

/// Samples that are kept of each route: as wide as the widest sparkline.
const SAMPLES_MAX: usize = 120;
/// Samples that are shown at least.
const MINUTE: usize = 60;

/// The rates between two statuses, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) sessions: f64,
    pub(super) failed: f64,
    pub(super) bytes: f64,
}

/// The samples of all routes.
#[derive(Debug, Default)]
pub(super) struct Samples {
    routes: HashMap<String, Track>,
    taken: Option<Instant>,
}

#[derive(Debug, Default)]
struct Track {
    /// `None` if the route has a history, but was not seen yet.
    last: Option<Totals>,
    /// Oldest first.
    recent: VecDeque<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Totals {
    sessions: u64,
    failed: u64,
    bytes: u64,
}

impl Samples {
    /// Begins with a history that has a value for each second.
    pub(super) fn seed(&mut self, history: &HistoryStatus, interval: Duration) {
        for (name, series) in &history.routes {
            let track = self.routes.entry(name.clone()).or_default();
            if track.recent.is_empty() {
                track.recent = averages(series, seconds(interval));
            }
        }
    }

    /// Adds the rates since the previous status. Routes that are gone are dropped.
    pub(super) fn add(&mut self, status: &Status, at: Instant) {
        let elapsed = self.taken.replace(at).map(|taken| at.saturating_duration_since(taken));
        self.routes.retain(|name, _| status.routes.iter().any(|route| route.name == *name));
        for route in &status.routes {
            let track = match self.routes.get_mut(&route.name) {
                Some(track) => track,
                None => self.routes.entry(route.name.clone()).or_default(),
            };
            let now = Totals::of(route);
            if let (Some(before), Some(elapsed)) =
                (track.last.replace(now), elapsed.filter(|elapsed| !elapsed.is_zero()))
            {
                track.recent.push_back(now.since(before, elapsed));
            }
            while track.recent.len() > SAMPLES_MAX {
                track.recent.pop_front();
            }
        }
    }

    /// Returns the last sample of a route.
    pub(super) fn last(&self, route: &str) -> Sample {
        self.routes.get(route).and_then(|track| track.recent.back()).copied().unwrap_or_default()
    }

    /// Returns the last samples of a route, oldest first, for this number of bars. Where it is less than a minute's samples, each
    /// bar is the mean of several.
    pub(super) fn bars(&self, route: &str, count: usize) -> Vec<Sample> {
        let Some(track) = self.routes.get(route).filter(|_| count > 0) else { return Vec::new() };
        let recent: Vec<Sample> = track.recent.iter().copied().collect();
        let mut bars: Vec<Sample> = recent.rchunks(MINUTE.div_ceil(count)).take(count).map(mean).collect();
        bars.reverse();
        bars
    }

    /// Returns the sum over all routes.
    pub(super) fn total(&self) -> Sample {
        let last = self.routes.values().filter_map(|track| track.recent.back());
        last.fold(Sample::default(), |sum, sample| Sample {
            sessions: sum.sessions + sample.sessions,
            failed: sum.failed + sample.failed,
            bytes: sum.bytes + sample.bytes,
        })
    }
}

impl Totals {
    fn of(route: &RouteStatus) -> Totals {
        Totals {
            sessions: route.sessions_total,
            failed: route.failed_total,
            bytes: route.bytes_up.saturating_add(route.bytes_down),
        }
    }

    /// The counters of a process that was restarted begin at 0.
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn since(self, before: Totals, elapsed: Duration) -> Sample {
        let rate =
            |before: u64, now: u64| now.checked_sub(before).unwrap_or(now) as f64 / elapsed.as_secs_f64();
        Sample {
            sessions: rate(before.sessions, self.sessions),
            failed: rate(before.failed, self.failed),
            bytes: rate(before.bytes, self.bytes),
        }
    }
}

fn seconds(interval: Duration) -> usize {
    usize::try_from(interval.as_secs()).unwrap_or(1).max(1)
}

/// Returns the mean of every `length` seconds, of which the last ones end now.
fn averages(series: &SeriesStatus, length: usize) -> VecDeque<Sample> {
    let SeriesStatus { sessions, failed, bytes, .. } = series;
    let each = |at: usize| {
        let value = |values: &[Option<f64>]| values.get(at).copied().flatten();
        Some(Sample { sessions: value(sessions)?, failed: value(failed)?, bytes: value(bytes)? })
    };
    let seconds: Vec<Sample> = (0..sessions.len()).filter_map(each).collect();
    let chunks = seconds.rchunks(length).filter(|chunk| chunk.len() == length).take(SAMPLES_MAX);
    let mut averages: VecDeque<Sample> = chunks.map(mean).collect();
    averages.make_contiguous().reverse();
    averages
}

#[expect(clippy::cast_precision_loss, reason = "an interval has few seconds")]
fn mean(samples: &[Sample]) -> Sample {
    let count = samples.len().max(1) as f64;
    let sum = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    Sample { sessions: sum(|s| s.sessions), failed: sum(|s| s.failed), bytes: sum(|s| s.bytes) }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{route, status};
    use super::*;

    #[test]
    fn rates_are_differences_over_the_time_between_two_statuses() {
        let (mut samples, start) = (Samples::default(), Instant::now());
        let with = |total: u64| {
            status(vec![route("r", |route| (route.sessions_total, route.bytes_up) = (total, 10 * total))])
        };
        samples.add(&with(100), start);
        assert_eq!(samples.last("r"), Sample::default());
        samples.add(&with(110), start + Duration::from_secs(2));
        assert_eq!(samples.last("r"), Sample { sessions: 5.0, failed: 0.0, bytes: 50.0 });
        samples.add(&with(4), start + Duration::from_secs(3));
        assert_eq!(samples.last("r").sessions, 4.0, "restarted");
        assert_eq!(samples.bars("r", 60).len(), 2);
        samples.add(&status(vec![]), start + Duration::from_secs(4));
        assert_eq!(samples.total(), Sample::default());
    }

    #[test]
    fn history_is_averaged_over_the_interval() {
        let series = SeriesStatus {
            sessions: vec![None, Some(9.0), Some(1.0), Some(3.0), Some(5.0), Some(7.0)],
            failed: vec![Some(0.0); 6],
            bytes: vec![Some(2.0); 6],
            ..SeriesStatus::default()
        };
        let history = HistoryStatus { routes: [("r".to_owned(), series)].into(), ..HistoryStatus::default() };
        let mut samples = Samples::default();
        samples.seed(&history, Duration::from_secs(2));
        let sessions: Vec<f64> = samples.bars("r", 60).iter().map(|sample| sample.sessions).collect();
        assert_eq!(sessions, [2.0, 6.0]);
    }
}
