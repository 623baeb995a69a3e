//! Why a route lacks endpoints, and which of it is logged. Pure.
//!
//! ```text
//!   served ── no endpoint ──► lost ── for SETTLE ──► down, reported
//!     ▲                        │                       │
//!     └────────────────────────┴───── an endpoint ─────┘ reported after "down"
//! ```
//!
//! Each problem is reported once, after it has lasted for [`SETTLE`]: Docker reports one stop in several steps (from 26.1 on the
//! container leaves its networks before it dies), and only the last of them is the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::events::EventKind;
use crate::ordered::CollectOrdered;

/// Much longer than the time between two events of one stop.
const SETTLE: Duration = Duration::from_secs(1);

/// Reasons listed in one log line.
const LISTED_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Problems {
    current: Vec<String>,
    /// Problems that are not reported yet, and since when they exist.
    unreported: BTreeMap<String, Instant>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Served,
    /// Not served since then, and not reported yet.
    Lost(Instant),
    Down,
}

impl Problems {
    /// Creates the problems of a route that is being opened.
    pub(super) fn new(problems: Vec<String>, now: Instant) -> Problems {
        let unreported = problems.iter().map(|why| (why.clone(), now)).collect_ordered();
        Problems { current: problems, unreported, state: State::Lost(now) }
    }

    /// Returns all problems, reported or not.
    pub(super) fn current(&self) -> &[String] {
        &self.current
    }

    /// Replaces the problems. `is_served` is whether an endpoint takes new sessions. Returns what is to be reported at once.
    pub(super) fn update(
        &mut self,
        route: &str,
        problems: Vec<String>,
        is_served: bool,
        now: Instant,
    ) -> Option<EventKind> {
        if self.current != problems {
            let before: BTreeSet<&String> = self.current.iter().collect();
            let new = problems.iter().filter(|why| !before.contains(why)).map(|why| (why.clone(), now));
            self.unreported.extend(new);
            let kept: BTreeSet<&String> = problems.iter().collect();
            self.unreported.retain(|why, _| kept.contains(why));
            self.current = problems;
        }
        let before = self.state;
        self.state = match (before, is_served) {
            (_, true) => State::Served,
            (State::Served, false) => State::Lost(now),
            (lost, false) => lost,
        };
        let is_up = before == State::Down && is_served;
        is_up.then(|| EventKind::RouteUp { route: route.to_owned() })
    }

    /// Returns when something is to be reported.
    pub(super) fn due(&self) -> Option<Instant> {
        let lost = match self.state {
            State::Lost(since) => Some(since),
            State::Served | State::Down => None,
        };
        self.unreported.values().copied().chain(lost).min().map(|since| since + SETTLE)
    }

    /// Returns what has lasted long enough to be reported.
    pub(super) fn settle(&mut self, route: &str, now: Instant) -> Vec<EventKind> {
        let is_settled = |since: Instant| since + SETTLE <= now;
        if let State::Lost(since) = self.state
            && is_settled(since)
        {
            self.state = State::Down;
            // The event lists all problems.
            self.unreported.clear();
            return vec![EventKind::RouteDown { route: route.to_owned(), why: self.reasons() }];
        }
        let settled: Vec<String> =
            self.unreported.extract_if(.., |_, since| is_settled(*since)).map(|(why, _)| why).collect();
        settled.into_iter().map(|why| EventKind::TargetProblem { route: route.to_owned(), why }).collect()
    }

    fn reasons(&self) -> String {
        if self.current.is_empty() {
            return "its endpoints take no new sessions".to_owned();
        }
        let more = self.current.len().saturating_sub(LISTED_MAX);
        let listed = self.current.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join("; ");
        if more > 0 { format!("{listed}; and {more} more") } else { listed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// Returns one line for each event of route `r`.
    fn lines(events: impl IntoIterator<Item = EventKind>) -> Vec<String> {
        let line = |event| match event {
            EventKind::TargetProblem { why, .. } => why,
            EventKind::RouteDown { why, .. } => format!("down: {why}"),
            EventKind::RouteUp { .. } => "up".to_owned(),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(line).collect()
    }

    fn update(problems: &mut Problems, whys: &[&str], is_served: bool, now: Instant) -> Vec<String> {
        let whys = whys.iter().map(|why| (*why).to_owned()).collect();
        lines(problems.update("r", whys, is_served, now))
    }

    fn served(now: Instant) -> Problems {
        let mut problems = Problems::new(Vec::new(), now);
        assert_eq!(update(&mut problems, &[], true, now), [""; 0]);
        assert_eq!(problems.due(), None);
        problems
    }

    #[test]
    fn only_the_last_step_of_a_stop_is_reported() {
        let now = Instant::now();
        let mut problems = served(now);
        update(&mut problems, &["a shares no network: connect us"], false, now);
        assert_eq!(problems.current(), ["a shares no network: connect us"], "status shows it at once");
        update(&mut problems, &["a is not running"], false, now + STEP);
        assert_eq!(lines(problems.settle("r", now + SETTLE - STEP)), [""; 0]);
        assert_eq!(problems.due(), Some(now + SETTLE));
        assert_eq!(lines(problems.settle("r", now + SETTLE)), ["down: a is not running"]);
        assert_eq!(problems.due(), None);
        assert_eq!(update(&mut problems, &[], true, now + 2 * SETTLE), ["up"]);
    }

    #[test]
    fn only_new_problems_are_reported_and_each_once() {
        let now = Instant::now();
        let mut problems = served(now);
        update(&mut problems, &["a is not running"], true, now);
        assert_eq!(lines(problems.settle("r", now + SETTLE)), ["a is not running"]);
        update(&mut problems, &["a is not running", "b is not running"], true, now + SETTLE);
        assert_eq!(lines(problems.settle("r", now + 2 * SETTLE)), ["b is not running"]);
        assert_eq!(lines(problems.settle("r", now + 9 * SETTLE)), [""; 0]);
    }

    #[test]
    fn problem_that_passes_is_not_reported() {
        let now = Instant::now();
        let mut problems = served(now);
        update(&mut problems, &["a is not running"], false, now);
        assert_eq!(update(&mut problems, &[], true, now + STEP), [""; 0]);
        assert_eq!(problems.due(), None);
    }

    #[test]
    fn route_that_never_had_an_endpoint_is_reported_with_all_reasons() {
        let now = Instant::now();
        let mut problems = Problems::new(vec!["x: not known yet".to_owned()], now);
        update(&mut problems, &["x: has no endpoint", "b", "c", "d", "e"], false, now + STEP);
        assert_eq!(
            lines(problems.settle("r", now + SETTLE)),
            ["down: x: has no endpoint; b; c; d; and 1 more"]
        );
    }
}
