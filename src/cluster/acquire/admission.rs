//! Limits how many sessions of a route are open at one time.
//!
//! Excess sessions queue in FIFO order. A new session does not overtake queued ones.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The session limits of one cluster.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Admission {
    admitted: AtomicUsize,
    /// Sessions that wait for a slot of the route (`max-sessions`).
    pub(super) slots: WaitQueue,
    /// Sessions that wait for an endpoint below its limit (`max-sessions-per-endpoint`).
    pub(super) endpoints: WaitQueue,
}

/// Sessions that wait for a limited resource.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    waiting: AtomicUsize,
    woken: Notify,
}

/// A place in a [`WaitQueue`]. Dropping it leaves the queue; if it had been woken already, the next waiter is woken instead.
pub(super) struct Waiter<'q> {
    queue: &'q WaitQueue,
    woken: Pin<Box<Notified<'q>>>,
}

/// An admitted session. Dropping it wakes the next one in the queue.
#[derive(Debug)]
pub(super) struct Slot(Arc<Admission>);

impl Admission {
    /// Admits a session. Returns `None` at the limit, and for a session that has not queued while others do.
    pub(super) fn admit(self: &Arc<Admission>, max: Option<u32>, has_queued: bool) -> Option<Slot> {
        let max = max.map_or(usize::MAX, |max| max as usize);
        if max < usize::MAX && !has_queued && self.slots.has_waiters() {
            return None;
        }
        let one_more = |admitted: usize| (admitted < max).then_some(admitted + 1);
        self.admitted.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Slot(self.clone()))
    }

    /// Returns the number of sessions that are admitted now.
    pub(in crate::cluster) fn admitted(&self) -> usize {
        self.admitted.load(Relaxed)
    }
}

impl Slot {
    pub(super) fn admission(&self) -> &Admission {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Relaxed);
        self.0.slots.wake_one();
    }
}

impl WaitQueue {
    pub(super) fn has_waiters(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Joins the end of the queue. Check the resource again afterwards: a release before this call wakes no waiter.
    pub(super) fn join(&self) -> Waiter<'_> {
        self.waiting.fetch_add(1, Relaxed);
        let mut woken = Box::pin(self.woken.notified());
        woken.as_mut().enable();
        Waiter { queue: self, woken }
    }

    /// Wakes the first waiter, or the next one to join.
    pub(super) fn wake_one(&self) {
        self.woken.notify_one();
    }
}

impl Waiter<'_> {
    /// Waits until woken, then returns to the end of the queue.
    pub(super) async fn woken(&mut self) {
        self.woken.as_mut().await;
        self.woken.set(self.queue.woken.notified());
        self.woken.as_mut().enable();
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admitted_sessions_never_exceed_the_limit_and_are_all_released() {
        let admission = Arc::new(Admission::default());
        let slots: Vec<Slot> = std::iter::from_fn(|| admission.admit(Some(3), false)).collect();
        assert_eq!((slots.len(), admission.admitted()), (3, 3));
        let fourth = admission.admit(None, false);
        assert!(fourth.is_some(), "sessions are counted without a limit, too");
        drop((slots, fourth));
        assert_eq!(admission.admitted(), 0);
    }

    #[tokio::test]
    async fn queue_is_not_overtaken_and_the_first_waiter_is_woken_first() {
        let admission = Arc::new(Admission::default());
        let slot = admission.admit(Some(1), false).unwrap();
        let (mut first, mut second) = (admission.slots.join(), admission.slots.join());
        drop(slot);
        assert!(admission.admit(Some(1), false).is_none());
        first.woken().await;
        let slot = admission.admit(Some(1), true).unwrap();
        drop(first);
        let early = tokio::time::timeout(std::time::Duration::from_millis(5), second.woken()).await;
        assert!(early.is_err(), "one slot wakes one waiter");
        drop(slot);
        second.woken().await;
    }

    #[tokio::test]
    async fn woken_waiter_that_leaves_wakes_the_next() {
        let admission = Arc::new(Admission::default());
        let slot = admission.admit(Some(1), false).unwrap();
        let (first, mut second) = (admission.slots.join(), admission.slots.join());
        drop(slot);
        drop(first);
        second.woken().await;
    }
}
