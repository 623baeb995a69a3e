//! What keeps the sampler awake: viewers, and sessions that begin.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use tokio::sync::Notify;

/// Shared by the sampler, the sessions and the viewers.
#[derive(Debug, Default)]
pub struct Activity {
    /// Whether a session that begins must wake the sampler.
    is_asleep: AtomicBool,
    wake: Notify,
    viewers: AtomicUsize,
}

/// Keeps the sampler awake until it is dropped.
#[derive(Debug)]
pub struct Viewer(Arc<super::History>);

impl Activity {
    /// Wakes the sampler. Costs one relaxed load while it is awake.
    pub fn wake(&self) {
        if self.is_asleep.load(Relaxed) && self.is_asleep.swap(false, SeqCst) {
            self.wake.notify_one();
        }
    }

    /// Has sessions wake the sampler from now on. A session on another thread may not see it for a moment, so the sampler must
    /// look once more before it rests.
    pub fn fall_asleep(&self) {
        self.is_asleep.store(true, SeqCst);
    }

    /// Waits for [`Activity::wake`].
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Returns whether there is a viewer.
    pub fn is_viewed(&self) -> bool {
        self.viewers.load(Relaxed) > 0
    }
}

impl super::History {
    /// Keeps the sampler awake until the viewer is dropped.
    pub fn view(self: &Arc<Self>) -> Viewer {
        self.activity.viewers.fetch_add(1, Relaxed);
        self.activity.wake();
        Viewer(self.clone())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.activity.viewers.fetch_sub(1, Relaxed);
    }
}
