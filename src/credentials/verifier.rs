//! The verification of peers in a handshake, as the TLS library calls it.
//!
//! The library's own verifiers know names of hosts only, and no SPIFFE IDs.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::identity::Untrusted;
use super::trust::{Side, Trust, unix_time};
use crate::address::PeerName;

/// Verifies a peer that we dialled.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: Arc<Trust>,
    expected: PeerName,
}

/// Verifies a peer that dialled us.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    trust: Arc<Trust>,
}

impl ServerVerifier {
    pub(super) fn new(trust: Arc<Trust>, expected: PeerName) -> ServerVerifier {
        ServerVerifier { trust, expected }
    }
}

impl ClientVerifier {
    pub(super) fn new(trust: Arc<Trust>) -> ClientVerifier {
        ClientVerifier { trust }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.trust.verify(end_entity, intermediates, Side::Server, now);
        verified.map_err(tls_error)?;
        self.trust.verify_name(end_entity, server_name, &self.expected).map_err(tls_error)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, self.trust.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, self.trust.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms().supported_schemes()
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// No hints: clients have one certificate, and the names of our CAs are not for strangers.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.trust.verify(end_entity, intermediates, Side::Client, now);
        verified.map_err(tls_error)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, self.trust.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, self.trust.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.algorithms().supported_schemes()
    }
}

/// The kind of error decides which alert the peer receives: it should see why its certificate was refused.
fn tls_error(untrusted: Untrusted) -> Error {
    Error::InvalidCertificate(match untrusted {
        Untrusted::Revoked => CertificateError::Revoked,
        Untrusted::Expired { not_after } => {
            CertificateError::ExpiredContext { time: UnixTime::now(), not_after: unix_time(not_after) }
        }
        Untrusted::NotYetValid { not_before } => {
            CertificateError::NotValidYetContext { time: UnixTime::now(), not_before: unix_time(not_before) }
        }
        Untrusted::UnknownIssuer => CertificateError::UnknownIssuer,
        other @ (Untrusted::WrongName { .. } | Untrusted::NoIdentity | Untrusted::Unusable(_)) => {
            CertificateError::Other(OtherError(Arc::new(other)))
        }
    })
}
