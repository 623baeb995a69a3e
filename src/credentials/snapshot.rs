//! The credentials at one moment, built from the contents of all files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::CertifiedKey;
use webpki::CertRevocationList;

use super::files::{CertificateFiles, Contents, FileBytes, permission_warning};
use super::identity::{self, PeerIdentity};
use super::leaf::{CLOCK_SKEW, LEAF_LIFE, SecretCa};
use super::trust::{CredentialKind, Root, Trust, unix_time};
use super::{CredentialFiles, CredentialsError, name, pem, secret};
use crate::diagnostic::Mistake;

/// The organization in the subject of each CA of `ambassador ca`. It distinguishes them from other CAs: see [`CredentialKind`].
pub(super) const OWN_CA_ORGANIZATION: &str = "ambassador ca";

/// A chain is searched through all of them. Public authorities, which are about 150, issue no certificates for peers.
const CAS_MAX: usize = 64;

/// A certificate in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// `peer-cert`, `peer-ca`, and `peer-ca-2` and so on for further CAs of the file.
    pub name: String,
    /// Our identity, or the subject of the CA.
    pub identity: String,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// Its file.
    pub path: PathBuf,
}

/// The credentials at one moment.
pub(super) struct Snapshot {
    pub(super) contents: Contents,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) identity: PeerIdentity,
    pub(super) trust: Arc<Trust>,
    pub(super) certificates: Vec<CertificateInfo>,
    pub(super) lists: Vec<pem::ListInfo>,
    pub(super) warnings: Vec<String>,
    /// When a self-issued certificate was issued.
    issued: Option<SystemTime>,
}

impl Snapshot {
    pub(super) fn new(
        files: &CredentialFiles,
        contents: Contents,
        now: SystemTime,
    ) -> Result<Snapshot, CredentialsError> {
        match contents {
            Contents::Secret(file) => Snapshot::of_secret(file, files, now),
            Contents::Certificates(files) => Snapshot::of_certificates(files, now),
        }
    }

    fn of_secret(
        file: FileBytes,
        files: &CredentialFiles,
        now: SystemTime,
    ) -> Result<Snapshot, CredentialsError> {
        let secrets =
            secret::parse(&file.bytes).map_err(|mistake| CredentialsError::in_file(&file.path, mistake))?;
        let cas: Vec<SecretCa> = secrets.iter().map(SecretCa::new).collect::<Result<_, _>>()?;
        let in_use = cas.first().ok_or_else(|| CredentialsError::Tls("no secret".to_owned()))?;
        let certified = in_use.issue(&own_name(files)?, now)?;
        let roots =
            cas.iter().map(|ca| Root { certificate: ca.certificate.clone(), not_after: ca.not_after });
        let roots: Vec<Root> = roots.collect();
        Ok(Snapshot {
            identity: own_identity(&file.path, &certified)?,
            certified: Arc::new(certified),
            trust: Arc::new(trust(&file.path, CredentialKind::Secret, &roots, Vec::new())?),
            certificates: Vec::new(),
            lists: Vec::new(),
            warnings: permission_warning(&file.path).into_iter().collect(),
            issued: Some(now),
            contents: Contents::Secret(file),
        })
    }

    fn of_certificates(files: CertificateFiles, now: SystemTime) -> Result<Snapshot, CredentialsError> {
        let CertificateFiles { cert, key, ca, crl } = &files;
        let certified = pem::certified_key(&cert.path, &cert.bytes, key.as_ref())?;
        let identity = own_identity(&cert.path, &certified)?;
        let cas = read_cas(ca)?;
        let lists = crl
            .as_ref()
            .map(|crl| pem::revocation_lists(&crl.path, &crl.bytes))
            .transpose()?
            .unwrap_or_default();
        let listed = lists.iter().map(|list| list.info.clone()).collect();
        let is_own = cas.iter().all(|ca| ca.is_own);
        let kind = if is_own { CredentialKind::OwnCa } else { CredentialKind::ForeignCa };
        let roots: Vec<Root> = cas.iter().map(|ca| ca.root.clone()).collect();
        let trust = trust(&ca.path, kind, &roots, lists.into_iter().map(|list| list.parsed).collect())?;
        let warnings = permission_warning(&key.as_ref().unwrap_or(cert).path)
            .into_iter()
            .chain(own_warning(&cert.path, &certified, &trust, now));
        Ok(Snapshot {
            warnings: warnings.collect(),
            certificates: certificates(&cert.path, &identity, &ca.path, &cas),
            certified: Arc::new(certified),
            identity,
            trust: Arc::new(trust),
            lists: listed,
            issued: None,
            contents: Contents::Certificates(files),
        })
    }

