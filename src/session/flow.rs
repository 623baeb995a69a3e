//! A UDP flow as a session, with the same admission, hold, records and endings as a connection.

use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;

use super::dial::DatagramDial;
use super::live::Live;
use super::proxy_header::Client;
use super::record::Record;
use super::{Shared, admit};
use crate::address::Identity;
use crate::cluster::Cluster;
use crate::ending::Ending;
use crate::fd_budget::FdPermit;
use crate::listener::ClientAddr;
use crate::proxy_protocol::Transport;
use crate::route::Protocol;
use crate::traffic::Direction;
use crate::tunnel::{DatagramStream, Refusal, TunnelStream};
use crate::udp::{self, Channel, Flow, Open};

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
    /// The address of the listener. `None` for the tunnels of peers.
    pub addr: Option<SocketAddr>,
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
        local: Option<IpAddr>,
        permit: FdPermit,
        evicted: impl Future<Output = ()> + Send,
    ) -> Option<(Channel, OpenFlow)> {
        let mut record = self.record(client);
        let destination = self.addr.map(|addr| SocketAddr::new(local.unwrap_or(addr.ip()), addr.port()));
        let connected = tokio::select! {
            // A UDP client that leaves cannot be detected.
            connected = self.connect(&mut record, (client, destination), None, &permit, pending()) => connected,
            () = evicted => Err(Ending::TooMany),
        };
        match connected {
            Ok(channel) => Some((channel, self.opened(record, permit))),
            Err(ending) => {
                record.end(ending);
                None
            }
        }
    }

    fn refused(&self, _client: SocketAddr, ending: Ending) {
        self.cluster.counters.rejected(ending);
        self.shared.history.activity.wake();
    }
}

impl Flows {
    /// Serves a flow that a peer has opened, until it ends. `answered` is called at the first response.
    pub async fn serve(
        &self,
        stream: TunnelStream,
        client: SocketAddr,
        permit: FdPermit,
        evicted: impl Future<Output = ()> + Send,
        answered: impl FnOnce() + Send,
    ) {
        let mut record = self.record(client);
        record.through(&stream.tunnel().peer);
        let stream = DatagramStream::from(stream);
        let mut evicted = pin!(evicted);
        let prepared = tokio::select! {
            prepared = self.prepare(&stream, &mut record, client, &permit) => prepared,
            () = &mut evicted => Err(Ending::TooMany),
        };
        match prepared {
            Ok(channel) => {
                let flow = self.opened(record, permit);
                udp::relay_stream(stream, channel, flow, answered, evicted).await;
            }
            Err(ending) => {
                stream.refuse(&Refusal::of(ending));
                record.end(ending);
            }
        }
    }

    async fn prepare(
        &self,
        stream: &DatagramStream,
        record: &mut Record,
        client: SocketAddr,
        permit: &FdPermit,
    ) -> Result<Channel, Ending> {
        // A separate statement, so that the guard of the members is dropped before the await.
        admit(&self.cluster.members(), Some(client.ip()), record.live.began)?;
        let left = poll_fn(|cx| stream.poll_left(cx).map(Ok));
        let channel = self.connect(record, (client, None), stream.hold(), permit, left).await?;
        stream.accept().map_err(|_reset| Ending::DownstreamReset)?;
        Ok(channel)
    }

    fn opened(&self, record: Record, permit: FdPermit) -> OpenFlow {
        OpenFlow { record, opened: Instant::now(), shared: self.shared.clone(), _permit: permit }
    }

    fn record(&self, client: SocketAddr) -> Record {
        Record::begin(self.cluster.clone(), ClientAddr::Inet(client), Protocol::Udp, &self.shared)
    }

    async fn connect(
        &self,
        record: &mut Record,
        (client, destination): (SocketAddr, Option<SocketAddr>),
        client_hold: Option<Duration>,
        permit: &FdPermit,
        left: impl Future<Output = io::Result<()>>,
    ) -> Result<Channel, Ending> {
        let proxy_header = proxy_header(record, destination);
        let dial =
            DatagramDial { offset: self.offset, permit, client, proxy_header: &proxy_header, client_hold };
        let (hold_limit, stats) = (&self.shared.hold_limit, &mut record.stats);
        let acquired = self.cluster.acquire(hold_limit, Some(client.ip()), stats, left, &dial);
        let (channel, endpoint) = acquired.await?;
        record.connected(endpoint);
        if let Some(stream) = channel.stream() {
            record.through(&stream.tunnel().peer);
        }
        Ok(channel)
    }
}

/// Returns the PROXY protocol header for the endpoint. Empty if the route sends none.
fn proxy_header(record: &Record, destination: Option<SocketAddr>) -> Vec<u8> {
    let Live { cluster, client, peer, .. } = &*record.live;
    let peer = peer.load();
    let client = Client { addr: *client, destination, details: None, identity: peer.as_deref() };
    client.header(&cluster.members().options, Transport::Datagram)
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

    fn dropped(&self, datagrams: usize) {
        self.record.live.cluster.counters.dropped.fetch_add(datagrams as u64, Relaxed);
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
