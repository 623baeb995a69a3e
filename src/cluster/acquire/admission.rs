//! How many sessions may be there at one time, and in which order the others come in.
//!
//! Who is too many waits in a line: the first to come is the first to be called. While somebody waits, nobody who comes
//! later goes past.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// One cluster's.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    inside: AtomicUsize,
    /// For a place in the route (`max-sessions`).
    pub(super) slots: Line,
    /// For a place on an endpoint (`max-sessions-per-endpoint`).
    pub(super) room: Line,
}

/// Sessions that wait for something of which there is not enough.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
    called: Notify,
}

/// One place in a line; left on drop. If it was called and did not come, the next one is.
pub(super) struct Waiting<'l> {
    line: &'l Line,
    called: Pin<Box<Notified<'l>>>,
}

/// A session's place in its route; given to the next in line on drop.
#[derive(Debug)]
pub(super) struct Slot(Arc<Turnstile>);

impl Turnstile {
    /// `None`: there are `max` already, or others wait and this one has not.
    pub(super) fn enter(self: &Arc<Turnstile>, max: Option<u32>, has_waited: bool) -> Option<Slot> {
        let max = max.map_or(usize::MAX, |max| max as usize);
        if max < usize::MAX && !has_waited && self.slots.is_busy() {
            return None;
        }
        let one_more = |inside: usize| (inside < max).then_some(inside + 1);
        self.inside.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Slot(self.clone()))
    }

    pub(super) fn inside(&self) -> usize {
        self.inside.load(Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Relaxed);
        self.0.slots.call();
    }
}

impl Line {
    /// Somebody waits.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// At the end of the line. Look once more after joining: what came free before calls nobody.
    pub(super) fn join(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        let mut called = Box::pin(self.called.notified());
        called.as_mut().enable();
        Waiting { line: self, called }
    }

    /// Calls the first in line, or the first to join it.
    pub(super) fn call(&self) {
        self.called.notify_one();
    }
}

impl Waiting<'_> {
    /// Until it is called. Then it stands at the end of the line again, should it find nothing.
    pub(super) async fn called(&mut self) {
        self.called.as_mut().await;
        self.called.set(self.line.called.notified());
        self.called.as_mut().enable();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_inside_than_may_be_and_all_leave() {
        let turnstile = Arc::new(Turnstile::default());
        let slots: Vec<Slot> = std::iter::from_fn(|| turnstile.enter(Some(3), false)).collect();
        assert_eq!((slots.len(), turnstile.inside()), (3, 3));
        let fourth = turnstile.enter(None, false);
        assert!(fourth.is_some(), "without a limit they are counted all the same");
        drop((slots, fourth));
        assert_eq!(turnstile.inside(), 0);
    }

    #[tokio::test]
    async fn nobody_goes_past_the_line_and_the_first_is_called_first() {
        let turnstile = Arc::new(Turnstile::default());
        let inside = turnstile.enter(Some(1), false).unwrap();
        let (mut first, mut second) = (turnstile.slots.join(), turnstile.slots.join());
        drop(inside);
        assert!(turnstile.enter(Some(1), false).is_none());
        first.called().await;
        let inside = turnstile.enter(Some(1), true).unwrap();
        drop(first);
        let early = tokio::time::timeout(std::time::Duration::from_millis(5), second.called()).await;
        assert!(early.is_err(), "one place, one call");
        drop(inside);
        second.called().await;
    }

    #[tokio::test]
    async fn who_is_called_and_leaves_passes_the_call_on() {
        let turnstile = Arc::new(Turnstile::default());
        let inside = turnstile.enter(Some(1), false).unwrap();
        let (first, mut second) = (turnstile.slots.join(), turnstile.slots.join());
        drop(inside);
        drop(first);
        second.called().await;
    }
}
