//! The client's side of an open flow: an address that a listener received from, or a stream in a tunnel of a peer.

use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::channel;
use super::socket::{DatagramSocket, Datagrams};
use crate::ending::Ending;
use crate::tunnel::{DatagramStream, Dropped};

/// Identifies a flow of a listener by the addresses that the socket reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) client: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

/// Where responses are sent.
pub(super) trait Downstream {
    /// Resolves when responses can be sent.
    fn writable(&self) -> impl Future<Output = ()> + Send;

    /// Sends responses without waiting.
    fn send(&self, datagrams: &Datagrams<'_>) -> io::Result<Dropped>;

    /// Calls `handle` with the client's datagrams, if they do not arrive through the table of a listener. Returns whether there
    /// may be more now.
    fn receive(
        &self,
        handle: impl FnMut(&Datagrams<'_>) + Send,
    ) -> impl Future<Output = io::Result<bool>> + Send;

    /// Returns the ending of a flow of which no more datagrams can be received.
    fn ending(&self, error: &io::Error) -> Ending;
}

/// A client of a listener.
pub(super) struct ListenerClient<'s> {
    pub(super) socket: &'s DatagramSocket,
    pub(super) key: Key,
}

impl ListenerClient<'_> {
    /// Returns the source address of responses. A multicast or broadcast address cannot be one.
    fn source(&self) -> Option<IpAddr> {
        self.key.local.filter(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_multicast(),
        })
    }
}

impl Downstream for ListenerClient<'_> {
    fn writable(&self) -> impl Future<Output = ()> + Send {
        self.socket.writable()
    }

    fn send(&self, datagrams: &Datagrams<'_>) -> io::Result<Dropped> {
        self.socket.send(self.key.client, self.source(), datagrams).map(|()| Dropped::default())
    }

    async fn receive(&self, _: impl FnMut(&Datagrams<'_>) + Send) -> io::Result<bool> {
        pending().await
    }

    fn ending(&self, _: &io::Error) -> Ending {
        Ending::DownstreamReset
    }
}

impl Downstream for DatagramStream {
    async fn writable(&self) {}

    fn send(&self, datagrams: &Datagrams<'_>) -> io::Result<Dropped> {
        DatagramStream::send(self, datagrams.each())
    }

    async fn receive(&self, handle: impl FnMut(&Datagrams<'_>) + Send) -> io::Result<bool> {
        channel::receive(self, handle).await
    }

    /// The peer ends a flow with END_STREAM or with a reset, which make no difference to datagrams.
    fn ending(&self, error: &io::Error) -> Ending {
        match self.loss() {
            Some(loss) => loss,
            None if error.kind() == io::ErrorKind::InvalidData => Ending::DownstreamReset,
            None => Ending::Finished,
        }
    }
}
