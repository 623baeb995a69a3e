//! The files of the credentials, and their contents.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;

use super::CredentialsError;
use crate::diagnostic::Mistake;
use crate::regular;

/// Eight secrets of the greatest length, several times.
const SECRET_FILE_MAX_BYTES: usize = 64 << 10;

/// A chain of several certificates with a key has 10 KB.
pub(super) const CERT_FILE_MAX_BYTES: usize = 1 << 20;

/// The certificates of all public authorities have 220 KB.
pub(super) const CA_FILE_MAX_BYTES: usize = 4 << 20;

/// About 200,000 revoked certificates.
const CRL_FILE_MAX_BYTES: usize = 8 << 20;

/// In the label of each kind of private key (RFC 7468, 10 and 11).
const KEY_LABEL: &[u8] = b"PRIVATE KEY-----";

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Where the credentials are: a secret, or a certificate and CAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// One secret a line (`--peer-secret-file`).
    pub secret: Option<PathBuf>,
    /// Our certificate, its chain and its key in one PEM file (`--peer-cert`), or the key in a file beside it.
    pub cert: Option<PathBuf>,
    /// The CAs that we trust (`--peer-ca`).
    pub ca: Option<PathBuf>,
    /// Their revocation lists (`--peer-crl`).
    pub crl: Option<PathBuf>,
    /// Our own name with a secret (`--peer-name`). Default: the host name.
    pub name: Option<String>,
}

/// What was in the files at one moment. Comparing it shows each change, however the files were replaced.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Contents {
    Secret(FileBytes),
    Certificates(CertificateFiles),
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct CertificateFiles {
    pub(super) cert: FileBytes,
    /// The private key, if it is not in `cert`.
    pub(super) key: Option<FileBytes>,
    pub(super) ca: FileBytes,
    pub(super) crl: Option<FileBytes>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct FileBytes {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl CredentialFiles {
    /// Reads all files.
    pub(super) fn read(&self) -> Result<Contents, CredentialsError> {
        match self {
            CredentialFiles { secret: Some(path), cert: None, ca: None, crl: None, .. } => {
                Ok(Contents::Secret(read(path, SECRET_FILE_MAX_BYTES)?))
            }
            CredentialFiles { secret: None, cert: Some(cert), ca: Some(ca), crl, name: None } => {
                let cert = read(cert, CERT_FILE_MAX_BYTES)?;
                Ok(Contents::Certificates(CertificateFiles {
                    key: read_key_beside(&cert)?,
                    cert,
                    ca: read(ca, CA_FILE_MAX_BYTES)?,
                    crl: crl.as_deref().map(|crl| read(crl, CRL_FILE_MAX_BYTES)).transpose()?,
                }))
            }
            incomplete => Err(incomplete.mistake()),
        }
    }

    /// Explains which files do not go together.
    fn mistake(&self) -> CredentialsError {
        let CredentialFiles { secret, cert, ca, crl, name } = self;
        let (flag, mistake) = match (secret, cert, ca) {
            (Some(_), ..) => (
                "peer-secret-file",
                Mistake::new("a secret and certificate files cannot be used together")
                    .help("use --peer-secret-file alone, or --peer-cert with --peer-ca"),
            ),
            (None, Some(_), None) => (
                "peer-cert",
                Mistake::new("requires --peer-ca")
                    .help("name the file of the CAs that issue the certificates of your peers"),
            ),
            (None, None, Some(_)) => (
                "peer-ca",
                Mistake::new("requires --peer-cert")
                    .help("`ambassador ca issue NAME` creates a certificate with its key"),
            ),
            (None, Some(_), Some(_)) if name.is_some() => (
                "peer-name",
                Mistake::new("has no effect with --peer-cert, whose certificate contains the name")
                    .help("remove it"),
            ),
            _ if crl.is_some() => {
                ("peer-crl", Mistake::new("requires --peer-cert and --peer-ca").help("set both"))
            }
            _ => (
                "peer-secret-file",
                Mistake::new("peers require a secret or a certificate")
                    .help("`ambassador peer secret > FILE` creates a secret; copy the file to each host"),
            ),
        };
        CredentialsError::in_flag(flag, mistake)
    }
}

/// Reads the file of the private key, if the file of the certificate has none: `tls.key` beside `tls.crt`, as cert-manager
/// writes them, or `svid_key.pem` beside `svid.pem`, as spiffe-helper does.
pub(super) fn read_key_beside(cert: &FileBytes) -> Result<Option<FileBytes>, CredentialsError> {
    let has_key = cert.bytes.windows(KEY_LABEL.len()).any(|window| window == KEY_LABEL);
    let name = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (name(cert.path.file_stem()), name(cert.path.extension()));
    let beside =
        [cert.path.with_extension("key"), cert.path.with_file_name(format!("{stem}_key.{extension}"))];
    let found = beside.iter().find(|path| !has_key && path.exists());
    found.map(|path| read(path, CERT_FILE_MAX_BYTES)).transpose()
}

/// Returns a warning if any user of the host can read or replace a file with a key. Group access can be on purpose.
///
/// Container engines mount secrets readable for all, in a file system of the container's own in memory: no warning there.
pub(super) fn permission_warning(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let is_in_memory = statfs(path).is_ok_and(|found| MEMORY_FILE_SYSTEMS.contains(&(found.f_type as u64)));
    let is_open = mode & 0o007 != 0 && !is_in_memory;
    is_open.then(|| {
        let (path, mode) = (path.display(), mode & 0o777);
        format!("{path}: every user of this host can read it (mode {mode:04o}): `chmod 0600 {path}`")
    })
}

pub(super) fn read(path: &Path, max: usize) -> Result<FileBytes, CredentialsError> {
    let bytes = regular::read(path, max).map_err(|error| CredentialsError::unreadable(path, &error))?;
    Ok(FileBytes { path: path.to_owned(), bytes })
}
