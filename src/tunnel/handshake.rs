//! TLS between two peers: both certificates verified, and what each side wants to do with the connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::rustls::{self, CommonState, pki_types::CertificateDer};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::registry::Registry;
use super::transport::Transport;
use super::{ALPN, ALPN_REVERSE, Direction, Handshaken, TunnelError};
use crate::address::{EndpointAddr, PeerName, PeerVia};
use crate::connect;
use crate::credentials::{CredentialKind, Credentials, HandshakeFailure, Refusable};
use crate::socket::Socket;

/// Encrypted bytes that wait for the socket. The default, 64 KiB, is a little less than one of our frames, whose rest would take
/// a system call of its own.
const WRITE_BYTES: usize = 256 << 10;

/// A connection that we have made.
pub(super) type ClientStream = Refusable<client::TlsStream<Transport>>;

/// How long a stranger may take.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the TLS client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To open sessions on the other side.
    Open,
    /// To serve sessions that the other side opens.
    Serve,
}

impl Purpose {
    fn alpn(self) -> &'static [u8] {
        match self {
            Purpose::Open => ALPN,
            Purpose::Serve => ALPN_REVERSE,
        }
    }
}

/// Connects to a peer, and makes sure that it is the right one. A failure is recorded.
pub(super) async fn dial(
    credentials: &Credentials,
    registry: &Arc<Registry>,
    addr: SocketAddr,
    name: &PeerName,
    purpose: Purpose,
    limit: Duration,
) -> io::Result<(ClientStream, Handshaken)> {
    let handshake = async {
        let socket = connect::dial(&EndpointAddr::Inet(addr), limit).await?;
        secure(credentials, registry, socket, addr, name, purpose).await
    };
    let dialled = timeout(limit, handshake).await.unwrap_or_else(|late| Err(late.into()));
    dialled.map_err(|error| {
        registry.failed(&PeerVia::Dial { addr, name: name.clone() }, &error);
        match HandshakeFailure::in_error(&error) {
            Some(HandshakeFailure { reason, kind, .. }) => {
                io::Error::other(TunnelError::Tls { reason: *reason, kind: *kind })
            }
            None => error,
        }
    })
}

/// Makes sure that a connection is to the right peer. Fails with the error of the network, or a [`HandshakeFailure`].
pub(super) async fn secure(
    credentials: &Credentials,
    registry: &Arc<Registry>,
    socket: Socket,
    addr: SocketAddr,
    name: &PeerName,
    purpose: Purpose,
) -> io::Result<(ClientStream, Handshaken)> {
    let (config, server_name) = credentials
        .connector(name, &[purpose.alpn()])
        .map_err(|error| io::Error::other(error.to_string()))?;
    let (kind, registry) = (credentials.kind(), registry.clone());
    let transport = Transport::new(socket);
    let activity = transport.activity().clone();
    let stream = TlsConnector::from(config).connect(server_name, transport).await;
    let mut stream = stream.map_err(|error| failed(error, kind))?;
    let (_, tls) = stream.get_mut();
    tls.set_buffer_limit(Some(WRITE_BYTES));
    if tls.alpn_protocol() != Some(purpose.alpn()) {
        return Err(failed(io::Error::other(rustls::Error::NoApplicationProtocol), kind));
    }
    let chain = certificates(tls);
    let untrusted = |error| io::Error::other(HandshakeFailure::untrusted(&error, kind));
    let peer = credentials.peer(&chain).map_err(untrusted)?;
    let via = Some(PeerVia::Dial { addr, name: name.clone() });
    let direction = Direction::Dialled;
    let stream = Refusable::new(stream);
    let refusal = stream.refusal();
    let (remote, clock) = (addr, credentials.clock().clone());
    let handshaken =
        Handshaken { peer, remote, direction, chain, clock, activity, refusal, via, kind, registry };
    Ok((stream, handshaken))
}

/// Accepts a connection, and makes sure that it is from a peer.
pub(super) async fn accept(
    credentials: &Credentials,
    registry: &Arc<Registry>,
    socket: Socket,
    remote: SocketAddr,
) -> Result<(Refusable<server::TlsStream<Transport>>, Handshaken, Purpose), HandshakeFailure> {
    let kind = credentials.kind();
    let failed = |error: &io::Error| HandshakeFailure::of(error, kind);
    let transport = Transport::new(socket);
    let activity = transport.activity().clone();
    let config = credentials.acceptor(&[ALPN, ALPN_REVERSE]);
    let acceptor = TlsAcceptor::from(config.map_err(|error| failed(&io::Error::other(error)))?);
    let accepted = timeout(ACCEPT_TIMEOUT, acceptor.accept(transport)).await;
    let mut stream = accepted.map_err(|late| failed(&late.into()))?.map_err(|error| failed(&error))?;
    let (_, tls) = stream.get_mut();
    tls.set_buffer_limit(Some(WRITE_BYTES));
    let purpose = match tls.alpn_protocol() {
        Some(ALPN) => Purpose::Open,
        Some(ALPN_REVERSE) => Purpose::Serve,
        _ => return Err(failed(&io::Error::other(rustls::Error::NoApplicationProtocol))),
    };
    let chain = certificates(tls);
    let peer = credentials.peer(&chain).map_err(|error| HandshakeFailure::untrusted(&error, kind))?;
    let (direction, registry) = (Direction::Accepted, registry.clone());
    let stream = Refusable::new(stream);
    let refusal = stream.refusal();
    let (via, clock) = (None, credentials.clock().clone());
    let handshaken =
        Handshaken { peer, remote, direction, chain, clock, activity, refusal, via, kind, registry };
    Ok((stream, handshaken, purpose))
}

fn certificates(tls: &CommonState) -> Vec<CertificateDer<'static>> {
    let certificates = tls.peer_certificates().unwrap_or_default();
    certificates.iter().map(|certificate| certificate.clone().into_owned()).collect()
}

/// Returns the error of a handshake: that of the network, or that of TLS.
fn failed(error: io::Error, kind: CredentialKind) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    io::Error::other(HandshakeFailure::of(&error, kind))
}
