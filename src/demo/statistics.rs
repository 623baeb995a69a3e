//! Statistics of the consumer's requests. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// An event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestEvent {
    Sent,
    Answered {
        by: String,
        waited: Duration,
        connection: Connection,
    },
    Failed {
        why: String,
        waited: Duration,
    },
    /// The kept connection was broken; the request is repeated over a new one.
    ConnectionBroken,
}

/// The connection of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    New,
    Kept,
}

const REPEATED: &str = "kept connection ended, request repeated on a new one";

/// The statistics of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Statistics {
    /// The number of answers by server.
    answers: BTreeMap<String, u64>,
    /// The number of failed requests by reason.
    failures: BTreeMap<String, u64>,
    /// The longest time until an answer or a failure.
    longest: Duration,
    /// The number of pending requests, including those of earlier periods.
    pending: u64,
    /// The server that last answered over the kept connection.
    kept: Option<String>,
    /// Whether the kept connection was broken.
    broken: bool,
}

impl Statistics {
    pub(super) fn record(&mut self, seen: RequestEvent) {
        match seen {
            RequestEvent::Sent => self.pending += 1,
            RequestEvent::ConnectionBroken => self.broken = true,
            RequestEvent::Answered { by, waited, connection } => {
                self.end(waited);
                if connection == Connection::Kept {
                    self.kept = Some(by.clone());
                }
                *self.answers.entry(by).or_default() += 1;
            }
            RequestEvent::Failed { why, waited } => {
                self.end(waited);
                *self.failures.entry(why).or_default() += 1;
            }
        }
    }

    fn end(&mut self, waited: Duration) {
        self.pending = self.pending.saturating_sub(1);
        self.longest = self.longest.max(waited);
    }

    /// Returns the statistics of a new period, with the pending requests of this one.
    pub(super) fn following(&self) -> Statistics {
        Statistics { pending: self.pending, ..Statistics::default() }
    }

    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(super) fn has_answered(&self, name: &str) -> bool {
        self.answers.contains_key(name)
    }

    /// Returns the answers of each server, the number of held requests and the longest wait.
    pub(super) fn line(&self, held: usize) -> String {
        let answers: Vec<String> = self.answers.iter().map(|(by, count)| format!("{by} {count}")).collect();
        let mut parts = vec![if answers.is_empty() { "no answer".to_owned() } else { answers.join(", ") }];
        if held > 0 {
            parts.push(format!("{held} held"));
        }
        if self.longest > Duration::ZERO {
            parts.push(format!("longest wait {}", milliseconds(self.longest)));
        }
        parts.push(format!("{} failed", self.failed()));
        parts.join(" · ")
    }

    /// Describes a change of the kept connection. A request on a closed connection is repeated, as in a connection pool, and
    /// does not count as failed.
    pub(super) fn kept_line(&self) -> Option<String> {
        let with = self.kept.as_deref();
        match (with, self.broken) {
            (Some(with), true) => Some(format!("{REPEATED}: {with}")),
            (None, true) => Some(format!("{REPEATED}: held")),
            (Some(with), false) if self.answers.keys().any(|by| by != with) => {
                Some(format!("the kept connection remains on {with}"))
            }
            _ => None,
        }
    }

    /// Returns each reason of a failure with its count.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|(why, count)| format!("{count} failed: {why}"))
    }

    /// Returns the summary for the last line.
    pub(super) fn summary(&self) -> String {
        let ended = self.answers.values().sum::<u64>() + self.failed();
        format!("{ended} requests, {} failed, longest pause {}", self.failed(), milliseconds(self.longest))
    }
}

/// Formats a duration, rounded up.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_micros().div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(by: &str, ms: u64, connection: Connection) -> RequestEvent {
        RequestEvent::Answered { by: by.to_owned(), waited: Duration::from_millis(ms), connection }
    }

    fn statistics(events: impl IntoIterator<Item = RequestEvent>) -> Statistics {
        let mut statistics = Statistics::default();
        events.into_iter().for_each(|event| statistics.record(event));
        statistics
    }

    #[test]
    fn a_request_is_pending_until_its_answer() {
        let mut all =
            statistics([RequestEvent::Sent, RequestEvent::Sent, answered("blue", 3, Connection::New)]);
        assert_eq!((all.pending(), all.following().pending()), (1, 1));
        assert_eq!(all.line(1), "blue 1 · 1 held · longest wait 3 ms · 0 failed");
        assert_eq!(all.following().line(1), "no answer · 1 held · 0 failed");
        all.record(answered("green", 1200, Connection::New));
        assert_eq!(all.line(0), "blue 1, green 1 · longest wait 1200 ms · 0 failed");
        assert_eq!(all.summary(), "2 requests, 0 failed, longest pause 1200 ms");
    }

    #[test]
    fn failures_are_counted_by_reason() {
        let failed =
            |why: &str| RequestEvent::Failed { why: why.to_owned(), waited: Duration::from_secs(10) };
        let all = statistics([RequestEvent::Sent, failed("reset"), RequestEvent::Sent, failed("reset")]);
        assert_eq!((all.failed(), all.pending()), (2, 0));
        assert_eq!(all.summary(), "2 requests, 2 failed, longest pause 10000 ms");
        assert_eq!(all.reasons().collect::<Vec<_>>(), ["2 failed: reset"]);
    }

    #[test]
    fn the_kept_connection_is_described_only_if_it_differs() {
        let fresh = |by| answered(by, 1, Connection::New);
        let kept = |by| answered(by, 1, Connection::Kept);
        let described = |seen: Vec<RequestEvent>| statistics(seen).kept_line();
        assert_eq!(described(vec![fresh("blue"), kept("blue")]), None);
        let stays = Some("the kept connection remains on blue".to_owned());
        assert_eq!(described(vec![kept("blue"), fresh("green")]), stays);
        let moved = Some("kept connection ended, request repeated on a new one: green".to_owned());
        assert_eq!(described(vec![RequestEvent::ConnectionBroken, kept("green")]), moved);
        let held = Some("kept connection ended, request repeated on a new one: held".to_owned());
        assert_eq!(described(vec![RequestEvent::ConnectionBroken]), held);
    }

    #[test]
    fn the_line_fits_a_terminal_of_80_columns() {
        let server = |by| std::iter::repeat_n(answered(by, 10_000, Connection::New), 999);
        let all = statistics(server("amber").chain(server("green")).chain([RequestEvent::ConnectionBroken]));
        // After a time and two spaces.
        assert!(all.line(999).chars().count() <= 70, "{}", all.line(999));
        assert!(format!("{REPEATED}: green").chars().count() <= 70);
    }

    #[test]
    fn a_pause_is_never_rounded_down() {
        assert_eq!(milliseconds(Duration::from_micros(1001)), "2 ms");
        assert_eq!(milliseconds(Duration::ZERO), "0 ms");
    }
}
