//! The progress of a command that waits, on standard error: one line that is redrawn on a terminal, otherwise a line for each
//! change.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use super::err;
use crate::escape::escaped;
use crate::observe::table::age;

/// A line that is longer than the terminal is wide could not be erased.
const COLUMNS_MAX: usize = 79;
const ERASE_LINE: &str = "\r\x1b[2K";
/// The shortest time between two lines that are not redrawn: sessions may end by the hundred.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Erases its line when dropped.
pub(super) struct Progress {
    is_terminal: bool,
    began: Instant,
    timeout: Option<Duration>,
    shown: String,
    shown_at: Option<Instant>,
}

impl Progress {
    pub(super) fn new(timeout: Option<Duration>) -> Progress {
        let is_terminal = stderr().is_terminal();
        Progress { is_terminal, began: Instant::now(), timeout, shown: String::new(), shown_at: None }
    }

    /// Shows what the command waits for, unless that is shown already.
    pub(super) fn show(&mut self, what: &str) {
        let line = if self.is_terminal { self.timed(what, self.began.elapsed()) } else { what.to_owned() };
        let is_early = self.shown_at.is_some_and(|at| at.elapsed() < LINE_INTERVAL);
        if line == self.shown || (is_early && !self.is_terminal) {
            return;
        }
        if self.is_terminal {
            write_err(&format!("{ERASE_LINE}{}", cut(&escaped(&line))));
        } else {
            err(&line);
        }
        (self.shown, self.shown_at) = (line, Some(Instant::now()));
    }

    /// Adds the time: `1 session left (3s of 5m)`.
    fn timed(&self, what: &str, elapsed: Duration) -> String {
        match self.timeout {
            Some(timeout) => format!("{what} ({} of {})", age(elapsed), age(timeout)),
            None => format!("{what} ({})", age(elapsed)),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal && !self.shown.is_empty() {
            write_err(ERASE_LINE);
        }
    }
}

fn write_err(text: &str) {
    let mut stderr = stderr();
    // An error of standard error cannot be reported.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(COLUMNS_MAX) {
        Some(_) => line.chars().take(COLUMNS_MAX - 1).chain(['…']).collect(),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_the_time_and_fits_a_terminal() {
        let timed = |timeout: Option<u64>| {
            let timeout = timeout.map(Duration::from_secs);
            Progress::new(timeout).timed("1 session left", Duration::from_secs(3))
        };
        assert_eq!(timed(None), "1 session left (3s)");
        assert_eq!(timed(Some(300)), "1 session left (3s of 5m)");
        assert_eq!(cut(&"x".repeat(COLUMNS_MAX)), "x".repeat(COLUMNS_MAX));
        assert_eq!(cut(&"ä".repeat(COLUMNS_MAX + 1)), "ä".repeat(COLUMNS_MAX - 1) + "…");
    }
}
