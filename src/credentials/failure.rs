//! Failed handshakes: a reason to count, and a message with a way out. Pure.

use std::io;

use tokio_rustls::rustls::{
    AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible, PeerMisbehaved,
};

use super::identity::Untrusted;
use super::trust::{CredentialKind, system_time};

/// Why a handshake failed. The words are values of the label `reason` of `ambassador_peer_handshake_failures_total`.
///
/// The reasons that begin with `Refused` are those of the peer, about our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The peer's certificate is revoked.
    Revoked,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It was issued by a CA that we do not trust.
    UnknownIssuer,
    /// It is that of another host or identity.
    WrongName,
    /// It contains no identity.
    NoIdentity,
    /// It is unusable for another reason.
    BadCertificate,
    /// The peer presented no certificate.
    NoCertificate,
    /// The peer refused our certificate as revoked.
    RefusedRevoked,
    /// The peer refused it as expired or not yet valid.
    RefusedExpired,
    /// The peer does not trust the CA of our certificate.
    RefusedUnknownIssuer,
    /// The peer refused our certificate for another reason.
    RefusedCertificate,
    /// The peer received no certificate of ours.
    RefusedNoCertificate,
    /// No common version of TLS. Ours is 1.3.
    Version,
    /// No common protocol above TLS (ALPN).
    Alpn,
    /// The peer does not speak TLS.
    NotTls,
    /// The peer closed or reset the connection.
    Closed,
    /// The peer did not answer in time.
    Timeout,
    /// Another violation of the protocol.
    Protocol,
}

/// A failed handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeFailure {
    /// For metrics.
    pub reason: Reason,
    /// For people: what is wrong.
    pub message: String,
    /// For people: what to do.
    pub help: &'static str,
}

impl Reason {
    /// Every reason, for metrics.
    pub const ALL: [Reason; 19] = [
        Reason::Revoked,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::UnknownIssuer,
        Reason::WrongName,
        Reason::NoIdentity,
        Reason::BadCertificate,
        Reason::NoCertificate,
        Reason::RefusedRevoked,
        Reason::RefusedExpired,
        Reason::RefusedUnknownIssuer,
        Reason::RefusedCertificate,
        Reason::RefusedNoCertificate,
        Reason::Version,
        Reason::Alpn,
        Reason::NotTls,
        Reason::Closed,
        Reason::Timeout,
        Reason::Protocol,
    ];

    /// Returns the reason in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Revoked => "revoked",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not-yet-valid",
            Reason::UnknownIssuer => "unknown-issuer",
            Reason::WrongName => "wrong-name",
            Reason::NoIdentity => "no-identity",
            Reason::BadCertificate => "bad-certificate",
            Reason::NoCertificate => "no-certificate",
            Reason::RefusedRevoked => "refused-revoked",
            Reason::RefusedExpired => "refused-expired",
            Reason::RefusedUnknownIssuer => "refused-unknown-issuer",
            Reason::RefusedCertificate => "refused-certificate",
            Reason::RefusedNoCertificate => "refused-no-certificate",
            Reason::Version => "version",
            Reason::Alpn => "alpn",
            Reason::NotTls => "not-tls",
            Reason::Closed => "closed",
            Reason::Timeout => "timeout",
            Reason::Protocol => "protocol",
        }
    }
}

impl Untrusted {
    /// Returns the reason for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Untrusted::Revoked => Reason::Revoked,
            Untrusted::Expired { .. } => Reason::Expired,
            Untrusted::NotYetValid { .. } => Reason::NotYetValid,
            Untrusted::UnknownIssuer => Reason::UnknownIssuer,
            Untrusted::WrongName { .. } => Reason::WrongName,
            Untrusted::NoIdentity => Reason::NoIdentity,
            Untrusted::Unusable(_) => Reason::BadCertificate,
        }
    }

    /// Returns the reason of a certificate that the verifiers refused. See `verifier::tls_error`.
    fn of(error: &CertificateError) -> Untrusted {
        match error {
            CertificateError::Revoked => Untrusted::Revoked,
            CertificateError::ExpiredContext { not_after, .. } => {
                Untrusted::Expired { not_after: system_time(*not_after) }
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                Untrusted::NotYetValid { not_before: system_time(*not_before) }
            }
            CertificateError::UnknownIssuer => Untrusted::UnknownIssuer,
            CertificateError::Other(other) => match other.0.downcast_ref::<Untrusted>() {
                Some(untrusted) => untrusted.clone(),
                None => Untrusted::Unusable(error.to_string()),
            },
            other => Untrusted::Unusable(other.to_string()),
        }
    }
}

impl HandshakeFailure {
    /// Explains an error of a handshake, or of the first read after it: in TLS 1.3 the side that dials learns only then that the
    /// other side has refused its certificate.
    pub fn of(error: &io::Error, kind: CredentialKind) -> HandshakeFailure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => of_tls(error, kind),
            None => of_io(error),
        }
    }

    /// Explains a chain that is not trusted although the handshake was complete.
    pub fn untrusted(untrusted: &Untrusted, kind: CredentialKind) -> HandshakeFailure {
        of_certificate(untrusted, kind)
    }

    /// Returns the failure on one line, for logs.
    pub fn one_line(&self) -> String {
        format!("{} ({})", self.message, self.help)
    }

    fn new(reason: Reason, message: impl Into<String>, help: &'static str) -> HandshakeFailure {
        HandshakeFailure { reason, message: message.into(), help }
    }
}

