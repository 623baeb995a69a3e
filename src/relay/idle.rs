//! How long a session may be silent, and how long it is.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::ending::Ending;

/// How long silence may last, to the millisecond; 49 days and more is for ever. Each session keeps its own: few bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    idle_ms: Option<NonZeroU32>,
    half_close_ms: Option<NonZeroU32>,
}

impl Limits {
    /// `idle`: no byte either way; `None` is for ever. `half_close`: no byte, once one side is done.
    pub const fn new(idle: Option<Duration>, half_close: Duration) -> Limits {
        let idle_ms = match idle {
            Some(idle) => milliseconds(idle),
            None => None,
        };
        Limits { idle_ms, half_close_ms: milliseconds(half_close) }
    }

    /// The silence that is allowed, and what it is called when it lasts longer.
    pub(super) fn allowed(self, is_half_closed: bool) -> Option<(Duration, Ending)> {
        let limit = |ms: NonZeroU32, ending| (Duration::from_millis(u64::from(ms.get())), ending);
        let idle = self.idle_ms.map(|ms| limit(ms, Ending::Idle));
        let half_close = self.half_close_ms.map(|ms| limit(ms, Ending::HalfCloseTimeout));
        if !is_half_closed {
            return idle;
        }
        // The shorter one; of equals the one that says more.
        half_close.into_iter().chain(idle).min_by_key(|(limit, _)| *limit)
    }
}

/// At least one; `None` for more than fit.
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
    #[project = SilenceProjection]
    /// How long there was no byte and no half-close, and an alarm for when that is too long.
    pub(super) struct Silence {
        since: Instant,
        // Too long then at the latest, whatever comes in between.
        end: Option<Instant>,
        // It lasted too long, and was extended because of something that has happened and was not seen yet.
        is_extended: bool,
        #[pin]
        alarm: Sleep,
    }
}

impl Silence {
    pub(super) fn of(limit: Duration) -> Pin<Box<Silence>> {
        Box::pin(Silence { since: Instant::now(), end: None, is_extended: false, alarm: sleep(limit) })
    }

    /// One that ends after `total`, whatever comes in between.
    pub(super) fn within(total: Duration, limit: Duration) -> Pin<Box<Silence>> {
        let since = Instant::now();
        Box::pin(Silence { since, end: Some(since + total), is_extended: false, alarm: sleep(limit) })
    }

    /// There was a byte, or a half-close.
    pub(super) fn broken(self: Pin<&mut Silence>) {
        let this = self.project();
        *this.since = Instant::now();
        *this.is_extended = false;
    }

    /// Begins anew, unless it did so before without being broken since. Returns whether it did.
    pub(super) fn extend(mut self: Pin<&mut Silence>) -> bool {
        if self.is_extended {
            return false;
        }
        self.as_mut().broken();
        *self.project().is_extended = true;
        true
    }

    /// Ready when it has lasted for `limit`. The alarm is not moved for each byte: it rings, finds that there was a byte
    /// since, and is set for the rest.
    pub(super) fn poll(self: Pin<&mut Silence>, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let SilenceProjection { since, end, mut alarm, .. } = self.project();
        let Some(deadline) = since.checked_add(limit).into_iter().chain(*end).min() else {
            return Poll::Pending;
        };
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        loop {
            ready!(alarm.as_mut().poll(cx));
            if deadline <= alarm.deadline() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
    }
}
