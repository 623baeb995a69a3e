//! What a certificate is to be issued for.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, SubjectPublicKeyInfo};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, DnsName};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::generation::{self, Generation};
use super::index::{IssuedCertificate, RfcTime};
use crate::credentials::atomic::{PRIVATE, PUBLIC};
use crate::credentials::leaf::{CLOCK_SKEW, peer_params, set_validity};
use crate::credentials::{CredentialsError, name, pem};
use crate::diagnostic::Mistake;
use crate::regular;

/// The life of the CA. A longer one is a typing error.
const DAYS_MAX: u32 = 3650;

const REQUEST_MAX_BYTES: usize = 1 << 20;

/// What a certificate is to be issued for.
#[derive(Clone, Debug)]
pub struct IssueRequest {
    /// The identity.
    pub name: String,
    /// How long it is valid.
    pub days: u32,
    /// A certificate signing request: only its public key is used.
    pub csr: Option<PathBuf>,
    /// Further DNS names and IP addresses.
    pub alternative_names: Vec<String>,
    /// The file to write. Default: the name with `.pem` in the current directory.
    pub out: Option<PathBuf>,
}

impl IssueRequest {
    pub(super) fn path(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.pem", self.name)))
    }

    /// Returns the certificate for the index, and the contents and mode of its file.
    pub(super) fn sign(
        &self,
        ca: &Generation,
        now: SystemTime,
    ) -> Result<(IssuedCertificate, String, u32), CredentialsError> {
        let mut params = self.params()?;
        let not_after = self.not_after(ca, now)?;
        set_validity(&mut params, now - CLOCK_SKEW, not_after);
        let serial = generation::serial()?;
        let certificate = IssuedCertificate {
            name: self.name.clone(),
            serial: HEXLOWER.encode(&serial.to_bytes()),
            ca: ca.name.clone(),
            alternative_names: self.alternative_names.clone(),
            issued: RfcTime(now),
            not_after: RfcTime(not_after),
            revoked: None,
        };
        params.serial_number = Some(serial);
        let (pem, mode) = self.signed(&params, ca)?;
        Ok((certificate, pem, mode))
    }

    fn params(&self) -> Result<CertificateParams, CredentialsError> {
        name::check(&self.name).map_err(|mistake| CredentialsError::in_flag("name", mistake))?;
        let mut params = peer_params(&self.name)?;
        for text in &self.alternative_names {
            let name = alternative_name(text)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        Ok(params)
    }

    /// A certificate that outlives its CA would stop working earlier than it says.
    fn not_after(&self, ca: &Generation, now: SystemTime) -> Result<SystemTime, CredentialsError> {
        let in_days = |mistake: Mistake| CredentialsError::in_flag("days", mistake);
        if !(1..=DAYS_MAX).contains(&self.days) {
            let mistake = Mistake::new(format!("invalid number of days `{}`", self.days));
            return Err(in_days(mistake.help(format!("choose 1 to {DAYS_MAX}"))));
        }
        let not_after = now + Duration::from_secs(u64::from(self.days) * 24 * 60 * 60);
        if not_after > ca.not_after {
            let mistake = Mistake::new(format!("the CA expires before that, at {}", RfcTime(ca.not_after)));
            return Err(in_days(
                mistake.help("choose fewer days, or renew the CA with `ambassador ca rotate`"),
            ));
        }
        Ok(not_after)
    }

    fn signed(&self, params: &CertificateParams, ca: &Generation) -> Result<(String, u32), CredentialsError> {
        match &self.csr {
            Some(path) => Ok((encoded(params.signed_by(&public_key(path)?, &ca.issuer)?.der()), PUBLIC)),
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                let certificate = encoded(params.signed_by(&key, &ca.issuer)?.der());
                Ok((certificate + &key.serialize_pem(), PRIVATE))
            }
        }
    }
}

fn encoded(certificate: &CertificateDer<'_>) -> String {
    pem::encode("CERTIFICATE", certificate)
}

fn alternative_name(text: &str) -> Result<SanType, CredentialsError> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    if DnsName::try_from(text).is_err() {
        let mistake = Mistake::new(format!("invalid name `{text}`"))
            .help("use a DNS name or an IP address, without a port");
        return Err(CredentialsError::in_flag("dns", mistake));
    }
    Ok(SanType::DnsName(text.try_into()?))
}

/// Reads the public key of a request, and verifies that the requester has the private key. Its other contents are not used: a stranger
/// wrote them.
fn public_key(path: &Path) -> Result<SubjectPublicKeyInfo, CredentialsError> {
    let in_file = |mistake: Mistake| CredentialsError::in_file(path, mistake);
    let file =
        regular::read(path, REQUEST_MAX_BYTES).map_err(|error| CredentialsError::unreadable(path, &error))?;
    let no_request = || {
        Mistake::new("has no certificate signing request")
            .help("it must be a PEM file with `-----BEGIN CERTIFICATE REQUEST-----`")
    };
    let der = CertificateSigningRequestDer::from_pem_slice(&file).map_err(|_| in_file(no_request()))?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| in_file(no_request()))?;
    let unusable = |why: String| {
        in_file(
            Mistake::new(why).help("use a key of type P-256, P-384, Ed25519 or RSA with at least 2048 bits"),
        )
    };
    request
        .verify_signature()
        .map_err(|error| unusable(format!("the signature is not that of its key: {error}")))?;
    let spki = request.certification_request_info.subject_pki.raw;
    SubjectPublicKeyInfo::from_der(spki).map_err(|error| unusable(format!("unusable key: {error}")))
}
