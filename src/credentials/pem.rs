//! The PEM files of an operator: a certificate with its key, CAs, revocation lists. Pure.

use std::path::Path;

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::CredentialsError;
use super::trust::provider;
use crate::diagnostic::Mistake;

/// Chains are short; each certificate is sent in every handshake.
const CHAIN_MAX: usize = 8;

/// Reads a certificate, its intermediate certificates and its key, in any order of key and certificates.
pub(super) fn certified_key(path: &Path, file: &[u8]) -> Result<CertifiedKey, CredentialsError> {
    let chain = certificates(path, file)?;
    if chain.len() > CHAIN_MAX {
        let mistake = Mistake::new(format!("has {} certificates, more than {CHAIN_MAX}", chain.len()));
        return Err(in_file(
            path,
            mistake,
            "it must have our own certificate first, then those of its issuers",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(file).map_err(|error| no_key(path, &error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| unusable_key(path, &error))
}

/// Reads one or more certificates.
pub(super) fn certificates(
    path: &Path,
    file: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file).collect();
    let found = found.map_err(|error| malformed(path, &error))?;
    if found.is_empty() {
        return Err(in_file(
            path,
            Mistake::new("has no certificate"),
            "it must be a PEM file with `-----BEGIN CERTIFICATE-----`",
        ));
    }
    Ok(found)
}

/// Reads revocation lists. None is an error: an empty file is more likely a mistake than the wish to revoke nothing.
pub(super) fn revocation_lists(
    path: &Path,
    file: &[u8],
) -> Result<Vec<CertRevocationList<'static>>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(file).collect();
    let found = found.map_err(|error| malformed(path, &error))?;
    if found.is_empty() {
        return Err(in_file(
            path,
            Mistake::new("has no revocation list"),
            "it must be a PEM file with `-----BEGIN X509 CRL-----`",
        ));
    }
    found.iter().map(|list| revocation_list(path, list)).collect()
}

fn revocation_list(
    path: &Path,
    list: &CertificateRevocationListDer<'_>,
) -> Result<CertRevocationList<'static>, CredentialsError> {
    let parsed = OwnedCertRevocationList::from_der(list);
    parsed.map(CertRevocationList::from).map_err(|error| {
        in_file(
            path,
            Mistake::new(format!("unusable revocation list: {error}")),
            "it must be a complete list of version 2 (RFC 5280)",
        )
    })
}

fn no_key(path: &Path, error: &pem::Error) -> CredentialsError {
    match error {
        pem::Error::NoItemsFound => in_file(
            path,
            Mistake::new("has no private key"),
            "append the key, unencrypted: `cat cert.pem key.pem > both.pem; chmod 0600 both.pem`",
        ),
        _ => malformed(path, error),
    }
}

fn unusable_key(path: &Path, error: &Error) -> CredentialsError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => in_file(
            path,
            Mistake::new("the private key does not belong to the first certificate"),
            "put our own certificate first, and replace certificate and key together",
        ),
        _ => in_file(
            path,
            Mistake::new(format!("unusable certificate or key: {error}")),
            "ECDSA (P-256, P-384), Ed25519 and RSA keys are supported",
        ),
    }
}

fn malformed(path: &Path, error: &pem::Error) -> CredentialsError {
    in_file(path, Mistake::new(format!("invalid PEM: {error}")), "was it copied whole?")
}

fn in_file(path: &Path, mistake: Mistake, help: &str) -> CredentialsError {
    CredentialsError::in_file(path, mistake.help(help))
}
