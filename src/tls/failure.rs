//! Failed handshakes with programs that are not peers: a reason to count, and a message with a way out. Pure.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{CertificateError, Error};

use crate::credentials::{CredentialKind, HandshakeFailure, Reason};

/// Why a handshake failed. Wrapped by the error of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsFailure {
    /// For metrics and logs.
    pub reason: Reason,
    /// The other side.
    pub side: Side,
}

/// The side with which a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A client of a route with `tls`.
    Client,
    /// An endpoint `tls://`.
    Endpoint,
}

impl Side {
    /// Both sides.
    pub const ALL: [Side; 2] = [Side::Client, Side::Endpoint];

    /// Returns the side in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Endpoint => "endpoint",
        }
    }
}

impl TlsFailure {
    /// Explains the error of a handshake.
    pub fn of(error: &io::Error, side: Side) -> TlsFailure {
        let reason = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(error)) => of_certificate(error),
            _ => None,
        };
        let reason = reason.unwrap_or_else(|| HandshakeFailure::of(error, CredentialKind::ForeignCa).reason);
        TlsFailure { reason, side }
    }

    /// Returns the failure that an error wraps.
    pub fn in_error(error: &io::Error) -> Option<TlsFailure> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Returns the number of the failure of an endpoint, to be stored in few bits.
    pub(crate) fn code(self) -> u16 {
        let index = Reason::ALL.iter().position(|reason| *reason == self.reason);
        index.and_then(|index| u16::try_from(index).ok()).unwrap_or_default()
    }

    /// Returns the failure of an endpoint with this number.
    pub(crate) fn from_code(code: u16) -> Option<TlsFailure> {
        let reason = *Reason::ALL.get(usize::from(code))?;
        Some(TlsFailure { reason, side: Side::Endpoint })
    }

    /// Returns what to do; `None` if the message says it.
    pub(crate) fn help(self) -> Option<&'static str> {
        match self.side {
            Side::Client => None,
            Side::Endpoint => help_with_endpoint(self.reason),
        }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = match self.side {
            Side::Client => of_client(self.reason),
            Side::Endpoint => of_endpoint(self.reason),
        };
        write!(f, "TLS: {message}")
    }
}

impl std::error::Error for TlsFailure {}

/// Returns the reason of an error that the verifiers of peers do not have.
fn of_certificate(error: &CertificateError) -> Option<Reason> {
    match error {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(Reason::WrongName)
        }
        // A CA of the same name with another key.
        CertificateError::BadSignature => Some(Reason::UnknownIssuer),
        CertificateError::Other(other) => Some(other.0.downcast_ref::<TlsFailure>()?.reason),
        _ => None,
    }
}

fn of_client(reason: Reason) -> &'static str {
    match reason {
        Reason::Revoked => "the client's certificate is revoked",
        Reason::Expired => "the client's certificate has expired",
        Reason::NotYetValid => "the client's certificate is not valid yet",
        Reason::UnknownIssuer => "the client's certificate was issued by a CA that is not in `tls-ca`",
        Reason::WrongName => "the client's identity is not in `tls-peers`",
        Reason::NoIdentity => "the client's certificate names no identity",
        Reason::BadCertificate => "the client's certificate is unusable",
        Reason::NoCertificate => "the client presented no certificate",
        Reason::RefusedRevoked => "the client refused the certificate as revoked",
        Reason::RefusedExpired => "the client refused the certificate as expired",
        Reason::RefusedUnknownIssuer => "the client does not trust the CA of the certificate",
        Reason::RefusedCertificate => "the client refused the certificate",
        Reason::RefusedNoCertificate => "the client received no certificate",
        Reason::Version => "the client offers neither TLS 1.2 nor TLS 1.3",
        Reason::Alpn => "the client requires a protocol (ALPN)",
        Reason::NotTls => "the client does not speak TLS",
        Reason::Closed => "the client closed the connection during the handshake",
        Reason::Timeout => "the client did not complete the handshake in time",
        Reason::Protocol => "the client violated the protocol, or has no algorithm in common",
    }
}

fn of_endpoint(reason: Reason) -> &'static str {
    match reason {
        Reason::Revoked => "the endpoint's certificate is revoked",
        Reason::Expired => "the endpoint's certificate has expired",
        Reason::NotYetValid => "the endpoint's certificate is not valid yet",
        Reason::UnknownIssuer => "the endpoint's certificate was issued by an unknown CA",
        Reason::WrongName => "the endpoint's certificate is for another name",
        Reason::NoIdentity | Reason::BadCertificate => "the endpoint's certificate is unusable",
        Reason::NoCertificate => "the endpoint presented no certificate",
        Reason::RefusedRevoked => "the endpoint refused our certificate as revoked",
        Reason::RefusedExpired => "the endpoint refused our certificate as expired",
        Reason::RefusedUnknownIssuer => "the endpoint does not trust the CA of our certificate",
        Reason::RefusedCertificate => "the endpoint refused our certificate",
        Reason::RefusedNoCertificate => "the endpoint requires a client certificate",
        Reason::Version => "the endpoint supports neither TLS 1.2 nor TLS 1.3",
        Reason::Alpn => "the endpoint requires a protocol (ALPN)",
        Reason::NotTls => "the endpoint does not speak TLS",
        Reason::Closed => "the endpoint closed the connection during the handshake",
        Reason::Timeout => "the endpoint did not complete the handshake in time",
        Reason::Protocol => "the endpoint violated the protocol, or has no algorithm in common",
    }
}

fn help_with_endpoint(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Expired => "renew the endpoint's certificate, or correct the clock of this host",
        Reason::NotYetValid => "compare the clocks of both hosts",
        Reason::UnknownIssuer => "set `ca=FILE` to the CA that issued it",
        Reason::WrongName => "set `sni=NAME` to a name in the certificate",
        Reason::RefusedRevoked | Reason::RefusedExpired => "renew the certificate of `cert=NAME`",
        Reason::RefusedUnknownIssuer | Reason::RefusedCertificate => {
            "use a certificate that the endpoint accepts: `cert=NAME`"
        }
        Reason::RefusedNoCertificate => "set `cert=NAME`",
        Reason::NotTls => "check the port, or write the target without `tls://`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_of_an_endpoint_survives_its_code() {
        for reason in Reason::ALL {
            let failure = TlsFailure { reason, side: Side::Endpoint };
            assert_eq!(TlsFailure::from_code(failure.code()), Some(failure));
        }
        assert_eq!(TlsFailure::from_code(u16::MAX), None);
    }

    #[test]
    fn reasons_are_those_of_the_handshake() {
        let name = Error::InvalidCertificate(CertificateError::NotValidForName);
        let expired = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for (error, reason) in [
            (io::Error::new(io::ErrorKind::InvalidData, name), Reason::WrongName),
            (io::Error::new(io::ErrorKind::InvalidData, expired), Reason::UnknownIssuer),
            (io::ErrorKind::TimedOut.into(), Reason::Timeout),
            (io::ErrorKind::UnexpectedEof.into(), Reason::Closed),
        ] {
            assert_eq!(TlsFailure::of(&error, Side::Client).reason, reason);
        }
    }
}
