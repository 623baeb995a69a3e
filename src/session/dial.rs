//! The transports of sessions: a stream for a connection, and a UDP socket for a flow. Both are in a tunnel if the endpoint is an
//! export of a peer.
//!
//! All dial the endpoint's port that corresponds to the listener's position in its route's port range.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::address::EndpointAddr;
use crate::cluster::Endpoint;
use crate::cluster::acquire::Dial;
use crate::cluster::timings::Timings;
use crate::connect;
use crate::fd_budget::FdPermit;
use crate::listener::ClientAddr;
use crate::route::Protocol;
use crate::stream::{Opening, Stream};
use crate::tunnel::{self, DatagramStream, SessionInfo};
use crate::udp::Channel;

/// Connects a stream.
pub(super) struct StreamDial<'a> {
    pub(super) offset: u16,
    pub(super) permit: &'a FdPermit,
    pub(super) timings: &'a Timings,
    pub(super) client: ClientAddr,
    /// What the endpoint gets first.
    pub(super) opening: Opening<'a>,
    pub(super) client_hold: Option<Duration>,
}

impl Dial for StreamDial<'_> {
    type Connection = Stream;

    async fn dial(&self, endpoint: &Endpoint, timeout: Duration, hold: Duration) -> io::Result<Stream> {
        let began = Instant::now();
        let client = match self.client {
            ClientAddr::Inet(addr) => Some(addr),
            ClientAddr::Unix => None,
        };
        let info = SessionInfo { client, hold: Some(hold) };
        let addr = endpoint.key.addr.shifted(self.offset)?;
        let stream = Stream::dial(&addr, info, self.opening, timeout).await?;
        if matches!(stream, Stream::Tunnel(_)) {
            // The descriptor is that of the tunnel, which is counted by itself.
            self.permit.release_upstream();
        }
        self.timings.connect.observe(began.elapsed());
        Ok(stream)
    }

    fn client_hold(&self) -> Option<Duration> {
        self.client_hold
    }

    fn permit(&self) -> Option<&FdPermit> {
        Some(self.permit)
    }
}

/// Connects a UDP socket, or a stream of datagrams.
pub(super) struct DatagramDial<'a> {
    pub(super) offset: u16,
    pub(super) permit: &'a FdPermit,
    pub(super) client: SocketAddr,
    /// Precedes each datagram.
    pub(super) proxy_header: &'a [u8],
    pub(super) client_hold: Option<Duration>,
}

impl Dial for DatagramDial<'_> {
    type Connection = Channel;

    async fn dial(&self, endpoint: &Endpoint, timeout: Duration, hold: Duration) -> io::Result<Channel> {
        let EndpointAddr::Peer(peer) = &endpoint.key.addr else {
            let socket = connect::dial_datagram(&endpoint.key.addr.shifted(self.offset)?)?;
            return Ok(Channel::socket(socket)?.with_prefix(self.proxy_header));
        };
        let info = SessionInfo { client: Some(self.client), hold: Some(hold) };
        // Boxed, because it is larger than a connect, and fewer endpoints are peers.
        let stream = Box::pin(tunnel::open(peer, Protocol::Udp, info, timeout)).await?;
        self.permit.release_upstream();
        Ok(Channel::from(DatagramStream::from(stream)).with_prefix(self.proxy_header))
    }

    fn client_hold(&self) -> Option<Duration> {
        self.client_hold
    }

    /// A connected socket has sent nothing, and the peer of a stream may not have either.
    fn proves_reachable(&self) -> bool {
        false
    }

    fn permit(&self) -> Option<&FdPermit> {
        Some(self.permit)
    }
}
