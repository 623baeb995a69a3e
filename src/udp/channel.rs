//! What carries the datagrams of one flow to its endpoint: a connected socket, or a stream in a tunnel to a peer.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::run::Run;
use super::socket::{DatagramSocket, Datagrams};
use crate::ending::Ending;
use crate::tunnel::{DatagramStream, Dropped, TunnelError};

/// The connection of a flow to its endpoint.
#[derive(Debug)]
pub struct Channel {
    kind: Kind,
    /// Precedes each datagram to the endpoint.
    prefix: Box<[u8]>,
}

#[derive(Debug)]
enum Kind {
    Socket { socket: DatagramSocket, endpoint: SocketAddr },
    Tunnel(DatagramStream),
}

impl From<DatagramStream> for Channel {
    fn from(stream: DatagramStream) -> Channel {
        Channel { kind: Kind::Tunnel(stream), prefix: Box::default() }
    }
}

impl Channel {
    /// Takes over a connected socket, and registers it with the runtime of this thread.
    ///
    /// # Errors
    ///
    /// Fails if the socket cannot be registered.
    pub fn socket(socket: UdpSocket) -> io::Result<Channel> {
        let endpoint = socket.peer_addr()?;
        let kind = Kind::Socket { socket: DatagramSocket::connected(socket)?, endpoint };
        Ok(Channel { kind, prefix: Box::default() })
    }

    /// Sends these bytes at the beginning of each datagram.
    #[must_use]
    pub(crate) fn with_prefix(self, prefix: &[u8]) -> Channel {
        Channel { prefix: prefix.into(), ..self }
    }

    /// Returns the stream, if the endpoint is an export of a peer.
    pub(crate) fn stream(&self) -> Option<&DatagramStream> {
        match &self.kind {
            Kind::Socket { .. } => None,
            Kind::Tunnel(stream) => Some(stream),
        }
    }

    /// Sends datagrams without waiting.
    pub(super) fn send(&self, datagrams: &Datagrams<'_>) -> io::Result<Dropped> {
        if self.prefix.is_empty() {
            return self.send_as_is(datagrams);
        }
        let (mut dropped, mut failed) = (Dropped::default(), Ok(()));
        let mut run = Run::new(datagrams.peer, |prefixed: &Datagrams<'_>| {
            match self.send_as_is(&prefixed.marked(datagrams.ecn)) {
                Ok(more) => {
                    dropped.datagrams += more.datagrams;
                    dropped.bytes += more.bytes - more.datagrams * self.prefix.len();
                }
                Err(error) => failed = Err(error),
            }
        });
        datagrams.each().for_each(|datagram| run.push(&[&self.prefix, datagram]));
        run.finish();
        failed.map(|()| dropped)
    }

    fn send_as_is(&self, datagrams: &Datagrams<'_>) -> io::Result<Dropped> {
        match &self.kind {
            Kind::Socket { socket, endpoint } => {
                socket.send(*endpoint, None, datagrams).map(|()| Dropped::default())
            }
            Kind::Tunnel(stream) => stream.send(datagrams.each()),
        }
    }

    /// Calls `handle` with received datagrams. Returns whether there may be more now. Those of a socket stay in its receive
    /// buffer until `writable` resolves.
    pub(super) async fn receive(
        &self,
        writable: impl Future<Output = ()>,
        handle: impl FnMut(&Datagrams<'_>),
    ) -> io::Result<bool> {
        match &self.kind {
            Kind::Socket { socket, .. } => {
                writable.await;
                socket.receive(socket.readable().await?, handle)
            }
            Kind::Tunnel(stream) => receive(stream, handle).await,
        }
    }

    /// Returns the ending of a flow whose channel has failed.
    pub(super) fn failure(&self) -> Ending {
        self.stream().and_then(DatagramStream::loss).unwrap_or(Ending::UpstreamReset)
    }
}

/// Calls `handle` with datagrams received from a stream. Returns whether there may be more now.
pub(super) async fn receive(
    stream: &DatagramStream,
    mut handle: impl FnMut(&Datagrams<'_>),
) -> io::Result<bool> {
    poll_fn(|cx| {
        let mut run = Run::new(stream.tunnel().remote, &mut handle);
        let received = stream.poll_receive(cx, |datagram| run.push(&[datagram]));
        run.finish();
        received
    })
    .await
}

/// Returns whether an error ends the flow: an ICMP refusal of an earlier datagram, which the next call on the socket reports, or
/// the end of a stream.
pub(super) fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
        || TunnelError::of(error).is_some()
}
