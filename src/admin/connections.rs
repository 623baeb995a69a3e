//! The open connections of the admin API: bounded, and the oldest is closed for a new one.
//!
//! A client that sends nothing, or does not read, keeps its connection only until another client needs it. A health check is
//! answered, however many connections others hold open.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::task::{AbortHandle, JoinSet};

/// Concurrent connections, except those that stream events.
const CONNECTIONS_MAX: usize = 64;
/// Concurrent connections that stream events.
const STREAMING_MAX: usize = 32;
/// They have descriptors of their own, whatever sessions use.
const _: () = assert!(CONNECTIONS_MAX + STREAMING_MAX <= crate::fd_budget::ADMIN);

/// Whether a connection streams events, and so has no deadline. Set by the handler of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streaming(Arc<AtomicBool>);

impl Streaming {
    pub(crate) fn begin(&self) {
        self.0.store(true, Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// The open connections, oldest first. They end when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Streaming)>,
}

impl Connections {
    /// Adds a connection. Closes the oldest of a kind that has reached its limit.
    pub(super) fn add(
        &mut self,
        streaming: Streaming,
        connection: impl Future<Output = ()> + Send + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        self.limit(false, CONNECTIONS_MAX);
        self.limit(true, STREAMING_MAX);
        let task = self.tasks.spawn(connection);
        self.open.push_back((task, streaming));
    }

    fn limit(&mut self, streaming: bool, max: usize) {
        let of_kind = |open: &(AbortHandle, Streaming)| open.1.is_set() == streaming;
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
    async fn oldest_connection_is_closed_and_slow_clients_do_not_close_streams() {
        let mut connections = Connections::default();
        let streaming = Streaming::default();
        streaming.begin();
        connections.add(streaming, pending());
        for _ in 0..3 * CONNECTIONS_MAX {
            connections.add(Streaming::default(), pending());
        }
        assert_eq!(connections.open.len(), CONNECTIONS_MAX + 1);
        assert!(connections.open[0].1.is_set());
        for _ in 0..3 * STREAMING_MAX {
            let streaming = Streaming::default();
            streaming.begin();
            connections.add(streaming, pending());
        }
        let open = connections.open.len();
        assert!(open <= CONNECTIONS_MAX + STREAMING_MAX + 1, "{open}");
    }

    #[tokio::test]
    async fn served_connection_is_removed() {
        let mut connections = Connections::default();
        for _ in 0..10 {
            connections.add(Streaming::default(), async {});
            tokio::task::yield_now().await;
        }
        assert_eq!(connections.open.len(), 1);
    }
}
