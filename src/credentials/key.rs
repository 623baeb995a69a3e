//! Certificates of this host and CAs that are not those of peers: for routes with `tls`, and targets `tls://`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::files::{
    CA_FILE_MAX_BYTES, CERT_FILE_MAX_BYTES, FileBytes, permission_warning, read, read_key_beside,
};
use super::{CredentialsError, identity, pem, trust};
use crate::diagnostic::Mistake;

/// Where distributions keep the certificates of the public authorities: Debian and Alpine, Fedora, openSUSE, others.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What was in the files of a certificate and its key at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFiles {
    cert: FileBytes,
    /// The private key, if it is not in `cert`.
    key: Option<FileBytes>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct LoadedKey {
    /// From which it was loaded.
    pub files: KeyFiles,
    /// For the TLS library.
    pub certified: Arc<CertifiedKey>,
    /// The identity in the certificate, or else its subject.
    pub subject: String,
    /// The DNS names in the certificate.
    pub dns_names: Vec<String>,
    /// The end of its validity.
    pub not_after: SystemTime,
}

impl KeyFiles {
    /// Reads the files. Without `key`, the key is in the file of the certificate, or beside it.
    pub fn read(cert: &Path, key: Option<&Path>) -> Result<KeyFiles, CredentialsError> {
        let cert = read(cert, CERT_FILE_MAX_BYTES)?;
        let key = match key {
            Some(key) => Some(read(key, CERT_FILE_MAX_BYTES)?),
            None => read_key_beside(&cert)?,
        };
        Ok(KeyFiles { cert, key })
    }

    /// Parses the certificate and the key, which must belong together.
    pub fn load(self) -> Result<LoadedKey, CredentialsError> {
        let path = &self.cert.path;
        let unusable = |why: String| CredentialsError::in_file(path, Mistake::new(why));
        let certified = pem::certified_key(path, &self.cert.bytes, self.key.as_ref())?;
        let leaf = certified.cert.first().ok_or_else(|| unusable("has no certificate".to_owned()))?;
        let parsed = identity::parse(leaf).map_err(|error| unusable(error.to_string()))?;
        let names = identity::names(&parsed).map_err(|error| unusable(error.to_string()))?;
        let subject = names.identity().unwrap_or_else(|_| parsed.subject().to_string());
        let dns_names = names.dns.iter().map(|name| (*name).to_owned()).collect();
        let not_after = identity::time(parsed.validity().not_after);
        Ok(LoadedKey { certified: Arc::new(certified), subject, dns_names, not_after, files: self })
    }

    /// Returns a warning if every user of this host can read the key.
    pub fn warning(&self) -> Option<String> {
        permission_warning(&self.key.as_ref().unwrap_or(&self.cert).path)
    }
}

/// Not the contents: they have a key in them.
impl std::fmt::Debug for KeyFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFiles").field("cert", &self.cert.path).finish_non_exhaustive()
    }
}

/// What was in a file of CAs at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct CaFile(FileBytes);

impl CaFile {
    /// Reads the file of an operator, or that of the system.
    pub fn read(path: Option<&Path>) -> Result<CaFile, CredentialsError> {
        let path = path.map_or_else(system_roots, |path| Ok(path.to_owned()))?;
        read(&path, CA_FILE_MAX_BYTES).map(CaFile)
    }

    /// Parses the CAs. Those that cannot be used are left out, as by other programs: the file of a system has many.
    pub fn roots(&self) -> Result<RootCertStore, CredentialsError> {
        let CaFile(FileBytes { path, bytes }) = self;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(pem::certificates(path, bytes)?);
        if usable > 0 {
            return Ok(roots);
        }
        let mistake = Mistake::new("has no usable CA").help("it must have the certificates of CAs");
        Err(CredentialsError::in_file(path, mistake))
    }
}

impl std::fmt::Debug for CaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CaFile({})", self.0.path.display())
    }
}

fn system_roots() -> Result<PathBuf, CredentialsError> {
    let found = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        let mistake = Mistake::new("there are no certificates of public authorities on this host").help(
            "set `ca=FILE` on the route, or install or mount them, as with `-v /etc/ssl/certs:/etc/ssl/certs:ro`",
        );
        CredentialsError::in_file(Path::new(SYSTEM_ROOTS.first().copied().unwrap_or_default()), mistake)
    })
}

/// Returns the common name in the subject of a certificate.
pub fn common_name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = identity::parse(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// Returns the cryptography of all handshakes.
pub fn provider() -> Arc<CryptoProvider> {
    trust::provider()
}
