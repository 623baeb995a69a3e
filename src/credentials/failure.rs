//! Failed handshakes: a reason to count, and a message with a way out. Pure.

use std::fmt;
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
    /// What we authenticate peers by.
    pub kind: CredentialKind,
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

    /// Returns what is wrong, without the details of [`HandshakeFailure::message`].
    pub fn message(self) -> &'static str {
        match self {
            Reason::Revoked => "peer not trusted: the certificate is revoked",
            Reason::Expired => "peer not trusted: the certificate has expired",
            Reason::NotYetValid => "peer not trusted: the certificate is not valid yet",
            Reason::UnknownIssuer => "peer not trusted: the certificate was issued by an unknown CA",
            Reason::WrongName => "peer not trusted: the certificate is that of another peer",
            Reason::NoIdentity => "peer not trusted: the certificate names no identity",
            Reason::BadCertificate => "peer not trusted: the certificate is unusable",
            Reason::NoCertificate => "the peer presented no certificate",
            Reason::RefusedRevoked => "the peer refused our certificate as revoked",
            Reason::RefusedExpired => "the peer refused our certificate as not valid now",
            Reason::RefusedUnknownIssuer => "the peer refused our certificate as that of an unknown CA",
            Reason::RefusedCertificate => "the peer refused our certificate for its contents",
            Reason::RefusedNoCertificate => "the peer refused our certificate because it received none",
            Reason::Version => "no common version of TLS",
            Reason::Alpn => "no common protocol: peers speak HTTP/2 (ALPN `h2`)",
            Reason::NotTls => "the other side does not speak TLS",
            Reason::Closed => "the peer closed the connection during the handshake",
            Reason::Timeout => "the peer did not answer in time",
            Reason::Protocol => "a violation of TLS",
        }
    }

    /// Returns what to do.
    pub fn help(self, kind: CredentialKind) -> &'static str {
        let is_secret = kind == CredentialKind::Secret;
        match self {
            Reason::Revoked => {
                "if the peer is legitimate, issue it a new certificate: `ambassador ca issue NAME`"
            }
            Reason::Expired | Reason::RefusedExpired if is_secret => CLOCKS,
            Reason::Expired => "renew the peer's certificate, or correct the clock of this host",
            Reason::NotYetValid => CLOCKS,
            Reason::UnknownIssuer | Reason::RefusedUnknownIssuer if is_secret => OTHER_SECRET,
            Reason::UnknownIssuer => {
                "add the CA of the peer's certificate to --peer-ca, or issue it one of ours"
            }
            Reason::WrongName => {
                "set `identity=` to the identity of the peer, or issue a certificate with the host's name: `ambassador ca issue NAME --dns HOST`"
            }
            Reason::NoIdentity => "issue the peer a certificate with a SPIFFE ID or a DNS name",
            Reason::BadCertificate => "issue the peer a certificate for client and server use",
            Reason::NoCertificate => {
                "only ambassadors and other programs with a certificate of our CA can connect"
            }
            Reason::RefusedRevoked => "issue this host a new certificate: `ambassador ca issue NAME`",
            Reason::RefusedExpired => {
                "renew the certificate of this host, or compare the clocks of both hosts"
            }
            Reason::RefusedUnknownIssuer => "add the CA of our certificate to --peer-ca of the peer",
            Reason::RefusedNoCertificate => "check --peer-cert or --peer-secret-file of this host",
            Reason::Version => "allow TLS 1.3 on the other side",
            Reason::Alpn => "check that the other side is an ambassador, or offers `h2`",
            Reason::NotTls => "check that the port is that of --peer-listen (default 15008)",
            Reason::RefusedCertificate | Reason::Closed => "the log of the peer has the reason",
            Reason::Timeout => {
                "check that the port is that of --peer-listen, and that no firewall drops packets"
            }
            Reason::Protocol => "check that the other side is an ambassador, or speaks HTTP/2 over TLS 1.3",
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
            None => of_io(error, kind),
        }
    }

    /// Explains a chain that is not trusted although the handshake was complete.
    pub fn untrusted(untrusted: &Untrusted, kind: CredentialKind) -> HandshakeFailure {
        of_certificate(untrusted, kind)
    }

    /// Returns the failure that an error wraps.
    pub fn in_error(error: &io::Error) -> Option<&HandshakeFailure> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns the failure on one line, for logs.
    pub fn one_line(&self) -> String {
        format!("{} ({})", self.message, self.help)
    }

    /// Returns a failure with the message and the help of its reason.
    fn new(reason: Reason, kind: CredentialKind) -> HandshakeFailure {
        HandshakeFailure { reason, message: reason.message().to_owned(), help: reason.help(kind), kind }
    }

    fn message(self, message: String) -> HandshakeFailure {
        HandshakeFailure { message, ..self }
    }

    fn help(self, help: &'static str) -> HandshakeFailure {
        HandshakeFailure { help, ..self }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HandshakeFailure {}

fn of_tls(error: &Error, kind: CredentialKind) -> HandshakeFailure {
    let reason = match error {
        Error::InvalidCertificate(error) => return of_certificate(&Untrusted::of(error), kind),
        Error::AlertReceived(alert) => return of_alert(*alert, kind),
        Error::NoCertificatesPresented => Reason::NoCertificate,
        Error::PeerIncompatible(incompatible) => return of_incompatible(incompatible, kind),
        Error::NoApplicationProtocol
        | Error::PeerMisbehaved(PeerMisbehaved::UnsolicitedEncryptedExtension) => Reason::Alpn,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => Reason::NotTls,
        other => return HandshakeFailure::new(Reason::Protocol, kind).message(format!("TLS: {other}")),
    };
    HandshakeFailure::new(reason, kind)
}

fn of_certificate(untrusted: &Untrusted, kind: CredentialKind) -> HandshakeFailure {
    HandshakeFailure::new(untrusted.reason(), kind).message(format!("peer not trusted: {untrusted}"))
}

const CLOCKS: &str = "compare the clocks of both hosts";

const OTHER_SECRET: &str = "the hosts have different secrets: copy the same --peer-secret-file to both";

fn of_alert(alert: AlertDescription, kind: CredentialKind) -> HandshakeFailure {
    let reason = match alert {
        AlertDescription::CertificateRevoked => Reason::RefusedRevoked,
        AlertDescription::CertificateExpired => Reason::RefusedExpired,
        AlertDescription::UnknownCA => Reason::RefusedUnknownIssuer,
        AlertDescription::CertificateRequired => Reason::RefusedNoCertificate,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => Reason::RefusedCertificate,
        AlertDescription::ProtocolVersion => Reason::Version,
        AlertDescription::NoApplicationProtocol => Reason::Alpn,
        other => {
            let message = format!("the peer ended the handshake: {other:?}");
            let help = "the log of the peer has the reason";
            return HandshakeFailure::new(Reason::Protocol, kind).message(message).help(help);
        }
    };
    HandshakeFailure::new(reason, kind)
}

fn of_incompatible(incompatible: &PeerIncompatible, kind: CredentialKind) -> HandshakeFailure {
    match incompatible {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => HandshakeFailure::new(Reason::Version, kind),
        other => HandshakeFailure::new(Reason::Protocol, kind)
            .message(format!("no common parameters of TLS: {other:?}"))
            .help("allow the parameters of TLS 1.3 (RFC 8446, 9.1) on the other side"),
    }
}

fn of_io(error: &io::Error, kind: CredentialKind) -> HandshakeFailure {
    match error.kind() {
        io::ErrorKind::TimedOut => HandshakeFailure::new(Reason::Timeout, kind),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            HandshakeFailure::new(Reason::Closed, kind)
        }
        _ => HandshakeFailure::new(Reason::Closed, kind)
            .message(error.to_string())
            .help("check the network between the hosts"),
    }
}
