//! A connected stream, whatever carries it: what the relay, the sessions and the health checks use.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use tokio::time::Instant;

use crate::address::{EndpointAddr, TlsAddr};
use crate::connect;
use crate::ending::Ending;
use crate::postgres;
use crate::route::Protocol;
use crate::socket::Socket;
use crate::tls::{self, Tls, TlsStream};
use crate::tunnel::{self, Refusal, SessionInfo, TunnelStream};

/// How long a reset waits for the bytes before it.
const SENT_TIMEOUT: Duration = Duration::from_secs(1);

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// A TCP or unix socket.
    Socket(Socket),
    /// A session in a tunnel. Boxed, because most streams are sockets.
    Tunnel(Box<TunnelStream>),
    /// TLS over a socket. Boxed, as a tunnel's.
    Tls(Box<TlsStream>),
}

/// What is sent on a new connection to an endpoint before the bytes of the session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening<'a> {
    /// A PROXY protocol header, or nothing.
    pub(crate) proxy_header: &'a [u8],
    /// Then the SSLRequest of PostgreSQL, which the endpoint must accept: what follows is TLS.
    pub(crate) postgres: bool,
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Stream {
        Stream::Socket(socket)
    }
}

impl From<TunnelStream> for Stream {
    fn from(stream: TunnelStream) -> Stream {
        Stream::Tunnel(Box::new(stream))
    }
}

impl From<TlsStream> for Stream {
    fn from(stream: TlsStream) -> Stream {
        Stream::Tls(Box::new(stream))
    }
}

impl Opening<'_> {
    fn is_empty(&self) -> bool {
        self.proxy_header.is_empty() && !self.postgres
    }
}

impl Stream {
    /// Connects to an endpoint: with a socket, or with a session of its own on a peer, which learns what `info` says. Then sends
    /// the opening.
    ///
    /// # Errors
    ///
    /// Fails with the errors of connect(2), with `TimedOut` after `timeout`, or with a [`TunnelError`](crate::tunnel::TunnelError).
    pub(crate) async fn dial(
        addr: &EndpointAddr,
        info: SessionInfo,
        opening: Opening<'_>,
        timeout: Duration,
    ) -> io::Result<Stream> {
        let stream: Stream = match addr {
            // Boxed, because it is larger than a connect, and fewer endpoints are peers.
            EndpointAddr::Peer(peer) => {
                Box::pin(tunnel::open(peer, Protocol::Tcp, info, timeout)).await?.into()
            }
            // Boxed for the same reason.
            EndpointAddr::Tls(tls) => return Box::pin(Stream::dial_tls(addr, tls, opening, timeout)).await,
            addr => connect::dial(addr, timeout).await?.into(),
        };
        if !opening.is_empty() {
            tokio::time::timeout(timeout, Box::pin(stream.open(opening))).await??;
        }
        Ok(stream)
    }

    /// Connects, sends the opening, and then performs a TLS handshake, all within `timeout`.
    async fn dial_tls(
        addr: &EndpointAddr,
        tls: &TlsAddr,
        opening: Opening<'_>,
        timeout: Duration,
    ) -> io::Result<Stream> {
        let deadline = Instant::now() + timeout;
        let stream = Stream::from(connect::dial(addr, timeout).await?);
        tokio::time::timeout_at(deadline, stream.open(opening)).await??;
        match stream {
            Stream::Socket(socket) => Ok(tls::connect(&Tls::current(), tls, socket, deadline).await?.into()),
            stream => Ok(stream),
        }
    }

    /// Sends what comes before the session. Fails like a connect, because no byte of the client was sent.
    async fn open(&self, Opening { proxy_header, postgres }: Opening<'_>) -> io::Result<()> {
        self.write_all(proxy_header).await?;
        if !postgres {
            return Ok(());
        }
        self.write_all(&postgres::SSL_REQUEST).await?;
        let mut answer = [0; 1];
        match std::future::poll_fn(|cx| self.poll_read(cx, &mut answer)).await? {
            1 if answer == postgres::ACCEPTED => Ok(()),
            _ => Err(Errno::PROTO.into()),
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Returns the socket, or that below TLS; `None` for a tunnel, which has many streams.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match self {
            Stream::Socket(socket) => Some(socket),
            Stream::Tls(stream) => Some(stream.socket()),
            Stream::Tunnel(_) => None,
        }
    }

    /// Returns the local address of the connection. `None` for a unix socket and in a tunnel.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.socket()?.local_addr()
    }

