//! Names whose addresses change, vanish, fail and hang: which addresses are used, for how long, and how often they are
//! queried.

mod many;
mod model;
mod resolver;
mod source;

use std::time::Duration;

use ambassador::config::dns::Limits;

use super::rng::Rng;
pub(super) use many::run as run_many;
pub(super) use source::run as run_source;

/// The maximum pauses after a failure: of a source, and of a name among others.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(5);

fn limits(rng: &mut Rng) -> Limits {
    let mut seconds = |all: &[u64]| Duration::from_secs(rng.pick(all));
    Limits {
        max_ttl: seconds(&[0, 1, 4, 30, 30]),
        stale: seconds(&[0, 3, 20, 20, 90, 3600]),
        nx_stale: seconds(&[0, 3, 30, 30, 90]),
    }
}

/// Returns the time until the next event.
fn time(rng: &mut Rng) -> Duration {
    match rng.below(16) {
        0..=5 => Duration::ZERO,
        6..=12 => rng.millis(5_000),
        13 | 14 => rng.millis(40_000),
        _ => rng.millis(200_000),
    }
}

/// Runs all tasks that are ready.
async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}
