//! Bounded waiting for something to become so.

use std::fmt::Display;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Asks again until there is a value; gives up, with the last reason, after a minute.
pub(crate) fn eventually<T, E: Display>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    within(Duration::from_secs(60), what, ask)
}

/// The same with a limit of its own.
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

/// Between two questions. Not a way to wait for something: that is asked for.
#[expect(clippy::disallowed_methods, reason = "a test's own thread, and no runtime on it")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
