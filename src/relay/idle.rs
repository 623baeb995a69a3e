//! How long a session may be idle, and a timer for it.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::ending::Ending;

/// The idle limits of a session, to the millisecond. 49 days and more is unlimited. Compact, because each session has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    idle_ms: Option<NonZeroU32>,
    half_close_ms: Option<NonZeroU32>,
}

impl Limits {
    /// `idle` limits the time without a byte in either direction; `None` is unlimited. `half_close` is the same once one side
    /// has finished.
    pub const fn new(idle: Option<Duration>, half_close: Duration) -> Limits {
        let idle_ms = match idle {
            Some(idle) => milliseconds(idle),
            None => None,
        };
        Limits { idle_ms, half_close_ms: milliseconds(half_close) }
    }

    /// Returns the current limit, and the ending of a session that exceeds it.
    pub(super) fn current(self, is_half_closed: bool) -> Option<(Duration, Ending)> {
        let limit = |ms: NonZeroU32, ending| (Duration::from_millis(u64::from(ms.get())), ending);
        let idle = self.idle_ms.map(|ms| limit(ms, Ending::Idle));
        let half_close = self.half_close_ms.map(|ms| limit(ms, Ending::HalfCloseTimeout));
        if !is_half_closed {
            return idle;
        }
        // The shorter one; if they are equal, the more specific one.
        half_close.into_iter().chain(idle).min_by_key(|(limit, _)| *limit)
    }
}

/// Returns at least one; `None` for a duration that does not fit.
const fn milliseconds(limit: Duration) -> Option<NonZeroU32> {
    let ms = limit.as_millis();
    match ms {
        0 => Some(NonZeroU32::MIN),
        #[expect(clippy::cast_possible_truncation, reason = "it fits")]
        1..=0xffff_ffff => NonZeroU32::new(ms as u32),
        _ => None,
    }
}

pin_project! {
    #[project = IdleTimerProjection]
    /// Measures the time since the last byte or half-close.
    pub(super) struct IdleTimer {
        since: Instant,
        // Expires then at the latest, whatever happens before.
        end: Option<Instant>,
        // It expired and was restarted, because of an event that the driver had not reported yet.
        is_extended: bool,
        #[pin]
        timer: Sleep,
    }
}

impl IdleTimer {
    pub(super) fn new(limit: Duration) -> Pin<Box<IdleTimer>> {
        Box::pin(IdleTimer { since: Instant::now(), end: None, is_extended: false, timer: sleep(limit) })
    }

    /// Creates a timer that expires after `total` at the latest.
    pub(super) fn within(total: Duration, limit: Duration) -> Pin<Box<IdleTimer>> {
        let since = Instant::now();
        Box::pin(IdleTimer { since, end: Some(since + total), is_extended: false, timer: sleep(limit) })
    }

    /// Restarts after a byte or a half-close.
    pub(super) fn touch(self: Pin<&mut IdleTimer>) {
        let this = self.project();
        *this.since = Instant::now();
        *this.is_extended = false;
    }

    /// Restarts, unless it did so since the last [`IdleTimer::touch`]. Returns whether it did.
    pub(super) fn extend(mut self: Pin<&mut IdleTimer>) -> bool {
        if self.is_extended {
            return false;
        }
        self.as_mut().touch();
        *self.project().is_extended = true;
        true
    }

    /// Ready when the session was idle for `limit`. The timer is not reset for each byte: when it fires and there was a byte
    /// since, it is set to the rest.
    pub(super) fn poll(self: Pin<&mut IdleTimer>, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let IdleTimerProjection { since, end, mut timer, .. } = self.project();
        let Some(deadline) = since.checked_add(limit).into_iter().chain(*end).min() else {
            return Poll::Pending;
        };
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if deadline <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}
