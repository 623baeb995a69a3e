//! The PEM files of an operator: a certificate with its key, CAs, revocation lists. Pure.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::BASE64;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};
use webpki::{CertRevocationList, OwnedCertRevocationList};

use x509_parser::parse_x509_crl;

use super::files::FileBytes;
use super::trust::provider;
use super::{CredentialsError, identity};
use crate::diagnostic::Mistake;

/// Chains are short; each certificate is sent in every handshake.
const CHAIN_MAX: usize = 8;

/// In the label of an encrypted key (RFC 7468, 11), and in a header of its older form (RFC 1421, 4.6.1.1).
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// The length of a line of base64 (RFC 7468, 2).
const LINE_LENGTH: usize = 64;

/// Reads a certificate, its intermediate certificates and its key, in any order of key and certificates.
pub(super) fn certified_key(
    path: &Path,
    file: &[u8],
    key: Option<&FileBytes>,
) -> Result<CertifiedKey, CredentialsError> {
    let (key_path, key_file) = key.map_or((path, file), |key| (&key.path, &key.bytes));
    if key_file.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        let mistake = Mistake::new("the private key is encrypted, and there is no passphrase");
        return Err(in_file(key_path, mistake, "decrypt it with `openssl pkey -in key.pem -out plain.pem`"));
    }
    let chain = certificates(path, file)?;
    if chain.len() > CHAIN_MAX {
        let mistake = Mistake::new(format!("has {} certificates, more than {CHAIN_MAX}", chain.len()));
        return Err(in_file(
            path,
            mistake,
            "it must have our own certificate first, then those of its issuers",
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(key_file).map_err(|error| no_key(key_path, &error))?;
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

/// A revocation list in a file.
#[derive(Clone, Debug)]
pub(super) struct ListInfo {
    pub(super) issuer: String,
    /// When its CA was to issue the next one.
    pub(super) next_update: Option<SystemTime>,
    pub(super) path: PathBuf,
}

/// A revocation list for the verification, and what we show of it.
pub(super) struct RevocationList {
    pub(super) parsed: CertRevocationList<'static>,
    pub(super) info: ListInfo,
}

/// Reads revocation lists. None is an error: an empty file is more likely a mistake than the wish to revoke nothing.
pub(super) fn revocation_lists(path: &Path, file: &[u8]) -> Result<Vec<RevocationList>, CredentialsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(file).collect();
    let found = found.map_err(|error| malformed(path, &error))?;
    if found.is_empty() {
        let mistake = Mistake::new("has no revocation list");
        return Err(in_file(path, mistake, "it must be a PEM file with `-----BEGIN X509 CRL-----`"));
    }
    found.iter().map(|list| revocation_list(path, list)).collect()
}

/// Encodes a section (RFC 7468).
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = BASE64.encode(der);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_LENGTH));
        text.extend([line, "\n"]);
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}

fn revocation_list(
    path: &Path,
    list: &CertificateRevocationListDer<'_>,
) -> Result<RevocationList, CredentialsError> {
    let unusable = |why: String| {
        let help = "it must be a complete list of version 2 (RFC 5280)";
        in_file(path, Mistake::new(format!("unusable revocation list: {why}")), help)
    };
    let parsed = OwnedCertRevocationList::from_der(list).map_err(|error| unusable(error.to_string()))?;
    let (_, shown) = parse_x509_crl(list).map_err(|error| unusable(error.to_string()))?;
    let next_update = shown.next_update().map(identity::time);
    let info = ListInfo { issuer: shown.issuer().to_string(), next_update, path: path.to_owned() };
    Ok(RevocationList { parsed: parsed.into(), info })
}

fn no_key(path: &Path, error: &pem::Error) -> CredentialsError {
    match error {
        pem::Error::NoItemsFound => in_file(
            path,
            Mistake::new("has no private key"),
            "append it, or put it beside the certificate: `tls.key` beside `tls.crt`, `svid_key.pem` beside `svid.pem`",
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
