//! One UDP flow as a session: the same admission, hold, accounting and endings as a connection.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;

use super::{Record, Shared, admit};
use crate::address::Identity;
use crate::cluster::acquire::Dial;
use crate::cluster::{Cluster, Endpoint};
use crate::connect;
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::listener::ClientAddr;
use crate::route::Protocol;
use crate::traffic::Direction;
use crate::udp::{Flow, Open};

/// How long a flow must be silent to be over while the process stops.
const DRAIN_QUIET: Duration = Duration::from_secs(1);

/// A flow that sends for so long without a refusal reaches its endpoint, though it may never be answered (syslog). Hosts
/// limit how often they refuse: Linux to once a second for each peer (icmp(7), `icmp_ratelimit`).
const UNREFUSED: Duration = Duration::from_secs(5);

/// Opens the flows of one listener.
pub struct Flows {
    pub cluster: Arc<Cluster>,
    /// The listener's place in its route's port range.
    pub offset: u16,
    pub shared: Arc<Shared>,
}

/// A flow that has its endpoint.
pub struct OpenFlow {
    record: Record,
    opened: Instant,
    shared: Arc<Shared>,
    _permit: FdPermit,
}

impl OpenFlow {
    /// A flow has no end that a drain could wait for; a second of silence is taken for one.
    async fn quiet_after_stop(&self) {
        self.shared.stop.cancelled().await;
        let mut moved = None;
        while moved.replace(self.record.bytes()) != Some(self.record.bytes()) {
            tokio::time::sleep(DRAIN_QUIET).await;
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
        // Nobody can tell that a UDP client has left.
        let acquired =
            self.cluster.acquire(&self.shared.hold_limit, client, &mut record.stats, pending(), &dial);
        let (socket, endpoint) = acquired.await?;
        record.connected(endpoint);
        Ok(socket)
    }
}

struct DatagramDial<'a> {
    offset: u16,
    permit: &'a FdPermit,
}

impl Dial for DatagramDial<'_> {
    type Connection = UdpSocket;

    async fn dial(&self, endpoint: &Endpoint, _: Duration) -> io::Result<UdpSocket> {
        connect::dial_datagram(&endpoint.key.addr.shifted(self.offset)?)
    }

    fn proves_reachable(&self) -> bool {
        false
    }

    fn permit(&self) -> Option<&FdPermit> {
        Some(self.permit)
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

    /// A container's flow ends with its endpoint, since nothing else would keep its datagrams from whoever has the
    /// address next; the client's next datagram begins a new one. Other flows end as sessions do.
    async fn stopped(&self) -> Ending {
        match &self.record.endpoint {
            Some(endpoint) if matches!(endpoint.key.identity, Identity::Container { .. }) => tokio::select! {
                () = endpoint.removed() => Ending::Cut,
                ending = self.record.stopped(&self.shared) => ending,
                () = self.quiet_after_stop() => Ending::Drained,
            },
            _ => tokio::select! {
                ending = self.record.stopped(&self.shared) => ending,
                () = self.quiet_after_stop() => Ending::Drained,
            },
        }
    }

    fn ended(self, ending: Ending) {
        self.record.end(ending);
    }
}
