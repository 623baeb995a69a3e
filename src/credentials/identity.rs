//! The identity in a certificate, and why a certificate is not trusted. Pure.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::time_provider::TimeProvider;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

/// The trust domain of the certificates that this program issues. Their identity is the rest of the SPIFFE ID.
pub(super) const OUR_SPIFFE_ID: &str = "spiffe://ambassador/";

/// The longest SPIFFE ID (SPIFFE-ID 2.3). Identities are labels of metrics and stand in each line of the access log.
const IDENTITY_MAX: usize = 2048;

/// A peer that has authenticated itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// NAME of `spiffe://ambassador/NAME`, another URI as a whole, or else the first DNS name.
    pub identity: Arc<str>,
    /// The serial number of the certificate, in hexadecimal.
    pub serial: String,
    /// The end of the certificate's validity.
    pub not_after: SystemTime,
}

/// Why a certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Its CA has revoked it.
    #[error("the certificate is revoked")]
    Revoked,
    /// It, or one of its issuers, is no longer valid.
    #[error("the certificate expired at {}", humantime::format_rfc3339_seconds(*not_after))]
    Expired {
        /// The end of its validity.
        not_after: SystemTime,
    },
    /// It, or one of its issuers, is not valid yet.
    #[error("the certificate is not valid before {}", humantime::format_rfc3339_seconds(*not_before))]
    NotYetValid {
        /// The start of its validity.
        not_before: SystemTime,
    },
    /// None of our CAs has issued it.
    #[error("the certificate was issued by an unknown CA")]
    UnknownIssuer,
    /// It belongs to another peer.
    #[error("the certificate is that of `{presented}`, not of `{expected}`")]
    WrongName {
        /// The host or identity that was expected.
        expected: String,
        /// The names in the certificate.
        presented: String,
    },
    /// It has no name that could be an identity.
    #[error("the certificate names no identity: it needs one URI or a DNS name as subject alternative name")]
    NoIdentity,
    /// It cannot be used for TLS between peers.
    #[error("the certificate is unusable: {0}")]
    Unusable(String),
}

impl PeerIdentity {
    /// Returns whether the certificate is no longer valid.
    pub fn has_expired(&self, clock: &dyn TimeProvider) -> bool {
        super::now(clock) > self.not_after
    }
}

/// The names in a certificate.
pub(super) struct Names<'a> {
    uris: Vec<&'a str>,
    pub(super) dns: Vec<&'a str>,
}

/// Reads the identity in a certificate. It must have been verified.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, Untrusted> {
    let parsed = parse(certificate)?;
    Ok(PeerIdentity {
        identity: names(&parsed)?.identity()?.into(),
        serial: serial(&parsed),
        not_after: time(parsed.validity().not_after),
    })
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Untrusted> {
    match parse_x509_certificate(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(Untrusted::Unusable(error.to_string())),
    }
}

/// Returns the serial number in hexadecimal, without the zero byte that DER puts before a high bit.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> String {
    let bytes = certificate.raw_serial();
    HEXLOWER.encode(bytes.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(bytes))
}

pub(super) fn time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(super) fn names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Names<'a>, Untrusted> {
    let extension =
        certificate.subject_alternative_name().map_err(|error| Untrusted::Unusable(error.to_string()))?;
    let all = extension.map(|extension| &extension.value.general_names);
    let mut names = Names { uris: Vec::new(), dns: Vec::new() };
    for name in all.into_iter().flatten() {
        match name {
            GeneralName::URI(uri) => names.uris.push(uri),
            GeneralName::DNSName(dns) => names.dns.push(dns),
            _ => {}
        }
    }
    Ok(names)
}

impl Names<'_> {
    /// Several URIs are no identity: SPIFFE requires that validators refuse them (X509-SVID 2).
    pub(super) fn identity(&self) -> Result<String, Untrusted> {
        let name = match self.uris.as_slice() {
            [uri] => uri.strip_prefix(OUR_SPIFFE_ID).unwrap_or(uri),
            [] => self.dns.first().ok_or(Untrusted::NoIdentity)?,
            [_, _, ..] => return Err(Untrusted::NoIdentity),
        };
        let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        let is_identity = is_plain && (1..=IDENTITY_MAX).contains(&name.len());
        if is_identity { Ok(name.to_owned()) } else { Err(Untrusted::NoIdentity) }
    }
}
