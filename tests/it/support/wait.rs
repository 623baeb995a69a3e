//! Bounded waiting for conditions.

use std::fmt::Display;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Retries until there is a value; panics with the last error after a minute.
pub(crate) fn eventually<T, E: Display>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    within(Duration::from_secs(60), what, ask)
}

/// Does the same with this limit.
pub(crate) fn within<T, E: Display>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<T, E>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(value) => return value,
            Err(why) if started.elapsed() > limit => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => pause(POLL),
        }
    }
}

/// Sleeps between retries. Tests wait for conditions, not by sleeping.
#[expect(clippy::disallowed_methods, reason = "a test's own thread, and no runtime on it")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
