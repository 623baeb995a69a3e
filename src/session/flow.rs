//! A UDP flow as a session, with the same admission, hold, records and endings as a connection.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;

use super::dial::DatagramDial;
use super::record::Record;
use super::{Shared, admit};
use crate::address::Identity;
use crate::cluster::Cluster;
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::listener::ClientAddr;
use crate::route::Protocol;
use crate::traffic::Direction;
use crate::udp::{Flow, Open};

/// How long a flow must be idle to end while the process stops.
const DRAIN_IDLE: Duration = Duration::from_secs(1);

/// How long a flow must send without a refusal for its endpoint to be considered reachable, since it may never get a response
/// (syslog). Hosts limit how often they refuse: Linux to once per second and peer (icmp(7), `icmp_ratelimit`).
const UNREFUSED: Duration = Duration::from_secs(5);

/// Opens the flows of one listener.
pub struct Flows {
    /// The cluster of the route.
    pub cluster: Arc<Cluster>,
    /// The listener's position in its route's port range.
    pub offset: u16,
    /// What all sessions share.
    pub shared: Arc<Shared>,
}

/// A flow that is connected to an endpoint.
pub struct OpenFlow {
    record: Record,
    opened: Instant,
    shared: Arc<Shared>,
    _permit: FdPermit,
}

impl OpenFlow {
    /// Waits until the process stops and the flow is idle for a second. A flow has no end that a drain could wait for.
    async fn idle_after_stop(&self) {
        self.shared.stop.cancelled().await;
        let mut moved = None;
        while moved.replace(self.record.bytes()) != Some(self.record.bytes()) {
            tokio::time::sleep(DRAIN_IDLE).await;
        }
    }
}

impl Open for Flows {
    type Flow = OpenFlow;
    type Permit = FdPermit;

    fn admits(&self, client: SocketAddr) -> bool {
        let admitted = admit(&self.cluster.members(), Some(client.ip()), Instant::now());
        if let Err(ending) = admitted {
            self.record(client).end(ending);
        }
        admitted.is_ok()
    }

    fn permit(&self) -> Option<FdPermit> {
        self.cluster.fds.flow()
    }

    async fn open(
        &self,
        client: SocketAddr,
        _local: Option<IpAddr>,
        permit: FdPermit,
        evicted: impl Future<Output = ()> + Send,
    ) -> Option<(UdpSocket, OpenFlow)> {
        let mut record = self.record(client);
        let connected = tokio::select! {
            connected = self.connect(&mut record, &permit) => connected,
            () = evicted => Err(Ending::TooMany),
        };
        match connected {
            Ok(socket) => {
                let (opened, shared) = (Instant::now(), self.shared.clone());
                Some((socket, OpenFlow { record, opened, shared, _permit: permit }))
            }
            Err(ending) => {
                record.end(ending);
                None
            }
        }
    }

    fn refused(&self, _client: SocketAddr, ending: Ending) {
        self.cluster.counters.ended(ending);
    }
}

impl Flows {
    fn record(&self, client: SocketAddr) -> Record {
        Record::begin(self.cluster.clone(), ClientAddr::Inet(client), Protocol::Udp, self.shared.access_log)
    }

    async fn connect(&self, record: &mut Record, permit: &FdPermit) -> Result<UdpSocket, Ending> {
        let client = record.live.client.ip();
        let dial = DatagramDial { offset: self.offset, permit };
        // A UDP client that leaves cannot be detected.
        let acquired =
            self.cluster.acquire(&self.shared.hold_limit, client, &mut record.stats, pending(), &dial);
        let (socket, endpoint) = acquired.await?;
        record.connected(endpoint);
        Ok(socket)
    }
}

impl Flow for OpenFlow {
    fn moved(&self, direction: Direction, bytes: usize) {
        self.record.moved(direction, bytes);
        if let Some(endpoint) = self.record.endpoint.as_deref().filter(|endpoint| endpoint.is_failing())
            && (direction == Direction::Down || self.opened.elapsed() > UNREFUSED)
        {
            self.record.live.cluster.reached(endpoint);
        }
    }

    fn unreachable(&self, error: &io::Error) {
        if let Some(endpoint) = &self.record.endpoint {
            self.record.live.cluster.unreachable(endpoint, error);
        }
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.record.live.cluster.members().options.idle_timeout
    }

    fn changed(&self) -> Notified<'_> {
        self.record.live.cluster.changes()
    }

    /// The flow to a container ends when the container is removed. Otherwise its datagrams could reach another container that gets
    /// the address; the client's next datagram opens a new flow. Other flows end like sessions.
    async fn stopped(&self) -> Ending {
        match &self.record.endpoint {
            Some(endpoint) if matches!(endpoint.key.identity, Identity::Container { .. }) => tokio::select! {
                () = endpoint.removed() => Ending::Cut,
                ending = self.record.stopped(&self.shared) => ending,
                () = self.idle_after_stop() => Ending::Drained,
            },
            _ => tokio::select! {
                ending = self.record.stopped(&self.shared) => ending,
                () = self.idle_after_stop() => Ending::Drained,
            },
        }
    }

    fn ended(self, ending: Ending) {
        self.record.end(ending);
    }
}