    /// Reads the available bytes. Zero is the peer's FIN.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Socket(socket) => socket.poll_read(cx, buffer),
            Stream::Tls(stream) => stream.poll_read(cx, buffer),
            Stream::Tunnel(stream) => {
                let mut chunk = ready!(stream.poll_chunk(cx))?;
                let read = chunk.split_to(chunk.len().min(buffer.len()));
                stream.put_back(chunk);
                stream.release(read.len());
                if let Some(into) = buffer.get_mut(..read.len()) {
                    into.copy_from_slice(&read);
                }
                Poll::Ready(Ok(read.len()))
            }
        }
    }

    /// Writes without waiting. Returns the number of bytes written.
    ///
    /// # Errors
    ///
    /// Fails with `WouldBlock` if the stream accepts no byte.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => socket.try_write(bytes),
            Stream::Tls(stream) => stream.try_write(bytes),
            Stream::Tunnel(stream) => stream.try_write(bytes),
        }
    }

    /// Writes as soon as the stream accepts bytes. Returns the number of bytes written.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Socket(socket) => socket.poll_write_with(cx, |_| socket.try_write(bytes)),
            Stream::Tls(stream) => stream.poll_write(cx, bytes),
            Stream::Tunnel(stream) => {
                ready!(stream.poll_writable(cx));
                Poll::Ready(stream.try_write(bytes))
            }
        }
    }

    /// Ready when bytes that are read now can be written. A socket is always ready: what it does not accept is buffered.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Socket(_) => Poll::Ready(()),
            Stream::Tls(stream) => stream.poll_writable(cx),
            Stream::Tunnel(stream) => stream.poll_writable(cx),
        }
    }

    /// Records that bytes which were read from this stream were delivered, so that its peer may send more.
    pub(crate) fn release(&self, bytes: usize) {
        if let Stream::Tunnel(stream) = self {
            stream.release(bytes);
        }
    }

    /// Waits until the connection is reset, or abandoned. Earlier bytes stay available.
    pub(crate) async fn broken(&self) {
        match self {
            Stream::Socket(socket) => socket.broken().await,
            Stream::Tls(stream) => stream.broken().await,
            Stream::Tunnel(stream) => std::future::poll_fn(|cx| stream.poll_broken(cx)).await,
        }
    }

    /// Waits until the peer has left without being served; see [`Socket::left`].
    ///
    /// # Errors
    ///
    /// Fails when the runtime shuts down.
    pub(crate) async fn left(&self) -> io::Result<()> {
        match self {
            Stream::Socket(socket) => socket.left().await,
            Stream::Tls(stream) => {
                stream.left().await;
                Ok(())
            }
            Stream::Tunnel(stream) => {
                std::future::poll_fn(|cx| stream.poll_left(cx)).await;
                Ok(())
            }
        }
    }

    /// Returns whether the peer has closed its side or vanished. Unread bytes count as present.
    pub(crate) fn peer_has_left(&self) -> bool {
        match self {
            Stream::Socket(socket) => socket.peer_has_left(),
            Stream::Tls(stream) => stream.peer_has_left(),
            Stream::Tunnel(stream) => stream.peer_has_left(),
        }
    }

    /// Polls for one of these events, independently of what the driver has reported; see [`Socket::has_now`].
    pub(crate) fn has_now(&self, events: PollFlags) -> bool {
        match self {
            Stream::Socket(socket) => socket.has_now(events),
            Stream::Tls(stream) => stream.has_now(events),
            // The tunnel's own PINGs detect a process that was suspended.
            Stream::Tunnel(_) => false,
        }
    }

    /// Sends what goes before the FIN, if anything does: close_notify. Ready when it is sent, or cannot be.
    pub(crate) fn poll_close(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Socket(_) | Stream::Tunnel(_) => Poll::Ready(()),
            Stream::Tls(stream) => stream.poll_close(cx),
        }
    }

    /// Sends FIN.
    pub(crate) fn shutdown_write(&self) {
        match self {
            Stream::Socket(socket) => socket.shutdown_write(),
            Stream::Tls(stream) => stream.shutdown_write(),
            Stream::Tunnel(stream) => stream.shutdown_write(),
        }
    }

    /// Makes the close reset the stream, where the protocol has a reset.
    pub(crate) fn reset_on_close(&self) {
        match self {
            Stream::Socket(socket) => socket.reset_on_close(),
            Stream::Tls(stream) => stream.reset_on_close(),
            Stream::Tunnel(stream) => stream.reset_on_close(),
        }
    }

    /// Returns how long the client waits to be connected, if it has said so.
    pub(crate) fn client_hold(&self) -> Option<Duration> {
        match self {
            Stream::Socket(_) | Stream::Tls(_) => None,
            Stream::Tunnel(stream) => stream.hold(),
        }
    }

    /// Waits until the close, if it resets the stream, cannot overtake what was written before: a service that refuses a request
    /// answers and resets. A peer that does not read is not waited for.
    pub(crate) async fn sent(&self) {
        if matches!(self, Stream::Tunnel(_) | Stream::Tls(_)) {
            let sent = std::future::poll_fn(|cx| self.poll_writable(cx));
            // Boxed, so that an idle session does not keep the memory of a timer.
            let _ = Box::pin(tokio::time::timeout(SENT_TIMEOUT, sent)).await;
        }
    }

    /// Tells the client that its session is connected, where the protocol has a message for it.
    ///
    /// # Errors
    ///
    /// Fails if the client has left.
    pub(crate) fn accept(&self) -> io::Result<()> {
        match self {
            Stream::Socket(_) | Stream::Tls(_) => Ok(()),
            Stream::Tunnel(stream) => stream.accept(),
        }
    }

    /// Ends a session that was not connected: tells the client why where the protocol has a message for it, and resets it
    /// otherwise.
    pub(crate) fn refuse(&self, ending: Ending) {
        match self {
            Stream::Socket(socket) => socket.reset_on_close(),
            Stream::Tls(stream) => stream.reset_on_close(),
            Stream::Tunnel(stream) => stream.refuse(&Refusal::of(ending)),
        }
    }

    /// Returns the ending of a session whose transport failed as a whole.
    pub(crate) fn loss(&self) -> Option<Ending> {
        match self {
            Stream::Socket(_) | Stream::Tls(_) => None,
            Stream::Tunnel(stream) => stream.loss(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// So that the attempt has failed and the next endpoint is tried.
    #[tokio::test]
    async fn opening_that_cannot_be_sent_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        drop(theirs);
        let stream = Stream::from(Socket::register_unix(ours.into()).unwrap());
        let opening = Opening { proxy_header: b"PROXY UNKNOWN\r\n", postgres: false };
        assert_eq!(stream.open(opening).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
