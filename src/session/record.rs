//! The record of a session: counted while it is open, reported when it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Shared;
use super::live::{Listed, Live};
use crate::client_net::ClientNet;
use crate::cluster::acquire::ConnectStats;
use crate::cluster::outlier::Outcome;
use crate::cluster::{Cluster, InFlight};
use crate::credentials::PeerIdentity;
use crate::ending::{AccessLog, Ending};
use crate::listener::ClientAddr;
use crate::log::access::{self, Connected, Line, Milliseconds};
use crate::relay::{Account, Limits};
use crate::route::Protocol;
use crate::traffic::Direction;

/// Dropping it ends the session: decrements the gauge and the endpoint's session count, and counts and logs the ending. That
/// includes a session that is dropped before its end, whose ending is [`Ending::Local`].
#[derive(Debug)]
pub(super) struct Record {
    pub(super) live: Listed,
    pub(super) stats: ConnectStats,
    pub(super) endpoint: Option<InFlight>,
    ending: Ending,
    protocol: Protocol,
    /// As in [`Outcome`].
    pub(super) client_left: bool,
    access_log: AccessLog,
}

impl Account for &Record {
    fn moved(&self, direction: Direction, bytes: usize) {
        Record::moved(self, direction, bytes);
    }
}

impl Record {
    pub(super) fn begin(
        cluster: Arc<Cluster>,
        client: ClientAddr,
        protocol: Protocol,
        shared: &Shared,
    ) -> Record {
        cluster.counters.began();
        shared.history.activity.wake();
        Record {
            live: Listed::enter(cluster, client),
            stats: ConnectStats::default(),
            endpoint: None,
            ending: Ending::Local,
            protocol,
            client_left: false,
            access_log: shared.access_log,
        }
    }

    pub(super) fn connected(&mut self, endpoint: InFlight) {
        self.live.endpoint.store(Some(endpoint.endpoint()));
        self.endpoint = Some(endpoint);
    }

    /// Records the peer of a tunnel, or a client with a certificate. Where there are two, the one on the side of the endpoint is
    /// shown.
    pub(super) fn through(&mut self, peer: &Arc<PeerIdentity>) {
        self.live.peer.store(Some(peer.clone()));
    }

    /// Returns how long the session may be idle.
    pub(super) fn limits(&self) -> Limits {
        let options = &self.live.cluster.members().options;
        Limits::new(options.idle_timeout, options.half_close_timeout)
    }

    pub(super) fn moved(&self, direction: Direction, bytes: usize) {
        self.live.traffic.add(direction, bytes);
        self.live.cluster.counters.traffic.add(direction, bytes);
    }

    /// Returns the bytes relayed in both directions.
    pub(super) fn bytes(&self) -> u64 {
        self.live.traffic.up().wrapping_add(self.live.traffic.down())
    }

    pub(super) fn end(mut self, ending: Ending) {
        self.ending = ending;
    }

    /// Returns the outcome for outlier detection.
    fn outcome(&self, lasted: Duration) -> Outcome {
        Outcome {
            protocol: self.protocol,
            ending: self.ending,
            bytes_up: self.live.traffic.up(),
            bytes_down: self.live.traffic.down(),
            lasted,
            client: self.live.client.ip().map(ClientNet::of),
            client_left: self.client_left,
        }
    }

    /// Returns why a session was never connected: the last error, or why there was no endpoint.
    fn why(&self) -> Option<String> {
        if self.endpoint.is_some() {
            return None;
        }
        match (self.stats.error, self.ending) {
            (Some(error), _) => Some(error.one_line()),
            (None, Ending::NoEndpoint) => self.live.cluster.problem(),
            (None, _) => None,
        }
    }

    /// Returns whether the session cost its client next to nothing, so that it can be repeated without limit: the address of a UDP
    /// client may be forged until it has a response, and a rejected connection is closed at once.
    fn was_free(&self) -> bool {
        match self.protocol {
            Protocol::Udp => self.live.traffic.down() == 0,
            Protocol::Tcp => matches!(self.ending, Ending::Denied | Ending::RateLimited),
        }
    }
}

/// Why a connection does not become a session.
#[derive(Debug)]
pub(super) struct Failure {
    ending: Ending,
    /// For people.
    why: String,
}

impl Failure {
    pub(super) fn new(ending: Ending, why: impl Into<String>) -> Failure {
        Failure { ending, why: why.into() }
    }
}

/// Counts and logs a connection that has ended before its session began.
pub(super) fn rejected(
    cluster: &Cluster,
    client: ClientAddr,
    began: Instant,
    Failure { ending, why }: Failure,
    shared: &Shared,
) {
    cluster.counters.rejected(ending);
    shared.history.activity.wake();
    if !shared.access_log.includes(ending) || !cluster.should_log(ending) {
        return;
    }
    let Some(log) = access::sink() else { return };
    log.write(&Line {
        route: &cluster.members().options.name,
        client,
        endpoint: Connected(None),
        peer: None,
        bytes_up: 0,
        bytes_down: 0,
        duration_ms: Milliseconds(began.elapsed()),
        held_ms: Milliseconds(Duration::ZERO),
        attempts: 0,
        ending,
        why: Some(why).filter(|why| !why.is_empty()),
    });
}

impl Drop for Record {
    fn drop(&mut self) {
        let Live { cluster, client, began, traffic, .. } = &*self.live;
        let duration = began.elapsed();
        cluster.counters.active.fetch_sub(1, Relaxed);
        cluster.counters.ended(self.ending);
        cluster.counters.timings.ended(duration, self.stats.held);
        if let Some(endpoint) = &self.endpoint {
            let lasted = duration.saturating_sub(self.stats.held);
            cluster.ended(endpoint, &self.outcome(lasted));
        }
        if !self.access_log.includes(self.ending) {
            return;
        }
        if self.was_free() && !cluster.should_log(self.ending) {
            return;
        }
        let Some(log) = access::sink() else { return };
        let peer = self.live.peer.load();
        log.write(&Line {
            route: &cluster.members().options.name,
            client: *client,
            endpoint: Connected(self.endpoint.as_ref().map(|endpoint| &endpoint.key)),
            peer: peer.as_deref().map(|peer| &*peer.identity),
            bytes_up: traffic.up(),
            bytes_down: traffic.down(),
            duration_ms: Milliseconds(duration),
            held_ms: Milliseconds(self.stats.held),
            attempts: self.stats.attempts,
            ending: self.ending,
            why: self.why(),
        });
    }
}
