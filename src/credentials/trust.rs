//! Which certificates we trust: the CAs, and what they have revoked. Pure.
//!
//! Whether a certificate is revoked is known only from the lists that we have. An issuer without a list revokes nothing, and a list whose
//! next update is overdue is still used: the alternative would cut the network when a file is not renewed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use tokio_rustls::rustls::{CipherSuite, SupportedCipherSuite};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    KeyUsage, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath,
};

use super::identity::{self, PeerIdentity, Untrusted};
use crate::address::PeerName;

/// What authenticates peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A shared secret. Names are self-asserted.
    Secret,
    /// CAs that `ambassador ca` made. Each identity was issued for this network.
    OwnCa,
    /// At least one CA of another kind. It may issue certificates for other purposes, too.
    ForeignCa,
}

impl CredentialKind {
    /// Every kind, in the order of its number.
    pub const ALL: [CredentialKind; 3] =
        [CredentialKind::Secret, CredentialKind::OwnCa, CredentialKind::ForeignCa];

    /// Returns the kind in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            CredentialKind::Secret => "secret",
            CredentialKind::OwnCa => "own-ca",
            CredentialKind::ForeignCa => "foreign-ca",
        }
    }
}

/// The CAs and revocation lists.
#[derive(Debug)]
pub(super) struct Trust {
    kind: CredentialKind,
    anchors: Vec<TrustAnchor<'static>>,
    /// The ends of validity of `anchors`, which do not contain them.
    not_after: Vec<SystemTime>,
    lists: Vec<CertRevocationList<'static>>,
    provider: Arc<CryptoProvider>,
}

/// A CA that we trust.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) not_after: SystemTime,
}

/// Which side presented a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Client,
    Server,
    /// Whichever: its usage was verified in the handshake.
    Verified,
}

/// Returns the cryptography in use. AES-128 is preferred, as by other proxies: it costs a fifth less than AES-256.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    let is_other = |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(is_other);
    Arc::new(provider)
}

impl Trust {
    pub(super) fn new(
        kind: CredentialKind,
        roots: &[Root],
        lists: Vec<CertRevocationList<'static>>,
    ) -> Result<Trust, Error> {
        let anchors =
            roots.iter().map(|root| Ok(webpki::anchor_from_trusted_cert(&root.certificate)?.to_owned()));
        let anchors: Result<Vec<_>, Error> = anchors.collect();
        let not_after = roots.iter().map(|root| root.not_after).collect();
        Ok(Trust { kind, anchors: anchors?, not_after, lists, provider: provider() })
    }

    pub(super) fn kind(&self) -> CredentialKind {
        self.kind
    }

    /// Returns the cryptography of handshakes.
    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub(super) fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }

    /// Verifies a chain that was verified before, with what is trusted now, and returns its identity.
    pub(super) fn identity(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, Untrusted> {
        let (leaf, intermediates) = chain.split_first().ok_or(Untrusted::NoIdentity)?;
        self.verify(leaf, intermediates, Side::Verified, now)
    }

    /// Verifies a chain: signatures up to a CA, validity, usage and revocation. Returns its identity.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<PeerIdentity, Untrusted> {
        let parsed = EndEntityCert::try_from(leaf).map_err(untrusted)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let check = |path: &VerifiedPath<'_>| self.check_validity(path.anchor(), now);
        let (anchors, revoked) = (&self.anchors, revocation(&lists));
        parsed
            .verify_for_usage(algorithms, anchors, intermediates, now, side, revoked, Some(&check))
            .map_err(untrusted)?;
        identity::read(leaf)
    }

    /// Verifies that a server is the one that was dialled. The chain must have been verified.
    pub(super) fn verify_name(
        &self,
        leaf: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        expected: &PeerName,
    ) -> Result<(), Untrusted> {
        match expected {
            PeerName::Host(_) if self.kind == CredentialKind::Secret => Ok(()),
            PeerName::Host(host) => verify_host(leaf, server_name, host),
            PeerName::Identity(expected) => verify_identity(leaf, expected),
        }
    }

    /// A CA's validity is not a part of path validation (RFC 5280, 6.1), but an operator expects that it ends.
    /// Of two certificates for the same key, the later one counts.
    fn check_validity(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), Error> {
        let same = self.anchors.iter().zip(&self.not_after).filter(|(known, _)| *known == anchor);
        match same.map(|(_, not_after)| unix_time(*not_after)).max() {
            Some(not_after) if not_after < now => Err(Error::CertExpired { time: now, not_after }),
            _ => Ok(()),
        }
    }
}

fn verify_host(leaf: &CertificateDer<'_>, server_name: &ServerName<'_>, host: &str) -> Result<(), Untrusted> {
    let parsed = EndEntityCert::try_from(leaf).map_err(untrusted)?;
    parsed.verify_is_valid_for_subject_name(server_name).map_err(|error| match error {
        Error::CertNotValidForName(_) => wrong_name(leaf, host),
        other => untrusted(other),
    })
}

fn verify_identity(leaf: &CertificateDer<'_>, expected: &str) -> Result<(), Untrusted> {
    let presented = identity::read(leaf)?.identity;
    if *presented == *expected {
        return Ok(());
    }
    Err(Untrusted::WrongName { expected: expected.to_owned(), presented: (*presented).to_owned() })
}

fn wrong_name(leaf: &CertificateDer<'_>, host: &str) -> Untrusted {
    let names = identity::parse(leaf).and_then(|parsed| {
        let names = identity::names(&parsed)?;
        if names.dns.is_empty() { names.identity() } else { Ok(names.dns.join(", ")) }
    });
    Untrusted::WrongName { expected: host.to_owned(), presented: names.unwrap_or_default() }
}

fn revocation<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    // An error means that there is no list.
    let options = RevocationOptionsBuilder::new(lists).ok()?;
    let options = options.with_depth(RevocationCheckDepth::Chain);
    let options = options.with_status_policy(UnknownStatusPolicy::Allow);
    Some(options.with_expiration_policy(ExpirationPolicy::Ignore).build())
}

fn untrusted(error: Error) -> Untrusted {
    match error {
        Error::CertRevoked => Untrusted::Revoked,
        Error::CertExpired { not_after, .. } => Untrusted::Expired { not_after: system_time(not_after) },
        Error::CertNotValidYet { not_before, .. } => {
            Untrusted::NotYetValid { not_before: system_time(not_before) }
        }
        // A CA of the same name with another key.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Untrusted::UnknownIssuer,
        other => Untrusted::Unusable(other.to_string()),
    }
}

pub(super) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

pub(super) fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

impl ExtendedKeyUsageValidator for Side {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        match self {
            Side::Client => KeyUsage::client_auth().validate(usages),
            Side::Server => KeyUsage::server_auth().validate(usages),
            Side::Verified => Ok(()),
        }
    }
}
