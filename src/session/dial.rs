//! The transports of sessions: a stream for a connection, a UDP socket for a flow.
//!
//! Both dial the endpoint's port that corresponds to the listener's position in its route's port range.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::cluster::Endpoint;
use crate::cluster::acquire::Dial;
use crate::cluster::timings::Timings;
use crate::connect;
use crate::fd_budget::FdPermit;
use crate::socket::Socket;

/// Connects a stream.
pub(super) struct StreamDial<'a> {
    pub(super) offset: u16,
    pub(super) permit: &'a FdPermit,
    pub(super) timings: &'a Timings,
}

impl Dial for StreamDial<'_> {
    type Connection = Socket;

    async fn dial(&self, endpoint: &Endpoint, timeout: Duration) -> io::Result<Socket> {
        let began = Instant::now();
        let socket = connect::dial(&endpoint.key.addr.shifted(self.offset)?, timeout).await?;
        self.timings.connect.observe(began.elapsed());
        Ok(socket)
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