    /// Returns whether a self-issued certificate is to be replaced: after half its life, or when the clock was set back.
    pub(super) fn is_renewal_due(&self, now: SystemTime) -> bool {
        self.issued.is_some_and(|issued| match now.duration_since(issued) {
            Ok(age) => age >= LEAF_LIFE / 2,
            Err(ahead) => ahead.duration() >= CLOCK_SKEW / 2,
        })
    }
}

/// A CA of the file, and what we show of it.
struct Ca {
    root: Root,
    subject: String,
    is_own: bool,
}

fn read_cas(file: &FileBytes) -> Result<Vec<Ca>, CredentialsError> {
    let found = pem::certificates(&file.path, &file.bytes)?;
    if found.len() > CAS_MAX {
        let mistake = Mistake::new(format!("has {} certificates, more than {CAS_MAX}", found.len()));
        let help = "list only the CAs that issue the certificates of peers: each of them can issue any name";
        return Err(CredentialsError::in_file(&file.path, mistake.help(help)));
    }
    found.iter().map(|certificate| read_ca(&file.path, certificate)).collect()
}

fn read_ca(path: &Path, certificate: &CertificateDer<'static>) -> Result<Ca, CredentialsError> {
    let unusable = |why: String| CredentialsError::in_file(path, Mistake::new(why));
    let parsed = identity::parse(certificate).map_err(|error| unusable(error.to_string()))?;
    let subject = parsed.subject().to_string();
    let constraints = parsed.basic_constraints().map_err(|error| unusable(error.to_string()))?;
    if constraints.is_some_and(|constraints| !constraints.value.ca) {
        let mistake = Mistake::new(format!("`{subject}` is not the certificate of a CA"));
        let help = "put the certificate of the CA here, and that of this host into --peer-cert";
        return Err(CredentialsError::in_file(path, mistake.help(help)));
    }
    let is_own = parsed.subject().iter_organization().any(|name| name.as_str() == Ok(OWN_CA_ORGANIZATION));
    let not_after = identity::time(parsed.validity().not_after);
    Ok(Ca { root: Root { certificate: certificate.clone(), not_after }, subject, is_own })
}

/// Parses each kind of PEM file, for fuzzing.
pub(super) fn read_any(file: &[u8]) {
    let file = FileBytes { path: PathBuf::from("any"), bytes: file.to_vec() };
    if let Ok(certified) = pem::certified_key(&file.path, &file.bytes, None) {
        let _ = own_identity(&file.path, &certified);
    }
    let _ = pem::revocation_lists(&file.path, &file.bytes);
    let _ = read_cas(&file);
}

fn own_name(files: &CredentialFiles) -> Result<String, CredentialsError> {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let own = files.name.clone().unwrap_or_else(host);
    name::check(&own).map_err(|mistake| CredentialsError::in_flag("peer-name", mistake))?;
    Ok(own)
}

fn own_identity(path: &Path, certified: &CertifiedKey) -> Result<PeerIdentity, CredentialsError> {
    let leaf = certified.end_entity_cert()?;
    identity::read(leaf)
        .map_err(|untrusted| CredentialsError::in_file(path, Mistake::new(untrusted.to_string())))
}

fn trust(
    path: &Path,
    kind: CredentialKind,
    roots: &[Root],
    lists: Vec<CertRevocationList<'static>>,
) -> Result<Trust, CredentialsError> {
    Trust::new(kind, roots, lists)
        .map_err(|error| CredentialsError::in_file(path, Mistake::new(format!("unusable CA: {error}"))))
}

/// Peers usually have the same CAs and revocation lists, so what we do not trust, they will not trust.
fn own_warning(path: &Path, certified: &CertifiedKey, trust: &Trust, now: SystemTime) -> Option<String> {
    let untrusted = trust.identity(&certified.cert, unix_time(now)).err()?;
    Some(format!("{}: {untrusted}; peers that have our files refuse it", path.display()))
}

/// Our certificate, then the CAs.
fn certificates(cert: &Path, own: &PeerIdentity, ca: &Path, cas: &[Ca]) -> Vec<CertificateInfo> {
    let leaf = CertificateInfo {
        name: "peer-cert".to_owned(),
        identity: (*own.identity).to_owned(),
        not_after: own.not_after,
        path: cert.to_owned(),
    };
    let numbered = |n: usize| if n == 0 { "peer-ca".to_owned() } else { format!("peer-ca-{}", n + 1) };
    let cas = cas.iter().enumerate().map(|(n, found)| CertificateInfo {
        name: numbered(n),
        identity: found.subject.clone(),
        not_after: found.root.not_after,
        path: ca.to_owned(),
    });
    std::iter::once(leaf).chain(cas).collect()
}

/// Not the contents: they have a key in them.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("identity", &self.identity)
            .field("trust", &self.trust.kind())
            .finish_non_exhaustive()
    }
}
