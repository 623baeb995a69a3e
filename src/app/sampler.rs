//! The task that records the history of the routes. While nothing happens it waits without a timer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time::{sleep, sleep_until};

use crate::events::Events;
use crate::history::History;
use crate::observe::history::sample;
use crate::reconcile::Overview;

/// Time after an event until the control loop has published its result.
const EVENT_PAUSE: Duration = Duration::from_millis(50);
/// Seconds without a change after which the sampler rests. In the last of them, sessions already wake it.
const QUIET_MAX: u32 = 2;

/// Samples until it is dropped: each second, and in addition once after an event.
pub(super) async fn run(history: Arc<History>, overview: Arc<ArcSwap<Overview>>, events: Arc<Events>) {
    let mut latest = events.follow();
    let activity = &history.activity;
    let second = || sleep_until(history.next_second(Instant::now()).into());
    let mut quiet = 0;
    loop {
        let is_resting = quiet >= QUIET_MAX;
        let was_quiet = tokio::select! {
            () = second(), if !is_resting => true,
            () = activity.woken(), if is_resting => false,
            _ = latest.changed() => {
                sleep(EVENT_PAUSE).await;
                latest.mark_unchanged();
                sample(&overview.load(), true);
                false
            }
        };
        if !was_quiet {
            second().await;
        }
        let has_event = latest.has_changed().unwrap_or(false);
        latest.mark_unchanged();
        let has_changed = sample(&overview.load(), has_event);
        quiet = if was_quiet && !has_event && !has_changed && !activity.is_viewed() { quiet + 1 } else { 0 };
        if quiet + 1 == QUIET_MAX {
            activity.fall_asleep();
        }
    }
}
