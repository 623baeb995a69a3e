//! The connections of the admin API: bounded, and the slow make room for the new.
//!
//! A client that sends nothing, or does not read, holds its place only until somebody else needs it. So nobody is kept from
//! `/ready` by others, and a health check is answered whatever hangs on the socket.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::task::{AbortHandle, JoinSet};

/// Connections at one time, those that follow the events not counted.
const CONNECTIONS_MAX: usize = 64;
/// Of those that follow the events.
const FOLLOWERS_MAX: usize = 32;
/// They have descriptors of their own, whatever sessions use.
const _: () = assert!(CONNECTIONS_MAX + FOLLOWERS_MAX <= crate::fd_budget::ADMIN);

/// Whether a connection follows the events, and so may stay: set by the handler, read by whoever makes room.
#[derive(Clone, Debug, Default)]
pub(super) struct Follows(Arc<AtomicBool>);

impl Follows {
    pub(super) fn begin(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The connections that are open, in the order in which they came. They end when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Follows)>,
}

impl Crowd {
    /// Takes one more, after the oldest of its kind has made room.
    pub(super) fn admit(&mut self, follows: Follows, connection: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        self.make_room(false, CONNECTIONS_MAX);
        self.make_room(true, FOLLOWERS_MAX);
        let task = self.tasks.spawn(connection);
        self.open.push_back((task, follows));
    }

    fn make_room(&mut self, following: bool, max: usize) {
        let of_kind = |open: &(AbortHandle, Follows)| open.1.is_set() == following;
        if self.open.iter().filter(|open| of_kind(open)).count() >= max
            && let Some(oldest) = self.open.iter().position(of_kind)
            && let Some((task, _)) = self.open.remove(oldest)
        {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn the_oldest_makes_room_and_who_follows_is_not_pushed_out_by_the_slow() {
        let mut crowd = Crowd::default();
        let follower = Follows::default();
        follower.begin();
        crowd.admit(follower, pending());
        for _ in 0..3 * CONNECTIONS_MAX {
            crowd.admit(Follows::default(), pending());
        }
        assert_eq!(crowd.open.len(), CONNECTIONS_MAX + 1);
        assert!(crowd.open[0].1.is_set());
        for _ in 0..3 * FOLLOWERS_MAX {
            let follower = Follows::default();
            follower.begin();
            crowd.admit(follower, pending());
        }
        assert!(crowd.open.len() <= CONNECTIONS_MAX + FOLLOWERS_MAX + 1, "{}", crowd.open.len());
    }

    #[tokio::test]
    async fn whoever_is_served_leaves() {
        let mut crowd = Crowd::default();
        for _ in 0..10 {
            crowd.admit(Follows::default(), async {});
            tokio::task::yield_now().await;
        }
        assert_eq!(crowd.open.len(), 1);
    }
}
