//! The server's side (`tls`, `tls-ca`, `tls-peers`): the configuration of a route, and handshakes with its clients.
//!
//! Sessions are resumed by stateless tickets, whose keys change every six hours: clients cost no memory, and workers share
//! nothing. Each configuration has keys of its own, so that a ticket of one route is none of another, or of another `tls-ca`.
//! There is no early data: it can be replayed.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::ring::Ticketer;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::server::{
    NoClientAuth, NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier,
};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, OtherError,
    ProtocolVersion, RootCertStore, ServerConfig, SignatureScheme,
};

use super::certificate::Certificates;
use super::failure::{Side, TlsFailure};
use super::stream::TlsStream;
use crate::client_details::ClientTls;
use crate::credentials::{CredentialsError, PeerIdentity, Reason, common_name_of, identity_of, provider};
use crate::socket::Socket;

/// What a route presents to its clients, and requires from them.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    requires_certificate: bool,
}

/// A connection whose handshake is complete.
#[derive(Debug)]
pub struct AcceptedTls {
    /// The connection.
    pub stream: TlsStream,
    /// The identity in the client's certificate, if the route requires one.
    pub peer: Option<Arc<PeerIdentity>>,
}

impl AcceptedTls {
    /// Returns what was negotiated, and who the client is.
    pub fn client(&self) -> ClientTls {
        let peer = self.peer.clone();
        self.stream.negotiated(|common| ClientTls {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            cipher: common
                .negotiated_cipher_suite()
                .and_then(|suite| Some(suite.suite().as_str()?.to_owned()))
                .unwrap_or_default(),
            common_name: common.peer_certificates().and_then(<[_]>::first).and_then(common_name_of),
            peer,
        })
    }
}

impl Acceptor {
    /// `roots`: the CAs of the certificates that clients must present. `peers`: the identities in them; empty allows all.
    pub(super) fn new(
        certificates: Certificates,
        roots: Option<Arc<RootCertStore>>,
        peers: &[String],
    ) -> Result<Acceptor, CredentialsError> {
        let requires_certificate = roots.is_some();
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = builder
            .with_client_cert_verifier(verifier(roots, peers)?)
            .with_cert_resolver(Arc::new(certificates));
        config.ticketer = Ticketer::new()?;
        // Without tickets, a client is not resumed.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Acceptor { config: Arc::new(config), requires_certificate })
    }

    /// Performs a handshake. Its limit is up to the caller.
    pub async fn accept(&self, socket: Socket) -> Result<AcceptedTls, TlsFailure> {
        let failed = |error: std::io::Error| TlsFailure::of(&error, Side::Client);
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config))
            .map_err(|error| failed(std::io::Error::other(error)))?;
        let stream = TlsStream::server(socket, connection);
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await.map_err(failed)?;
        let peer = if self.requires_certificate { Some(Arc::new(identity(&stream)?)) } else { None };
        Ok(AcceptedTls { stream, peer })
    }
}

/// Returns the identity of a client. In a resumed session, its certificate may have expired since it was verified.
fn identity(stream: &TlsStream) -> Result<PeerIdentity, TlsFailure> {
    let failure = |reason| TlsFailure { reason, side: Side::Client };
    let (found, is_resumed) = stream.negotiated(|common| {
        let leaf = common.peer_certificates().and_then(<[_]>::first);
        let is_resumed = common.handshake_kind() == Some(HandshakeKind::Resumed);
        (leaf.map(identity_of), is_resumed)
    });
    let peer = found.ok_or_else(|| failure(Reason::NoCertificate))?;
    let peer = peer.map_err(|untrusted| failure(untrusted.reason()))?;
    if is_resumed && peer.not_after < SystemTime::now() {
        return Err(failure(Reason::Expired));
    }
    Ok(peer)
}

fn verifier(
    roots: Option<Arc<RootCertStore>>,
    peers: &[String],
) -> Result<Arc<dyn ClientCertVerifier>, CredentialsError> {
    let Some(roots) = roots else { return Ok(Arc::new(NoClientAuth)) };
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    // No hints: clients have one certificate, and the names of the CAs are not for strangers.
    let chains = builder.clear_root_hint_subjects().build();
    let chains = chains.map_err(|error| CredentialsError::Tls(error.to_string()))?;
    Ok(Arc::new(IdentityVerifier { chains, peers: peers.into() }))
}

/// Verifies chains, and then identities, so that a client with another identity receives an alert.
#[derive(Debug)]
struct IdentityVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    peers: Box<[String]>,
}

impl ClientCertVerifier for IdentityVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        let refused = |reason| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(TlsFailure {
                reason,
                side: Side::Client,
            }))))
        };
        let peer = identity_of(end_entity).map_err(|untrusted| refused(untrusted.reason()))?;
        let is_allowed = self.peers.is_empty() || self.peers.iter().any(|name| **name == *peer.identity);
        if is_allowed { Ok(verified) } else { Err(refused(Reason::WrongName)) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
