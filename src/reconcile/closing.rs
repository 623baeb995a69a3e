//! Routes that are closed: their listeners until the workers have closed them, and their endpoints for a moment more.
//!
//! A connection that the kernel had accepted for a route is served, even if the route was closed before a worker saw it.

use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::running::Running;
use crate::address::Identity;
use crate::route::{Listen, OnRemove, Protocol};

/// How long a round waits for listeners that are in its way. A worker closes one in microseconds, if it is not stalled.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// How long the sessions that were accepted last may still connect.
const GRACE: Duration = Duration::from_secs(1);

/// In the order in which they were closed.
#[derive(Default)]
pub(super) struct Closing {
    routes: Vec<ClosingRoute>,
}

struct ClosingRoute {
    listen: Listen,
    /// Has a token for each listener that is still open.
    listeners: TaskTracker,
    /// Until it no longer serves, and when that is.
    serving: Option<(Running, Instant)>,
}

impl Closing {
    pub(super) fn add(&mut self, listen: Listen, running: Running, now: Instant) {
        running.stop.cancel();
        running.listeners.close();
        let listeners = running.listeners.clone();
        let has_grace = listen.protocol() == Protocol::Tcp
            && running.cluster.members().options.on_remove == OnRemove::Drain;
        if !has_grace {
            end(&running);
        }
        let until = if has_grace { now + GRACE } else { now };
        self.routes.push(ClosingRoute { listen, listeners, serving: Some((running, until)) });
    }

    /// When the next of them no longer serves.
    pub(super) fn next(&self) -> Option<Instant> {
        self.routes.iter().find_map(|route| route.serving.as_ref()).map(|(_, until)| *until)
    }

    /// Ends those whose time has come.
    pub(super) fn finish(&mut self, now: Instant) {
        self.finish_if(|_, until| until <= now);
    }

    /// Ends those that lead to containers: there is news of containers, which no longer reaches them, and an address must not
    /// outlive its container.
    pub(super) fn finish_containers(&mut self) {
        self.finish_if(|running, _| {
            let members = running.cluster.members();
            members
                .all()
                .any(|(_, member)| matches!(member.endpoint.key.identity, Identity::Container { .. }))
        });
    }

    fn finish_if(&mut self, is_over: impl Fn(&Running, Instant) -> bool) {
        for route in &mut self.routes {
            if let Some((running, _)) = route.serving.take_if(|(running, until)| is_over(running, *until)) {
                end(&running);
            }
        }
        self.routes.retain(|route| route.serving.is_some() || !route.listeners.is_empty());
    }

    /// When to stop waiting, for a round that begins now.
    pub(super) fn deadline() -> tokio::time::Instant {
        tokio::time::Instant::now() + WAIT_MAX
    }

    /// Waits, no longer than until `deadline`, for listeners that are in the way of `listen`. Returns whether there were any. UDP
    /// sockets are not waited for: they stay open for their flows.
    pub(super) async fn wait(&mut self, listen: &Listen, deadline: tokio::time::Instant) -> bool {
        let mut found = false;
        let in_the_way =
            |route: &&ClosingRoute| route.listen.protocol() == Protocol::Tcp && route.listen.overlaps(listen);
        for route in self.routes.iter().filter(in_the_way) {
            found = true;
            if tokio::time::timeout_at(deadline, route.listeners.wait()).await.is_err() {
                break;
            }
        }
        found
    }
}

fn end(running: &Running) {
    running.cluster.close();
    // Whom nobody can serve any more waits for its hold, and not for a `resume`.
    running.cluster.pause(false);
}