fn of_tls(error: &Error, kind: CredentialKind) -> HandshakeFailure {
    match error {
        Error::InvalidCertificate(error) => of_certificate(&Untrusted::of(error), kind),
        Error::AlertReceived(alert) => of_alert(*alert, kind),
        Error::NoCertificatesPresented => HandshakeFailure::new(
            Reason::NoCertificate,
            "the peer presented no certificate",
            "only ambassadors and other programs with a certificate of our CA can connect",
        ),
        Error::PeerIncompatible(incompatible) => of_incompatible(incompatible),
        Error::NoApplicationProtocol
        | Error::PeerMisbehaved(PeerMisbehaved::UnsolicitedEncryptedExtension) => no_common_protocol(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => HandshakeFailure::new(
            Reason::NotTls,
            "the other side does not speak TLS",
            "check that the port is that of --peer-listen (default 15008)",
        ),
        other => HandshakeFailure::new(
            Reason::Protocol,
            format!("TLS: {other}"),
            "check that the other side is an ambassador, or speaks HTTP/2 over TLS 1.3",
        ),
    }
}

fn of_certificate(untrusted: &Untrusted, kind: CredentialKind) -> HandshakeFailure {
    let help = match untrusted {
        Untrusted::Revoked => {
            "if the peer is legitimate, issue it a new certificate: `ambassador ca issue NAME`"
        }
        Untrusted::Expired { .. } if kind == CredentialKind::Secret => CLOCKS,
        Untrusted::Expired { .. } => "renew the peer's certificate, or correct the clock of this host",
        Untrusted::NotYetValid { .. } => CLOCKS,
        Untrusted::UnknownIssuer if kind == CredentialKind::Secret => OTHER_SECRET,
        Untrusted::UnknownIssuer => {
            "add the CA of the peer's certificate to --peer-ca, or issue it one of ours"
        }
        Untrusted::WrongName { .. } => {
            "set `identity=` to the identity of the peer, or issue a certificate with the host's name: `ambassador ca issue NAME --dns HOST`"
        }
        Untrusted::NoIdentity => "issue the peer a certificate with a SPIFFE ID or a DNS name",
        Untrusted::Unusable(_) => "issue the peer a certificate for client and server use",
    };
    HandshakeFailure::new(untrusted.reason(), format!("peer not trusted: {untrusted}"), help)
}

const CLOCKS: &str = "compare the clocks of both hosts";

const OTHER_SECRET: &str = "the hosts have different secrets: copy the same --peer-secret-file to both";

fn of_alert(alert: AlertDescription, kind: CredentialKind) -> HandshakeFailure {
    let is_secret = kind == CredentialKind::Secret;
    let (reason, what, help) = match alert {
        AlertDescription::CertificateRevoked => (
            Reason::RefusedRevoked,
            "as revoked",
            "issue this host a new certificate: `ambassador ca issue NAME`",
        ),
        AlertDescription::CertificateExpired if is_secret => {
            (Reason::RefusedExpired, "as not valid now", CLOCKS)
        }
        AlertDescription::CertificateExpired => (
            Reason::RefusedExpired,
            "as not valid now",
            "renew the certificate of this host, or compare the clocks of both hosts",
        ),
        AlertDescription::UnknownCA if is_secret => {
            (Reason::RefusedUnknownIssuer, "as that of an unknown CA", OTHER_SECRET)
        }
        AlertDescription::UnknownCA => (
            Reason::RefusedUnknownIssuer,
            "as that of an unknown CA",
            "add the CA of our certificate to --peer-ca of the peer",
        ),
        AlertDescription::CertificateRequired => (
            Reason::RefusedNoCertificate,
            "because it received none",
            "check --peer-cert or --peer-secret-file of this host",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => {
            (Reason::RefusedCertificate, "for its contents", "the log of the peer has the reason")
        }
        AlertDescription::ProtocolVersion => return wrong_version(),
        AlertDescription::NoApplicationProtocol => return no_common_protocol(),
        other => {
            let message = format!("the peer ended the handshake: {other:?}");
            return HandshakeFailure::new(Reason::Protocol, message, "the log of the peer has the reason");
        }
    };
    HandshakeFailure::new(reason, format!("the peer refused our certificate {what}"), help)
}

fn of_incompatible(incompatible: &PeerIncompatible) -> HandshakeFailure {
    match incompatible {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => wrong_version(),
        other => HandshakeFailure::new(
            Reason::Protocol,
            format!("no common parameters of TLS: {other:?}"),
            "allow the parameters of TLS 1.3 (RFC 8446, 9.1) on the other side",
        ),
    }
}

fn wrong_version() -> HandshakeFailure {
    HandshakeFailure::new(Reason::Version, "no common version of TLS", "allow TLS 1.3 on the other side")
}

fn no_common_protocol() -> HandshakeFailure {
    HandshakeFailure::new(
        Reason::Alpn,
        "no common protocol: peers speak HTTP/2 (ALPN `h2`)",
        "check that the other side is an ambassador, or offers `h2`",
    )
}

fn of_io(error: &io::Error) -> HandshakeFailure {
    match error.kind() {
        io::ErrorKind::TimedOut => HandshakeFailure::new(
            Reason::Timeout,
            "the peer did not answer in time",
            "check that the port is that of --peer-listen, and that no firewall drops packets",
        ),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            HandshakeFailure::new(
                Reason::Closed,
                "the peer closed the connection during the handshake",
                "the log of the peer has the reason",
            )
        }
        _ => HandshakeFailure::new(Reason::Closed, error.to_string(), "check the network between the hosts"),
    }
}
