//! The time of a line: `2026-11-21T13:00:00.123456Z`.

use std::cell::Cell;
use std::fmt::{self, Display, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::digits::write_digits;

/// In UTC, to the microsecond (RFC 3339).
#[derive(Clone, Copy, Debug)]
pub(super) struct Timestamp(pub(super) SystemTime);

/// The time of tracing's lines.
pub(super) struct Clock;

/// A second and its text, without the `Z`. Empty before the first.
#[derive(Default)]
struct Second {
    since_epoch: u64,
    text: String,
}

thread_local! {
    /// That of the last line, since most lines have the same one.
    static SECOND: Cell<Second> = const { Cell::new(Second { since_epoch: 0, text: String::new() }) };
}

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", Timestamp(SystemTime::now()))
    }
}

impl Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clock before 1970 is wrong, but no reason to panic.
        let since_epoch = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut second = SECOND.try_with(Cell::take).unwrap_or_default();
        second.turn_to(since_epoch.as_secs());
        f.write_str(&second.text)?;
        let _ = SECOND.try_with(|last| last.set(second));
        f.write_char('.')?;
        write_digits(f, since_epoch.subsec_micros(), 6)?;
        f.write_char('Z')
    }
}

impl Second {
    fn turn_to(&mut self, since_epoch: u64) {
        if self.since_epoch == since_epoch && !self.text.is_empty() {
            return;
        }
        self.since_epoch = since_epoch;
        self.text.clear();
        // Fails after the year 9999, and then there is no text.
        let _ = write!(
            self.text,
            "{}",
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since_epoch))
        );
        self.text.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_to_the_microsecond_whatever_the_second_before() {
        for time in [
            "2026-11-21T13:00:00.123456Z",
            "2026-11-21T13:00:00.000007Z",
            "2026-11-21T13:00:01.999999Z",
            "1970-01-01T00:00:00.000000Z",
            "9999-12-31T23:59:59.999999Z",
            "2026-11-21T13:00:00.123456Z",
        ] {
            assert_eq!(Timestamp(humantime::parse_rfc3339(time).unwrap()).to_string(), time);
        }
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Timestamp(before).to_string(), "1970-01-01T00:00:00.000000Z");
    }
}
