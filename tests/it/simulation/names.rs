//! Names whose addresses change, vanish, fail and hang: what is believed of them, for how long, and how often they are
//! asked for.

mod ledger;
mod many;
mod resolver;
mod source;

use std::time::Duration;

use ambassador::config::dns::Limits;

use super::lots::Lots;
pub(super) use many::tell as tell_of_many;
pub(super) use source::tell as tell_of_a_source;

/// The longest pauses after a failure: of a source, and of a name beside others.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(5);

fn limits(lots: &mut Lots) -> Limits {
    let mut seconds = |all: &[u64]| Duration::from_secs(lots.of(all));
    Limits {
        max_ttl: seconds(&[0, 1, 4, 30, 30]),
        stale: seconds(&[0, 3, 20, 20, 90, 3600]),
        nx_stale: seconds(&[0, 3, 30, 30, 90]),
    }
}

/// Until the next event.
fn time(lots: &mut Lots) -> Duration {
    match lots.below(16) {
        0..=5 => Duration::ZERO,
        6..=12 => lots.millis(5_000),
        13 | 14 => lots.millis(40_000),
        _ => lots.millis(200_000),
    }
}

/// All that can be done now.
async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}
