//! TLS between two peers: both certificates verified, and what each side wants to do with the connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::rustls::{self, CommonState, pki_types::CertificateDer};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::transport::Transport;
use super::{ALPN, ALPN_REVERSE, Direction, Handshaken, TunnelError};
use crate::address::{EndpointAddr, PeerName};
use crate::connect;
use crate::credentials::{CredentialKind, Credentials, HandshakeFailure, Reason};
use crate::socket::Socket;

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

/// Connects to a peer, and makes sure that it is the right one.
pub(super) async fn dial(
    credentials: &Credentials,
    addr: SocketAddr,
    name: &PeerName,
    purpose: Purpose,
    limit: Duration,
) -> io::Result<(client::TlsStream<Transport>, Handshaken)> {
    let (config, server_name) = credentials
        .connector(name, &[purpose.alpn()])
        .map_err(|error| io::Error::other(error.to_string()))?;
    let handshake = async {
        let socket = connect::dial(&EndpointAddr::Inet(addr), limit).await?;
        let transport = Transport::new(socket);
        let activity = transport.activity().clone();
        let stream = TlsConnector::from(config).connect(server_name, transport).await;
        let stream = stream.map_err(|error| failed(&error, addr, credentials.kind()))?;
        let (_, tls) = stream.get_ref();
        if tls.alpn_protocol() != Some(purpose.alpn()) {
            return Err(io::Error::other(TunnelError::Tls(Reason::Alpn)));
        }
        let chain = certificates(tls);
        let peer =
            credentials.peer(&chain).map_err(|error| io::Error::other(TunnelError::Tls(error.reason())))?;
        Ok((stream, Handshaken { peer, remote: addr, direction: Direction::Dialled, chain, activity }))
    };
    timeout(limit, handshake).await?
}

/// Accepts a connection, and makes sure that it is from a peer.
pub(super) async fn accept(
    credentials: &Credentials,
    socket: Socket,
    remote: SocketAddr,
) -> Result<(server::TlsStream<Transport>, Handshaken, Purpose), HandshakeFailure> {
    let kind = credentials.kind();
    let failed = |error: &io::Error| HandshakeFailure::of(error, kind);
    let transport = Transport::new(socket);
    let activity = transport.activity().clone();
    let config = credentials.acceptor(&[ALPN, ALPN_REVERSE]);
    let acceptor = TlsAcceptor::from(config.map_err(|error| failed(&io::Error::other(error)))?);
    let accepted = timeout(ACCEPT_TIMEOUT, acceptor.accept(transport)).await;
    let stream = accepted.map_err(|late| failed(&late.into()))?.map_err(|error| failed(&error))?;
    let (_, tls) = stream.get_ref();
    let purpose = match tls.alpn_protocol() {
        Some(ALPN) => Purpose::Open,
        Some(ALPN_REVERSE) => Purpose::Serve,
        _ => return Err(failed(&io::Error::other(rustls::Error::NoApplicationProtocol))),
    };
    let chain = certificates(tls);
    let peer = credentials.peer(&chain).map_err(|error| HandshakeFailure::untrusted(&error, kind))?;
    Ok((stream, Handshaken { peer, remote, direction: Direction::Accepted, chain, activity }, purpose))
}

fn certificates(tls: &CommonState) -> Vec<CertificateDer<'static>> {
    let certificates = tls.peer_certificates().unwrap_or_default();
    certificates.iter().map(|certificate| certificate.clone().into_owned()).collect()
}

/// Logs a failed handshake, and returns its error: that of TLS, or that of the network.
fn failed(error: &io::Error, addr: SocketAddr, kind: CredentialKind) -> io::Error {
    if let Some(code) = error.raw_os_error() {
        return io::Error::from_raw_os_error(code);
    }
    let failure = HandshakeFailure::of(error, kind);
    tracing::debug!(%addr, "no tunnel to the peer: {}", failure.one_line());
    io::Error::other(TunnelError::Tls(failure.reason))
}
