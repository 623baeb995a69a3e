//! What the consumer saw: counted, and told in a line. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// One thing that happened to the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Asked,
    Answered {
        by: String,
        waited: Duration,
        line: Line,
    },
    Failed {
        why: String,
        waited: Duration,
    },
    /// The kept connection was found broken, before its next request was answered over a new one.
    Broken,
}

/// Over which connection a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Fresh,
    Kept,
}

const REPEATED: &str = "kept connection ended, request repeated on a new one";

/// The sum of what was seen since it was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Answers, by who gave them.
    answers: BTreeMap<String, u64>,
    /// Why requests failed, and how often.
    failures: BTreeMap<String, u64>,
    longest: Duration,
    /// Asked before or since, and not answered yet.
    waiting: u64,
    /// Who answered over the kept connection last.
    kept: Option<String>,
    /// The kept connection broke.
    broken: bool,
}

impl Account {
    pub(super) fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Asked => self.waiting += 1,
            Seen::Broken => self.broken = true,
            Seen::Answered { by, waited, line } => {
                self.end(waited);
                if line == Line::Kept {
                    self.kept = Some(by.clone());
                }
                *self.answers.entry(by).or_default() += 1;
            }
            Seen::Failed { why, waited } => {
                self.end(waited);
                *self.failures.entry(why).or_default() += 1;
            }
        }
    }

    fn end(&mut self, waited: Duration) {
        self.waiting = self.waiting.saturating_sub(1);
        self.longest = self.longest.max(waited);
    }

    /// An account that begins now: who waits, waits on.
    pub(super) fn next(&self) -> Account {
        Account { waiting: self.waiting, ..Account::default() }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(super) fn has_answered(&self, name: &str) -> bool {
        self.answers.contains_key(name)
    }

    /// The answers of each server, how many requests are held now, and the longest wait.
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

    /// What happened to the kept connection, if anything did. A request that found it closed was repeated, as a connection
    /// pool does, and has not failed.
    pub(super) fn kept_line(&self) -> Option<String> {
        let with = self.kept.as_deref();
        match (with, self.broken) {
            (Some(with), true) => Some(format!("{REPEATED}: {with}")),
            (None, true) => Some(format!("{REPEATED}: held")),
            (Some(with), false) if self.answers.keys().any(|by| by != with) => {
                Some(format!("the kept connection stays with {with}"))
            }
            _ => None,
        }
    }

    /// Every reason for a failure, with how often.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|(why, count)| format!("{count} failed: {why}"))
    }

    /// The whole of it, for the last line.
    pub(super) fn sum(&self) -> String {
        let ended = self.answers.values().sum::<u64>() + self.failed();
        format!("{ended} requests, {} failed, longest pause {}", self.failed(), milliseconds(self.longest))
    }
}

/// Rounded up, so that a pause is never shown shorter than it was.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_micros().div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(by: &str, ms: u64, line: Line) -> Seen {
        Seen::Answered { by: by.to_owned(), waited: Duration::from_millis(ms), line }
    }

    fn account(seen: impl IntoIterator<Item = Seen>) -> Account {
        let mut account = Account::default();
        seen.into_iter().for_each(|seen| account.note(seen));
        account
    }

    #[test]
    fn a_request_waits_from_its_question_to_its_answer() {
        let mut all = account([Seen::Asked, Seen::Asked, answered("blue", 3, Line::Fresh)]);
        assert_eq!((all.waiting(), all.next().waiting()), (1, 1));
        assert_eq!(all.line(1), "blue 1 · 1 held · longest wait 3 ms · 0 failed");
        assert_eq!(all.next().line(1), "no answer · 1 held · 0 failed");
        all.note(answered("green", 1200, Line::Fresh));
        assert_eq!(all.line(0), "blue 1, green 1 · longest wait 1200 ms · 0 failed");
        assert_eq!(all.sum(), "2 requests, 0 failed, longest pause 1200 ms");
    }

    #[test]
    fn a_failure_is_counted_with_its_reason_and_its_wait() {
        let failed = |why: &str| Seen::Failed { why: why.to_owned(), waited: Duration::from_secs(10) };
        let all = account([Seen::Asked, failed("reset"), Seen::Asked, failed("reset")]);
        assert_eq!((all.failed(), all.waiting()), (2, 0));
        assert_eq!(all.sum(), "2 requests, 2 failed, longest pause 10000 ms");
        assert_eq!(all.reasons().collect::<Vec<_>>(), ["2 failed: reset"]);
    }

    #[test]
    fn the_kept_connection_is_told_of_only_when_it_differs() {
        let fresh = |by| answered(by, 1, Line::Fresh);
        let kept = |by| answered(by, 1, Line::Kept);
        let told = |seen: Vec<Seen>| account(seen).kept_line();
        assert_eq!(told(vec![fresh("blue"), kept("blue")]), None);
        let stays = Some("the kept connection stays with blue".to_owned());
        assert_eq!(told(vec![kept("blue"), fresh("green")]), stays);
        let moved = Some("kept connection ended, request repeated on a new one: green".to_owned());
        assert_eq!(told(vec![Seen::Broken, kept("green")]), moved);
        let held = Some("kept connection ended, request repeated on a new one: held".to_owned());
        assert_eq!(told(vec![Seen::Broken]), held);
    }

    #[test]
    fn line_fits_a_terminal_of_80_columns() {
        let server = |by| std::iter::repeat_n(answered(by, 10_000, Line::Fresh), 999);
        let all = account(server("amber").chain(server("green")).chain([Seen::Broken]));
        // A time and two spaces stand before it.
        assert!(all.line(999).chars().count() <= 70, "{}", all.line(999));
        assert!(format!("{REPEATED}: green").chars().count() <= 70);
    }

    #[test]
    fn a_pause_is_never_rounded_down() {
        assert_eq!(milliseconds(Duration::from_micros(1001)), "2 ms");
        assert_eq!(milliseconds(Duration::ZERO), "0 ms");
    }
}
