//! The addresses that clients connect to: bound by the control plane, accepted from on a worker.
//!
//! What a listener accepts is a stream and the address of its client ([`Accepted`]); a session needs nothing else of it.

mod accept;
mod bind;
pub(crate) mod unix;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

pub use accept::accept_loop;
pub use bind::{BindError, bind};

use crate::client_details::ClientDetails;
use crate::digits::write_socket_addr;
use crate::fd_budget::FdPermit;
use crate::route::Protocol;
use crate::stream::Stream;
use crate::tunnel::TunnelStream;
use unix::UnixPath;

/// A bound address. Dropping it closes it, and removes a unix socket's file.
#[derive(Debug)]
pub struct Listener {
    /// Before the descriptor, so that the path is removed while the socket still listens and no other process replaces it.
    _path: Option<UnixPath>,
    /// The socket.
    pub fd: OwnedFd,
    /// TCP, which includes unix stream sockets, or UDP.
    pub protocol: Protocol,
    /// The bound address, with the port that the kernel chose for port 0. `None` for a unix socket.
    pub addr: Option<SocketAddr>,
    /// The position of the port in the route's port range.
    pub offset: u16,
}

/// The address of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddr {
    /// The client's IP address and port.
    Inet(SocketAddr),
    /// A client of a unix socket, which has no address.
    Unix,
}

/// A stream that a client has opened.
#[derive(Debug)]
pub struct Accepted {
    /// The stream.
    pub stream: AcceptedStream,
    /// The address of the client.
    pub client: ClientAddr,
    /// The descriptors of the session.
    pub permit: FdPermit,
    /// What else is known of the client.
    pub details: Option<Box<ClientDetails>>,
}

/// The stream of a client.
#[derive(Debug)]
pub enum AcceptedStream {
    /// A socket, which is not registered with a worker yet.
    Socket(OwnedFd),
    /// A stream of this worker, from which nothing of the session was read yet.
    Stream(Stream),
    /// A session that a peer has opened, to be answered. It belongs to the worker of its tunnel.
    Tunnel(Box<TunnelStream>),
}

impl ClientAddr {
    /// Returns the IP address, if the client has one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            ClientAddr::Inet(addr) => Some(addr.ip()),
            ClientAddr::Unix => None,
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddr::Inet(addr) => write_socket_addr(f, *addr),
            ClientAddr::Unix => f.write_str("unix"),
        }
    }
}
