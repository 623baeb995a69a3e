//! The transports of sessions: a stream for a connection, in a tunnel if the endpoint is an export of a peer, and a UDP socket
//! for a flow.
//!
//! All dial the endpoint's port that corresponds to the listener's position in its route's port range.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::cluster::Endpoint;
use crate::cluster::acquire::Dial;
use crate::cluster::timings::Timings;
use crate::connect;
use crate::fd_budget::FdPermit;
use crate::listener::ClientAddr;
use crate::stream::Stream;
use crate::tunnel::SessionInfo;

/// Connects a stream.
pub(super) struct StreamDial<'a> {
    pub(super) offset: u16,
    pub(super) permit: &'a FdPermit,
    pub(super) timings: &'a Timings,
    pub(super) client: ClientAddr,
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
        let stream = Stream::dial(&endpoint.key.addr.shifted(self.offset)?, info, timeout).await?;
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

/// Connects a UDP socket.
pub(super) struct DatagramDial<'a> {
    pub(super) offset: u16,
    pub(super) permit: &'a FdPermit,
}

impl Dial for DatagramDial<'_> {
    type Connection = UdpSocket;

    async fn dial(&self, endpoint: &Endpoint, _: Duration, _: Duration) -> io::Result<UdpSocket> {
        connect::dial_datagram(&endpoint.key.addr.shifted(self.offset)?)
    }

    fn proves_reachable(&self) -> bool {
        false
    }

    fn permit(&self) -> Option<&FdPermit> {
        Some(self.permit)
    }
}
