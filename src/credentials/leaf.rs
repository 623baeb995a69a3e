//! The certificates that a shared secret defines: a CA that every holder derives, and our own leaf, issued by it. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, date_time_ymd,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::CredentialsError;
use super::identity::OUR_SPIFFE_ID;
use super::secret::{PeerSecret, Seed};
use super::trust::provider;

/// How long a leaf is valid. It is renewed at half its life, so that a tunnel has half a day to be replaced.
pub(super) const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// A secret does not expire: its CA is valid from 1970 for two thousand years.
const CA_LIFE: Duration = Duration::from_secs(2000 * 365 * 24 * 60 * 60);

/// Clocks of two hosts differ: a certificate is valid from this long before its issue.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// What precedes the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410, 7).
const PKCS8_ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// A CA whose key every holder of the secret has.
pub(super) struct SecretCa {
    issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) not_after: SystemTime,
}

impl SecretCa {
    pub(super) fn new(secret: &PeerSecret) -> Result<SecretCa, CredentialsError> {
        let key = key(&secret.ca_seed()?)?;
        let mut params = CertificateParams::default();
        let name = format!("ambassador peer secret {}", HEXLOWER.encode(&secret.ca_number()?));
        params.distinguished_name = common_name(&name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let not_after = UNIX_EPOCH + CA_LIFE;
        set_validity(&mut params, UNIX_EPOCH, not_after);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(SecretCa { issuer: Issuer::new(params, key), certificate, not_after })
    }

    /// Issues a certificate of 24 hours for a new key.
    pub(super) fn issue(&self, name: &str, now: SystemTime) -> Result<CertifiedKey, CredentialsError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = peer_params(name)?;
        set_validity(&mut params, now.checked_sub(CLOCK_SKEW).unwrap_or(now), now + LEAF_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::from_der(vec![certificate], key, &provider())?)
    }
}

/// What each certificate of a peer has: its name as a SPIFFE ID and as a DNS name, for both sides of a connection.
pub(super) fn peer_params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.subject_alt_names =
        vec![SanType::URI(format!("{OUR_SPIFFE_ID}{name}").try_into()?), SanType::DnsName(name.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Sets the validity of a certificate, whose times are whole seconds.
pub(super) fn set_validity(params: &mut CertificateParams, not_before: SystemTime, not_after: SystemTime) {
    let date =
        |time: SystemTime| date_time_ymd(1970, 1, 1) + time.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = date(not_before);
    params.not_after = date(not_after);
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn key(Seed(seed): &Seed) -> Result<KeyPair, rcgen::Error> {
    let pkcs8 = [&PKCS8_ED25519[..], seed].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)
}
