//! One key of a CA with its certificate. A rotation adds one, and its end removes the previous one.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::index::IssuedCertificate;
use crate::credentials::identity;
use crate::credentials::leaf::{CLOCK_SKEW, set_validity};
use crate::credentials::snapshot::OWN_CA_ORGANIZATION;
use crate::credentials::{CredentialsError, pem, random};
use crate::diagnostic::Mistake;

/// Long: when a CA expires, its network is down until every host has a new certificate.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Distinguishes the keys of a CA: a revocation list names its issuer by the name only.
const SUFFIX_BYTES: usize = 4;

/// The longest name: a common name has up to 64 characters, of which the suffix takes nine.
pub(super) const GIVEN_NAME_MAX: usize = 55;

pub(super) struct Generation {
    /// The common name, such as `peers 5d41402a`.
    pub(super) name: String,
    pub(super) not_after: SystemTime,
    pub(super) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Generation {
    pub(super) fn create(given_name: &str, now: SystemTime) -> Result<Generation, CredentialsError> {
        let name = format!("{given_name} {}", HEXLOWER.encode(&random::bytes::<SUFFIX_BYTES>()?));
        // P-256: BoringSSL, and so Envoy, accepts no Ed25519 certificates by default.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, OWN_CA_ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_after = now + CA_LIFE;
        set_validity(&mut params, now - CLOCK_SKEW, not_after);
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Generation { name, not_after, issuer: Issuer::new(params, key), certificate })
    }

    /// Returns the name without the suffix.
    pub(super) fn given_name(&self) -> &str {
        self.name.rsplit_once(' ').map_or(self.name.as_str(), |(given, _)| given)
    }

    pub(super) fn pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.certificate)
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Returns a list of revoked certificates as PEM. It is valid as long as the CA: a host without a newer one keeps using it.
    pub(super) fn revocation_list(
        &self,
        revoked: &[IssuedCertificate],
        now: SystemTime,
    ) -> Result<String, CredentialsError> {
        let since_epoch = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let date =
            |time: SystemTime| date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch(time).as_secs());
        let entry = |certificate: &IssuedCertificate| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&certificate.serial_bytes()),
            revocation_time: date(certificate.revoked.map_or(now, |revoked| revoked.0)),
            // Not given: RFC 5280, 5.3.1, prefers this to `unspecified`.
            reason_code: None,
            invalidity_date: None,
        };
        let number = u64::try_from(since_epoch(now).as_millis()).unwrap_or(u64::MAX);
        let list = CertificateRevocationListParams {
            this_update: date(now - CLOCK_SKEW),
            next_update: date(self.not_after),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

/// Returns a random serial number of 127 bits (RFC 5280, 4.1.2.2: positive).
pub(super) fn serial() -> Result<SerialNumber, CredentialsError> {
    let [first, rest @ ..] = random::bytes::<16>()?;
    // Not zero, so that the number always has 16 bytes.
    let first = (first & 0x7f).max(1);
    Ok(SerialNumber::from_slice(&[&[first][..], &rest].concat()))
}

/// Reads the certificates with their keys. Other keys in the file are ignored.
pub(super) fn read(
    certificates_path: &Path,
    certificates: &[u8],
    keys_path: &Path,
    keys: &[u8],
) -> Result<Vec<Generation>, CredentialsError> {
    let keys: Result<Vec<_>, _> = PrivatePkcs8KeyDer::pem_slice_iter(keys).collect();
    let keys = keys.map_err(|error| lost(keys_path, format!("invalid PEM: {error}")))?;
    let certificates = pem::certificates(certificates_path, certificates)?.into_iter().map(|certificate| {
        let unusable = |why: String| lost(certificates_path, why);
        let parsed = identity::parse(&certificate).map_err(|error| unusable(error.to_string()))?;
        let spki = parsed.public_key().raw;
        let mut pairs = keys.iter().filter_map(|key| KeyPair::try_from(key).ok());
        let key = pairs.find(|pair| pair.subject_public_key_info() == spki);
        let key = key.ok_or_else(|| lost(keys_path, format!("has no key for `{}`", parsed.subject())))?;
        let name = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
        let name = name.ok_or_else(|| unusable("has no common name".to_owned()))?.to_owned();
        let not_after = identity::time(parsed.validity().not_after);
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Generation { name, not_after, issuer, certificate: certificate.clone() })
    });
    certificates.collect()
}

fn lost(path: &Path, why: String) -> CredentialsError {
    CredentialsError::in_file(path, Mistake::new(why).help("restore the directory of the CA from a backup"))
}
