//! Closed routes: their listeners until the workers have closed them, and their endpoints for a grace period.
//!
//! A connection that the kernel had accepted for a route is served, even if the route was closed before a worker saw it.

use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::open_route::OpenRoute;
use crate::address::Identity;
use crate::route::{Listen, OnRemove, Protocol};

/// How long a round waits for listeners that overlap a new one. A worker that is not stalled closes one in microseconds.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// How long the sessions that were accepted last may still connect.
const GRACE: Duration = Duration::from_secs(1);

/// Closed routes, in the order in which they were closed.
#[derive(Default)]
pub(super) struct ClosingRoutes {
    routes: Vec<ClosingRoute>,
}

struct ClosingRoute {
    listen: Listen,
    /// Has a token for each listener that is still open.
    listeners: TaskTracker,
    /// The route while it still serves, and until when.
    serving: Option<(OpenRoute, Instant)>,
}

impl ClosingRoutes {
    /// Closes the listeners of a route.
    pub(super) fn add(&mut self, listen: Listen, route: OpenRoute, now: Instant) {
        route.stop.cancel();
        route.listeners.close();
        let listeners = route.listeners.clone();
        let has_grace = listen.protocol() == Protocol::Tcp
            && route.cluster.members().options.on_remove == OnRemove::Drain;
        if !has_grace {
            end(&route);
        }
        let until = if has_grace { now + GRACE } else { now };
        self.routes.push(ClosingRoute { listen, listeners, serving: Some((route, until)) });
    }

    /// Returns when the next grace period ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.routes.iter().find_map(|route| route.serving.as_ref()).map(|(_, until)| *until)
    }

    /// Ends the routes whose grace period has passed.
    pub(super) fn finish(&mut self, now: Instant) {
        self.finish_if(|_, until| until <= now);
    }

    /// Ends the routes to containers: updates of containers no longer reach them, and no address may outlive its container.
    pub(super) fn finish_containers(&mut self) {
        self.finish_if(|route, _| {
            let members = route.cluster.members();
            members
                .all()
                .any(|(_, member)| matches!(member.endpoint.key.identity, Identity::Container { .. }))
        });
    }

    fn finish_if(&mut self, is_over: impl Fn(&OpenRoute, Instant) -> bool) {
        for closing in &mut self.routes {
            if let Some((route, _)) = closing.serving.take_if(|(route, until)| is_over(route, *until)) {
                end(&route);
            }
        }
        self.routes.retain(|route| route.serving.is_some() || !route.listeners.is_empty());
    }

    /// Returns the deadline of [`ClosingRoutes::wait`] for a round that begins now.
    pub(super) fn deadline() -> tokio::time::Instant {
        tokio::time::Instant::now() + WAIT_MAX
    }

    /// Waits, until `deadline` at most, for listeners that overlap `listen`. Returns whether there were any. Does not wait for
    /// UDP sockets, which stay open for their flows.
    pub(super) async fn wait(&mut self, listen: &Listen, deadline: tokio::time::Instant) -> bool {
        let mut found = false;
        let overlaps =
            |route: &&ClosingRoute| route.listen.protocol() == Protocol::Tcp && route.listen.overlaps(listen);
        for route in self.routes.iter().filter(overlaps) {
            found = true;
            if tokio::time::timeout_at(deadline, route.listeners.wait()).await.is_err() {
                break;
            }
        }
        found
    }
}

fn end(route: &OpenRoute) {
    route.cluster.close();
    // Held sessions of a closed route wait for its hold, not for a `resume`.
    route.cluster.pause(false);
}
